"""How long what clients ask for takes: the histograms of the metrics endpoint."""

import time

from wherry.api.call import Call
from wherry.api.reply import Answer
from wherry.api.router import Handler, Route

ACTIONS = {
    ("GET", "/containers/{id}/changes"): "changes",
    ("POST", "/commit"): "commit",
    ("POST", "/containers/create"): "create",
    ("DELETE", "/containers/{id}"): "delete",
    ("POST", "/containers/{id}/start"): "start",
}
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of the buckets, in seconds, as dockerd's."""


class Histogram:
    """Durations in seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        index = 0
        while index < len(BOUNDS) and seconds > BOUNDS[index]:
            index += 1
        self.counts[index] += 1
        self.total += seconds


class Timing:
    """A gate (`wherry.api.gates`) that lets everything pass and notes how long the actions took that succeeded."""

    def __init__(self) -> None:
        self.actions = {name: Histogram() for name in sorted(ACTIONS.values())}

    async def __call__(self, call: Call, route: Route, next: Handler) -> Answer:
        """See `wherry.api.gates.Gate`."""
        action = ACTIONS.get((route.method, route.pattern))
        if action is None:
            return await next(call)
        started = time.perf_counter()
        answer = await next(call)
        self.actions[action].add(time.perf_counter() - started)
        return answer
