"""Runs checks one after another: a line for each, a count at the end."""

import signal
import sys
import time
import traceback

TIME_LIMIT_SECONDS = 60


def run_checks(fleet, checks):
    """Calls each check with the fleet; exits with 1 if one of them raised."""
    signal.signal(signal.SIGALRM, _out_of_time)
    passed = failed = 0
    for check in checks:
        name = check.__name__.replace("_", " ")
        began = time.monotonic()
        signal.alarm(TIME_LIMIT_SECONDS)
        try:
            check(fleet)
        except Exception:
            failed += 1
            print(f"FAILED  {name}", flush=True)
            traceback.print_exc()
        else:
            passed += 1
            print(f"ok      {name} ({time.monotonic() - began:.1f} s)", flush=True)
        finally:
            signal.alarm(0)
    if failed:
        fleet.show_logs()
    print(f"{passed} passed, {failed} failed, 0 skipped", flush=True)
    return 1 if failed else 0


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
