"""Which handler answers a path.

Docker's paths have one of two forms, so two dictionary look-ups replace a list of patterns:
`/fixed/path` and `/first/{name}/rest`. A name that may hold slashes (images, plugins) is written `{name:.*}`.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from wherry.api.call import Call
from wherry.api.reply import Answer

Handler = Callable[[Call], Awaitable[Answer]]


class Route(NamedTuple):
    """A method, a pattern and what answers it."""

    method: str
    pattern: str
    handler: Handler


class Router:
    """Handlers by method and path, without version prefix."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._fixed: dict[tuple[str, str], Handler] = {}
        self._named: dict[tuple[str, str, str], Handler] = {}
        self._greedy: set[str] = set()
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        parts = route.pattern.split("/")
        if not any(part.startswith("{") for part in parts):
            key: tuple[str, str] = (route.method, route.pattern)
            if key in self._fixed:
                raise ValueError(f"two handlers for {key}")
            self._fixed[key] = route.handler
            return
        name = (route.method, parts[1], "/".join(parts[3:]))
        if name in self._named or not parts[2].startswith("{"):
            raise ValueError(f"cannot add {route.method} {route.pattern}")
        if parts[2].endswith(":.*}"):
            self._greedy.add(parts[1])
        self._named[name] = route.handler

    def find(self, method: str, path: str) -> tuple[Handler, str] | None:
        """The handler, and the name in the path ("" when it has none)."""
        handler = self._fixed.get((method, path))
        if handler is not None:
            return handler, ""
        parts = path.split("/")
        if len(parts) < 3 or parts[0] or not parts[2]:
            return None
        first = parts[1]
        if first in self._greedy:
            return self._find_greedy(method, first, parts)
        handler = self._named.get((method, first, "/".join(parts[3:])))
        return (handler, parts[2]) if handler is not None else None

    def _find_greedy(self, method: str, first: str, parts: list[str]) -> tuple[Handler, str] | None:
        if len(parts) > 3:
            handler = self._named.get((method, first, parts[-1]))
            if handler is not None:
                return handler, "/".join(parts[2:-1])
        handler = self._named.get((method, first, ""))
        return (handler, "/".join(parts[2:])) if handler is not None else None
