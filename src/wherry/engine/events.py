"""What happened: docker's events, kept for a while and given to those who subscribe."""

import asyncio
import contextlib
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from wherry.errors import InvalidArgument

_KEPT = 256
# A subscriber that does not read is cut off rather than let grow without bound.
_QUEUE_MAX = 65536
_FILTERS_TEXT = """
config container daemon event image label network node plugin scope secret service type volume
"""
_FILTERS = frozenset(_FILTERS_TEXT.split())


class Events:
    """A bounded history and the live stream. Docker keeps 256 too."""

    def __init__(self) -> None:
        self._history: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._queues: set[asyncio.Queue[dict[str, Any] | None]] = set()
        self._last_ns = 0
        self.emitted = 0
        """How many there have been."""

    @property
    def listeners(self) -> int:
        """How many subscribe now."""
        return len(self._queues)

    def teller(self, type: str) -> Callable[[str, str, Mapping[str, str]], None]:
        """`emit` for objects of a kind that change in threads."""
        loop = asyncio.get_running_loop()

        def tell(action: str, id: str, attributes: Mapping[str, str]) -> None:
            # The loop is closed when the daemon ended meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self.emit, type, action, id, attributes)

        return tell

    def emit(self, type: str, action: str, id: str, attributes: Mapping[str, str]) -> None:
        """Publish one: `type` "container", "image", "network", "volume"...; called on the loop's thread."""
        # Strictly rising, so that a client that resumes from a time misses nothing and sees nothing twice.
        now = self._last_ns = max(time.time_ns(), self._last_ns + 1)
        self.emitted += 1
        event: dict[str, Any] = {}
        if type in ("container", "image"):
            event |= {"status": action, "id": id}
            if type == "container" and "image" in attributes:
                event["from"] = attributes["image"]
        event |= {
            "Type": type,
            "Action": action,
            "Actor": {"ID": id, "Attributes": dict(attributes)},
            "scope": "local",
            "time": now // 1_000_000_000,
            "timeNano": now,
        }
        self._history.append(event)
        for queue in list(self._queues):
            if queue.qsize() < _QUEUE_MAX:
                queue.put_nowait(event)
            else:
                self._queues.discard(queue)
                queue.put_nowait(None)

    def subscribe(
        self,
        since: float | None = None,
        until: float | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Docker's event documents; times are Unix seconds. Registered at the call; ends when `until` is past."""
        wanted = _Wanted(filters or {})
        if since is not None and until is not None and since > until:
            raise InvalidArgument("`since` time cannot be after `until` time")
        past = [] if since is None else [event for event in self._history if event["timeNano"] >= since * 1e9]
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._queues.add(queue)
        return self._follow(queue, past, until, wanted)

    async def _follow(
        self,
        queue: "asyncio.Queue[dict[str, Any] | None]",
        past: list[dict[str, Any]],
        until: float | None,
        wanted: "_Wanted",
    ) -> AsyncIterator[dict[str, Any]]:
        try:
            for event in past:
                if (until is None or event["timeNano"] <= until * 1e9) and wanted(event):
                    yield event
            while True:
                remaining = None if until is None else until - time.time()
                if remaining is not None and remaining <= 0 and queue.empty():
                    return
                try:
                    async with asyncio.timeout(remaining):
                        found = await queue.get()
                except TimeoutError:
                    return
                if found is None:
                    return
                if wanted(found):
                    yield found
        finally:
            self._queues.discard(queue)


class _Wanted:
    """Docker's event filters: names are alternatives within one key, keys must all hold."""

    def __init__(self, filters: Mapping[str, Sequence[str]]) -> None:
        for name in filters:
            if name not in _FILTERS:
                raise InvalidArgument(f"invalid filter '{name}'", object=name)
        self._filters = {name: values for name, values in filters.items() if values}

    def __call__(self, event: Mapping[str, Any]) -> bool:
        return all(self._fits(event, name, values) for name, values in self._filters.items())

    def _fits(self, event: Mapping[str, Any], name: str, values: Sequence[str]) -> bool:
        attributes = event["Actor"]["Attributes"]
        if name == "event":
            # "exec_create" accepts "exec_create: sh".
            return any(event["Action"] == value or event["Action"].startswith(value + ":") for value in values)
        if name == "type":
            return event["Type"] in values
        if name == "scope":
            return event["scope"] in values
        if name == "label":
            return all(_has_label(attributes, value) for value in values)
        if name == "image" and event["Type"] == "container":
            return _names_image(attributes.get("image", ""), values)
        if event["Type"] != name:
            # A container's events on a network or volume name it in their attributes.
            return bool(attributes.get(name)) and _names(attributes[name], "", values)
        if name == "image":
            return _names_image(event["Actor"]["ID"], values) or _names_image(attributes.get("name", ""), values)
        return _names(event["Actor"]["ID"], attributes.get("name", ""), values)


def _names(id: str, name: str, values: Sequence[str]) -> bool:
    return any(id.startswith(value) or name == value.removeprefix("/") for value in values if value)


def _names_image(image: str, values: Sequence[str]) -> bool:
    bare = re.sub(r"(:[^/:]*)?(@.*)?$", "", image)
    return any(value in (image, bare) for value in values)


def _has_label(attributes: Mapping[str, str], wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in attributes and (not equals or attributes[name] == value)
