"""What one run of the checks talks to: a URL, and the runtimes behind it that tell what they saw."""

import json
import urllib.request

from checks import expect, wait_for

QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]
# A picture of one white dot.
PICTURE = ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJg"
           "gg==")
TOOL_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"type": "function", "function": {
    "name": "weather", "description": "Tells the weather of a city.", "parameters": TOOL_SCHEMA}}
LIMIT = 20


class Target:
    """A URL under which every model is served, by one runtime or by many."""

    def __init__(self, name, url, runtimes, headers=None, agents=lambda: []):
        self.name = name
        self.url = url
        # What a change of one machine needs, such as which machine.
        self.headers = headers or {}
        self._runtimes = list(runtimes)
        self._agents = agents

    def as_json(self):
        """Returns what checks in other languages need to know."""
        return json.dumps({"url": self.url, "runtimes": self._runtimes, "headers": self.headers})

    def in_flight(self):
        """Returns how many requests anybody behind the URL still holds."""
        return (sum(record["in_flight"] for record in self._records())
                + sum(agent["in_flight"] for agent in self._agents()))

    def cancelled(self):
        """Returns how many clients the runtimes saw leave early."""
        return sum(record["cancelled"] for record in self._records())

    def expect_idle(self):
        """Fails if some request never ends."""
        wait_for("no request in flight", lambda: self.in_flight() == 0)

    def expect_abort_of(self, begin):
        """Begins a stream, leaves it by what `begin` returns, and expects the runtime to see that."""
        self.expect_idle()
        before = self.cancelled()
        leave = begin()
        expect(self.in_flight() > 0, "nothing was in flight")
        expect(self.cancelled() == before, "the client left too early")
        leave()
        wait_for("the runtime to see that its client has left",
                 lambda: self.cancelled() == before + 1)
        self.expect_idle()

    def _records(self):
        for url in self._runtimes:
            with urllib.request.urlopen(f"{url}/simulated/record", timeout=10) as answer:
                yield json.load(answer)
