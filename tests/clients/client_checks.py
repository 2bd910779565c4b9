"""What users' own clients see: `client_checks.py [directly] [through]`, both unless told.

The same checks run against a lone runtime and against a coordinator in front of several machines:
they must pass and see the same in both places.
"""

import sys

import anthropic_checks
import curl_checks
import javascript
import langchain_checks
import litellm_checks
import ollama_checks
import openai_checks
from checks import Run, exit_on_sigterm, expect
from fleet import Fleet
from target import Target

SUITES = [ollama_checks, openai_checks, anthropic_checks, litellm_checks, langchain_checks]
SCRIPTS = ["ollama_checks.mjs", "openai_checks.mjs"]
PACE = ["--tokens-per-second", 100, "--answer-tokens", 1_000_000, "--transfer-time", "300ms",
        "--fixed-clock"]


def every_process_stops_cleanly_when_asked(fleet):
    codes = fleet.stop()
    expect(set(codes.values()) == {0}, codes)


def no_request_is_left_in_flight(target):
    target.expect_idle()


def main(places):
    exit_on_sigterm()
    run = Run()
    with Fleet() as fleet:
        fleet.add_simulated_runtime("alone", "--models", "talker,embedder,seer+vision,thinker+thinking",
                                    *PACE)
        fleet.add_simulated_machine("one", "--models", "talker,embedder", *PACE)
        fleet.add_simulated_machine("two", "--models", "seer+vision,thinker+thinking", *PACE,
                                    advertise="127.0.0.1")
        fleet.add_simulated_runtime("by-hand", "--models", "by-hand")
        fleet.wait_until_routable()
        alone, one, two = (fleet.runtimes[name] for name in ("alone", "one", "two"))
        targets = [
            Target("directly", alone, [alone]),
            Target("through the coordinator", fleet.url, [one, two],
                   {"x-coordinator-agent": "one"}, fleet.agents),
        ]
        targets = [target for target in targets if target.name.split()[0] in places]
        for check in (check for suite in SUITES for check in suite.CHECKS):
            _compare(run, check.__name__, [run.check(check, target, target.name)
                                           for target in targets])
        for script in SCRIPTS:
            javascript.run_script(run, script, targets)
        for target in targets:
            run.check(no_request_is_left_in_flight, target, target.name)
        for check in curl_checks.CHECKS + [every_process_stops_cleanly_when_asked]:
            run.check(check, fleet)
        return run.finish(fleet)


def _compare(run, name, outcomes):
    """Fails where a check passed everywhere but saw different things."""
    seen = [seen for passed, seen in outcomes if passed]
    if len(seen) == len(outcomes) and any(other != seen[0] for other in seen):
        run.failed(f"{name.replace('_', ' ')}, the same everywhere", f"saw {seen}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["directly", "through"]))
