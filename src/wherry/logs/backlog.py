"""What of a paged log is not delivered yet: read from a position on, over rotations and compression, as messages."""

import os
from dataclasses import dataclass
from pathlib import Path

from wherry.logs.pages import HEADER, PAGE, START, blocks
from wherry.logs.source import Source, open_files

_NAMES = {1: "stdout", 2: "stderr"}


@dataclass(frozen=True, slots=True)
class Partial:
    """Of a line that was too long: which one it is, which piece of it this is (from 1), whether it is the last."""

    id: str
    ordinal: int
    last: bool


@dataclass(frozen=True, slots=True)
class Message:
    """One line without its newline, or a piece of one."""

    stream: str
    time_ns: int
    line: bytes
    partial: Partial | None = None


class Backlog:
    """Reads on from `position`. `lost`: bytes that were dropped before they could be read."""

    def __init__(self, path: Path, position: int) -> None:
        self.position = position
        self.lost = 0
        self._path = path
        self._files: list[tuple[int, Source]] = []
        self._partials: dict[str, tuple[str, int]] = {}

    def read(self) -> list[Message]:
        """The next messages, those of one page at most, and `position` moves behind them; empty when there are none."""
        while True:
            file = self._file()
            if file is None:
                return []
            start, source = file
            offset = self.position - start
            page_end = offset - offset % PAGE + PAGE
            size = source.size()
            data = source.read(page_end - offset, offset)
            messages, used = [], 0
            for block in blocks(data):
                used = block.end
                if block.kind in _NAMES:
                    messages += self._messages(_NAMES[block.kind], block.time_ns, data[block.start : block.end])
            self.position = start + (page_end if size >= page_end else offset + used)
            if messages:
                return messages
            if size < page_end and not self._newer(start + size):
                return []

    def end(self) -> int:
        """The position behind the last that is written now."""
        self._refresh()
        start, source = self._files[-1] if self._files else (self.position, None)
        return start + source.size() if source is not None else start

    def close(self) -> None:
        """Close every file."""
        for _, source in self._files:
            source.close()
        self._files = []

    def _messages(self, stream: str, time_ns: int, data: bytes) -> list[Message]:
        lines = data.split(b"\n")
        last = lines.pop()
        if stream not in self._partials and not last:
            return [Message(stream, time_ns, line) for line in lines]
        made = [self._message(stream, time_ns, line, ends=True) for line in lines]
        if last:
            made.append(self._message(stream, time_ns, last, ends=False))
        return made

    def _message(self, stream: str, time_ns: int, line: bytes, *, ends: bool) -> Message:
        identity, ordinal = self._partials.pop(stream, ("", 0))
        if ends and not identity:
            return Message(stream, time_ns, line)
        identity = identity or os.urandom(32).hex()
        if not ends:
            self._partials[stream] = (identity, ordinal + 1)
        return Message(stream, time_ns, line, Partial(identity, ordinal + 1, ends))

    def _file(self) -> tuple[int, Source] | None:
        for index, (start, source) in enumerate(self._files):
            following = self._files[index + 1][0] if index + 1 < len(self._files) else self.position + 1
            if start <= self.position < min(following, start + source.size()):
                return start, source
        self._refresh()
        for start, source in self._files:
            if self.position < start + source.size():
                if self.position < start:
                    self.lost += start - self.position
                    self.position = start
                    self._partials.clear()
                return start, source
        return None

    def _newer(self, position: int) -> bool:
        self._refresh()
        newer = [start for start, _ in self._files if start >= position]
        if newer and self.position < newer[0]:
            self.position = newer[0]
        return bool(newer)

    def _refresh(self) -> None:
        """Open what is new, close what has been read."""
        try:
            if self._files and os.stat(self._path).st_ino == self._files[-1][1].inode:
                return
        except FileNotFoundError:
            return  # between two names, or the container has been removed: what is open can still be read
        known = {start for start, _ in self._files}
        for source in open_files(self._path):
            start = _start(source)
            if start is None or start in known:
                source.close()
            else:
                known.add(start)
                self._files.append((start, source))
        self._files.sort(key=lambda file: file[0])
        while len(self._files) > 1 and self._files[1][0] <= self.position:
            self._files.pop(0)[1].close()


def _start(source: Source) -> int | None:
    head = source.read(HEADER + 8, 0)
    if len(head) < HEADER + 8 or head[:2] != b"WL" or head[2] != START:
        return None
    return int.from_bytes(head[HEADER:], "little")
