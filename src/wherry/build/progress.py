"""What happens in a build, as it happens: plain events that every front writes in its own way."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change of one step. `vertex` is its number in this build, `title` its words.

    kind: "start"; "cached"; "done"; "error" (`text` says why); "output" (`data`, `stream` 1 or 2); "status" (`name`,
    `current` and `total` bytes: of a transfer); "warning" (`text`); "reason" (`text`: why it was not cached).
    """

    kind: str
    vertex: int = 0
    title: str = ""
    text: str = ""
    data: bytes = b""
    stream: int = 1
    name: str = ""
    current: int = 0
    total: int = 0
    time_ns: int = 0
    inputs: tuple[int, ...] = field(default=())


OnEvent = Callable[[Event], None]
"""Called on the loop's thread, in order; must not block."""


class BuildOutput:
    """The output of one step, bounded: what goes past the limit is dropped, and that is said once."""

    def __init__(self, emit: Callable[[bytes, int], None], limit: int = 2 << 20) -> None:
        self._emit, self._left = emit, limit
        self.tail = bytearray()

    def write(self, data: bytes, stream: int) -> None:
        self.tail += data
        del self.tail[: max(0, len(self.tail) - 8192)]
        if self._left <= 0:
            return
        self._left -= len(data)
        if self._left <= 0:
            data = data[: self._left + len(data)] + b"\n[output clipped, the limit of 2 MiB is reached]\n"
        self._emit(data, stream)
