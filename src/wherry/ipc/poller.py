"""epoll with a handler for each descriptor."""

from __future__ import annotations

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Handler = Callable[[int], None]

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT


class Poller:
    """Calls a descriptor's handler with the events found, level-triggered. `len`: how many are watched."""

    def __init__(self) -> None:
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

    def run_once(self) -> None:
        """Wait until there is something, and handle it."""
        self._removed.clear()
        for fd, events in self._epoll.poll():
            # A number removed in this round may be another file's by now. What that one has to say comes in the next.
            if fd not in self._removed:
                self._handlers[fd](events)
