"""The contract against a real coordinator: `schema_checks.py [schemathesis option...]`."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "clients"))

from checks import exit_on_sigterm
from fleet import Fleet

# A stream of events has no end, and a tunnel is a connection, not an answer.
ENDLESS = ["/api/events", "/api/agents/{id}/tunnel"]
# What is not allowed need not be refused: a list is taken for an object, field by field.
CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance",
          "response_headers_conformance", "response_schema_conformance", "unsupported_method"]
KNOWN = "00000000-0000-4000-8000-000000000001"


def main(options):
    exit_on_sigterm()
    with Fleet() as fleet:
        fleet.add_simulated_machine("one", "--models", "talker")
        fleet.wait_until_routable()
        register(fleet.url)
        command = [Path(sys.executable).with_name("st"), "run", f"{fleet.url}/api/openapi.json",
                   "--generation-deterministic", "--workers", "1",
                   "--max-examples", "20", "--request-timeout", "10", "--no-color",
                   "--phases", "coverage,fuzzing",
                   "--checks", ",".join(CHECKS), *options]
        for path in ENDLESS:
            command += ["--exclude-path", path]
        run = subprocess.run(command, cwd=fleet.home,
                             env={"PATH": os.environ["PATH"], "HOME": str(fleet.home)},
                             capture_output=True, text=True, timeout=300, check=False)
        print(run.stdout, run.stderr, sep="")
        still_answers(fleet.url)
    return run


def register(url):
    """Makes an agent that requests with a known id find."""
    body = json.dumps({"machine_name": "known", "agent_id": KNOWN, "link": "tunnel"}).encode()
    request = urllib.request.Request(f"{url}/api/agents", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 201, answer.status


def still_answers(url):
    with urllib.request.urlopen(f"{url}/readyz", timeout=10) as answer:
        assert answer.status == 200, answer.status


if __name__ == "__main__":
    done = main(sys.argv[1:])
    operations = re.search(r"Tested:\s+(\d+)", done.stdout)
    passed = int(operations.group(1)) if operations else 0
    print(f"{passed if done.returncode == 0 else 0} passed, {int(done.returncode != 0)} failed")
    sys.exit(done.returncode)
