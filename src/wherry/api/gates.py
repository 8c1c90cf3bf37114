"""What stands between a request and its handler: each gate may refuse it, change it, or look at the answer.

A gate is asked once the path has been resolved, so it decides about the very route that would be run and never
about the text of a path: there is no spelling of a path that a gate reads otherwise than the router does.
"""

from collections.abc import Awaitable, Callable

from wherry.api.call import Call
from wherry.api.reply import Answer
from wherry.api.router import Handler, Route

Gate = Callable[[Call, Route, Handler], Awaitable[Answer]]
"""`(call, route, next)`: refuses by raising, or returns what `await next(call)` gave. A route without pattern: none."""


async def pass_gates(gates: tuple[Gate, ...], call: Call, route: Route) -> Answer:
    """The answer of the route's handler behind the gates, the first one outermost."""

    def behind(index: int) -> Handler:
        if index == len(gates):
            return route.handler

        async def handler(call: Call) -> Answer:
            return await gates[index](call, route, behind(index + 1))

        return handler

    return await behind(0)(call)
