"""A coordinator, agents and runtimes as processes of their own, on loopback, in a temporary home."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from checks import wait_for

STOP_SECONDS = 20
# Below the range from which the system takes ports for outgoing connections.
PORTS = range(20_000, 30_000)


class Fleet:
    """Everything one run of checks talks to; leaving the `with` block stops all of it."""

    def __init__(self):
        self.home = Path(tempfile.mkdtemp(prefix="coordinator-clients-"))
        self.bin_dir = Path(os.environ["BIN_DIR"])
        self.runtimes = {}
        self._agents = []
        self._processes = []
        self._environment = {"HOME": str(self.home), "PATH": os.environ["PATH"]}
        for name in list(os.environ):
            if name.lower().endswith("_proxy") or name.startswith(("OLLAMA_", "OPENAI_")):
                del os.environ[name]
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._start("coordinator", self.bin_dir / "ollama-coordinator", "--host", "127.0.0.1",
                    "--port", port, "--data-dir", self.home / "data", "--no-local-agent")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.stop()
        finally:
            shutil.rmtree(self.home, ignore_errors=True)

    def add_simulated_machine(self, name, *arguments, advertise=None):
        """Starts a simulated runtime and the agent that fronts it, by tunnel unless it advertises."""
        self.add_simulated_runtime(name, *arguments)
        self._add_agent(name, *(["--advertise", advertise] if advertise else []))

    def add_simulated_runtime(self, name, *arguments):
        """Starts a simulated runtime that no agent fronts."""
        self._add_runtime(name, self.bin_dir / "ollama-simulator", "runtime", *arguments)

    def add_engine(self, name, script, *arguments):
        """Starts a runtime that is a Python script, and the agent that fronts it."""
        self._add_runtime(name, sys.executable, script, *arguments)
        self._add_agent(name)

    def wait_until_routable(self):
        """Returns once the coordinator sends requests to every agent that was started."""
        wait_for("every agent to be routable", lambda: all(
            any(agent["machine_name"] == name and agent["routable"] for agent in self.agents())
            for name in self._agents))

    def agents(self):
        """Returns the coordinator's list; empty while it does not answer yet."""
        self._expect_all_running()
        try:
            with urllib.request.urlopen(f"{self.url}/api/agents", timeout=5) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            return []

    def agent(self, name):
        """Returns the only agent of this name."""
        [agent] = [agent for agent in self.agents() if agent["machine_name"] == name]
        return agent

    def stop(self):
        """Asks every process to stop, agents first; returns the exit codes by name."""
        codes = {}
        while self._processes:
            name, process = self._processes.pop()
            process.terminate()
            try:
                codes[name] = process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                codes[name] = process.wait()
        return codes

    def show_logs(self):
        """Prints the end of what each process said."""
        for log in sorted(self.home.glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-20:]
            print(f"--- {log.name}", *lines, sep="\n", file=sys.stderr)

    def _add_runtime(self, name, program, *arguments):
        process = self._start(f"{name}-runtime", program, *arguments)
        self.runtimes[name] = self._announced_url(process)

    def _add_agent(self, name, *arguments):
        self._agents.append(name)
        self._start(f"{name}-agent", self.bin_dir / "ollama-agent", "--coordinator", self.url,
                    "--runtime", self.runtimes[name], "--machine-name", name,
                    "--state-dir", self.home / f"{name}-agent", "--register-retry-interval", "500ms",
                    "--panel", "off", "--no-tray",
                    *arguments)

    def _start(self, name, program, *arguments):
        log = (self.home / f"{name}.log").open("w")
        process = subprocess.Popen([str(program), *map(str, arguments)], env=self._environment,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                                   text=True)
        log.close()
        self._processes.append((name, process))
        return process

    def _announced_url(self, process):
        """Reads the `{"url": ...}` with which a runtime says that it serves."""
        text = ""
        for line in process.stdout:
            text += line
            if line.rstrip().endswith("}"):
                return json.loads(text)["url"]
        self.show_logs()
        raise AssertionError(f"a runtime ended before it served, saying {text!r}")

    def _expect_all_running(self):
        for name, process in self._processes:
            if process.poll() is not None:
                self.show_logs()
                raise AssertionError(f"{name} ended with exit code {process.returncode}")


def _free_port():
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
