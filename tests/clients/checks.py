"""Runs checks one after another: a line for each, a count at the end."""

import signal
import sys
import time
import traceback

TIME_LIMIT_SECONDS = 60


class Run:
    """Counts what passed, failed and was skipped."""

    def __init__(self):
        self._passed = self._failed = self._skipped = 0

    def check(self, check, subject, where=""):
        """Calls a check with its subject; returns whether it passed, and what it returned."""
        name = f"{check.__name__.replace('_', ' ')} {where}".rstrip()
        began = time.monotonic()
        signal.signal(signal.SIGALRM, _out_of_time)
        signal.alarm(TIME_LIMIT_SECONDS)
        try:
            seen = check(subject)
        except Exception:
            self.failed(name, traceback.format_exc())
            return False, None
        finally:
            signal.alarm(0)
        self.passed(name, time.monotonic() - began)
        return True, seen

    def passed(self, name, seconds):
        self._passed += 1
        print(f"ok      {name} ({seconds:.1f} s)", flush=True)

    def failed(self, name, why):
        self._failed += 1
        print(f"FAILED  {name}\n{why}", flush=True)

    def skipped(self, name, why):
        self._skipped += 1
        print(f"SKIPPED {name}: {why}", flush=True)

    def finish(self, fleet):
        """Prints the count; returns the exit code."""
        if self._failed:
            fleet.show_logs()
        print(f"{self._passed} passed, {self._failed} failed, {self._skipped} skipped", flush=True)
        return 1 if self._failed else 0


def expect(condition, *seen):
    """Fails with what was seen instead."""
    if not condition:
        raise AssertionError("saw " + ", ".join(repr(item) for item in seen))


def wait_for(what, look, seconds=20.0):
    """Returns what `look` returns once that is true; names the last thing it saw otherwise."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for {what}; last saw {seen!r}")
        time.sleep(0.05)


def _out_of_time(_signal, _frame):
    raise TimeoutError(f"not done after {TIME_LIMIT_SECONDS} s")


def exit_on_sigterm():
    """Turns SIGTERM into an exception, so that the processes of a fleet are stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
