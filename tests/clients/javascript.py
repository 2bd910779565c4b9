"""Runs the checks that are written in JavaScript: one line from node for each."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

# Where the scripts stand beside their packages.
PREPARED = Path(".cache/javascript")
TIME_LIMIT_SECONDS = 180


def run_script(run, script, targets):
    """Runs every check of a script against each target and compares what they saw."""
    node = shutil.which("node")
    if not node:
        run.skipped(script, "node is missing")
        return
    outcomes = {}
    for target in targets:
        command = [node, PREPARED / "run_checks.mjs", PREPARED / script, target.as_json()]
        process = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                                 stderr=sys.stderr, timeout=TIME_LIMIT_SECONDS)
        if process.returncode:
            run.failed(f"{script} {target.name}", f"node ended with {process.returncode}")
        for line in process.stdout.splitlines():
            if not line.startswith("outcome "):
                print(line)
                continue
            outcome = json.loads(line.removeprefix("outcome "))
            name = f"{outcome['name']} {target.name}"
            if "error" in outcome:
                run.failed(name, outcome["error"])
            else:
                run.passed(name, outcome["seconds"])
                outcomes.setdefault(outcome["name"], []).append(outcome.get("seen"))
    for name, seen in outcomes.items():
        if any(other != seen[0] for other in seen):
            run.failed(f"{name}, the same everywhere", f"saw {seen}")
