"""Which handler answers a path.

Docker's paths have one of two forms, so two dictionary look-ups replace a list of patterns:
`/fixed/path` and `/first/{name}/rest`. A name that may hold slashes (images, plugins) is written `{name:.*}`.
Our own paths are `/wherry/first/...`; the two words count as one.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator
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
        self._fixed: dict[tuple[str, str], Route] = {}
        self._named: dict[tuple[str, str, str], Route] = {}
        self._greedy: set[str] = set()
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        parts = _split(route.pattern)
        if not any(part.startswith("{") for part in parts):
            key: tuple[str, str] = (route.method, route.pattern)
            if key in self._fixed:
                raise ValueError(f"two handlers for {key}")
            self._fixed[key] = route
            return
        name = (route.method, parts[1], "/".join(parts[3:]))
        if name in self._named or not parts[2].startswith("{"):
            raise ValueError(f"cannot add {route.method} {route.pattern}")
        if parts[2].endswith(":.*}"):
            self._greedy.add(parts[1])
        self._named[name] = route

    def routes(self) -> Iterator[Route]:
        """All of them."""
        yield from self._fixed.values()
        yield from self._named.values()

    def find(self, method: str, path: str) -> tuple[Route, str] | None:
        """The route, and the name in the path ("" when it has none)."""
        route = self._fixed.get((method, path))
        if route is not None:
            return route, ""
        parts = _split(path)
        if len(parts) < 3 or parts[0] or not parts[2]:
            return None
        first = parts[1]
        if first in self._greedy:
            return self._find_greedy(method, first, parts)
        route = self._named.get((method, first, "/".join(parts[3:])))
        return (route, parts[2]) if route is not None else None

    def _find_greedy(self, method: str, first: str, parts: list[str]) -> tuple[Route, str] | None:
        if len(parts) > 3:
            route = self._named.get((method, first, parts[-1]))
            if route is not None:
                return route, "/".join(parts[2:-1])
        route = self._named.get((method, first, ""))
        return (route, "/".join(parts[2:])) if route is not None else None


def _split(path: str) -> list[str]:
    parts = path.split("/")
    return ["", f"wherry/{parts[2]}", *parts[3:]] if len(parts) > 2 and parts[1] == "wherry" else parts
