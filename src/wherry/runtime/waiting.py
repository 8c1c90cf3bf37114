"""What work waits for, as generators: they yield it, and are resumed when it has come.

An int is a descriptor to become readable, a float seconds to pass, a `Wait` whatever of several comes first.
"""

from __future__ import annotations

import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import NamedTuple, TypeVar

    T = TypeVar("T")
else:
    from wherry.kernel.tuples import NamedTuple


class Wait(NamedTuple):
    """Until one of these descriptors is readable, or so many seconds have passed."""

    fds: tuple[int, ...]
    seconds: float


if TYPE_CHECKING:
    Awaited = int | float | Wait
    Waiting = Generator[Awaited, None, T]


def drive(waiting: Waiting[T]) -> T:
    """Run a generator to its end, waiting for what it waits for."""
    try:
        while True:
            _await(next(waiting))
    except StopIteration as stop:
        value: T = stop.value
        return value


def _await(awaited: Awaited) -> None:
    if isinstance(awaited, float):
        time.sleep(awaited)
        return
    fds, timeout = (awaited.fds, awaited.seconds * 1000) if isinstance(awaited, Wait) else ((awaited,), None)
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    poll.poll(timeout)
