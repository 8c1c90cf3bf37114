"""epoll with a handler for each descriptor, and timers."""

from __future__ import annotations

import select
import time
from _heapq import heappop, heappush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Handler = Callable[[int], None]

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT


class Timer:
    """One call to come; `cancel` and it does not."""

    __slots__ = ("_at", "call")

    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self._at = at
        self.call: Callable[[], None] | None = call

    def __lt__(self, other: Timer) -> bool:
        return self._at < other._at

    def cancel(self) -> None:
        """Call nothing."""
        self.call = None

    def left(self) -> float:
        """Seconds until it is due; never less than none."""
        return max(0.0, self._at - time.monotonic())


class Poller:
    """Calls a descriptor's handler with the events found, level-triggered. `len`: how many are watched."""

    def __init__(self) -> None:
        self._timers: list[Timer] = []
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._removed: set[int] = set()

    def __len__(self) -> int:
        return len(self._handlers)

    def add(self, fd: int, events: int, handler: Handler) -> None:
        """Watch `fd` for `events` (0: only for its end)."""
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def change(self, fd: int, events: int) -> None:
        """Watch for other events; the handler stays."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Watch it no longer, and be it unwatched already. Before it is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)
            self._removed.add(fd)

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call it once, between two rounds, when that time has passed."""
        timer = Timer(time.monotonic() + seconds, call)
        heappush(self._timers, timer)
        return timer

    def _run_timers(self) -> float | None:
        """Call what is due; how long to wait for something else, None: for ever. Not at all when anything was called:
        whoever loops until that has happened must get to look."""
        timers, called = self._timers, False
        while timers:
            if timers[0].call is not None and (left := timers[0].left()) > 0:
                return 0.0 if called else left
            call = heappop(timers).call
            if call is not None:
                call()
                called = True
        return 0.0 if called else None

    def run_once(self) -> None:
        """Wait until there is something, and handle it."""
        left = self._run_timers()
        self._removed.clear()
        for fd, events in self._epoll.poll(left):
            # A number removed in this round may be another file's by now. What that one has to say comes in the next.
            if fd not in self._removed:
                self._handlers[fd](events)
