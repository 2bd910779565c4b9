"""What users' own clients see when they talk to the coordinator instead of to a runtime."""

import sys

import curl_checks
import ollama_checks
import openai_checks
from checks import exit_on_sigterm, expect, run_checks
from fleet import Fleet


def every_process_stops_cleanly_when_asked(fleet):
    codes = fleet.stop()
    expect(set(codes.values()) == {0}, codes)


def main():
    exit_on_sigterm()
    with Fleet() as fleet:
        fleet.add_simulated_machine("steady", "--models", "steady",
                                    "--tokens-per-second", 20, "--answer-tokens", 20)
        fleet.add_simulated_machine("endless", "--models", "endless", "--slots", 1,
                                    "--tokens-per-second", 50, "--answer-tokens", 1_000_000)
        fleet.add_simulated_runtime("by-hand", "--models", "by-hand")
        fleet.wait_until_routable()
        return run_checks(fleet, [
            *ollama_checks.CHECKS,
            *openai_checks.CHECKS,
            *curl_checks.CHECKS,
            every_process_stops_cleanly_when_asked,
        ])


if __name__ == "__main__":
    sys.exit(main())
