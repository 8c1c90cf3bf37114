"""The format of the `local` driver, which is also that of the copy kept for `logs` beside any other driver.

A file is a row of pages of 256 KB; a page is a row of blocks, and none crosses into the next page. A block holds what
was read from a container at once, as it is: many lines, or one that has no end (yet).

    block   magic "WL", kind, 0, length of the payload (4), lines that end in it (4), time in ns (8); little-endian
    kind    1 stdout, 2 stderr, 3 the start of a file: where it begins in the whole log (8), then attributes as JSON

Zeros instead of a magic end a page early. So a moment is found by bisection over the pages' first blocks, the last
lines by counting blocks, and nothing a container prints can be taken for structure. Times never go back.

A position is a place in the whole log since it was begun, files that were dropped included: it only grows. Whoever
delivers the log elsewhere keeps how far it got, as such a position, in a cursor file; with `cursor`, the writer is not
`ready` while its next rotation would drop what is not delivered, and says so there: 8 bytes position, 1 byte waiting.
"""

import os
import time

from wherry.logs.kept import KeptFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from wherry.logs.rotation import Rotation

PAGE = 256 * 1024
HEADER = 20
START = 3
_MAGIC = b"WL"
# What may come in between two looks at `ready`: a reader's chunk and a rotation's start block.
_SLACK = 512 * 1024


class PagedLog:
    """The writing end of one log. Not thread-safe. `attributes`: JSON, or empty; `cursor`: path of a cursor file."""

    __slots__ = ("_attributes", "_cursor", "_files", "_last_ns", "_starts", "position")

    def __init__(self, path: str, rotation: "Rotation", attributes: str = "", cursor: str = "") -> None:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        self._files = KeptFiles(path, rotation)
        self._attributes = attributes.encode()
        self._last_ns = 0
        self._cursor = os.open(cursor, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) if cursor else -1
        # Where the files that are there begin. Older ones than the newest of an earlier life count as delivered.
        self._starts: list[int] = []
        self.position = self._recover()

    @property
    def lost(self) -> int:
        """Bytes of output that could not be written."""
        return self._files.lost

    def write(self, stream: int, data: bytes) -> None:
        """Append `data`: whole lines, or one line without its end."""
        now = self._last_ns = max(time.time_ns(), self._last_ns)
        files, limit, start = self._files, self._files.rotation.max_size, 0
        while start < len(data):
            if limit and files.size + HEADER + min(len(data) - start, PAGE // 2) > limit and files.size > self._least():
                self._rotate(now)
            room = PAGE - files.size % PAGE - HEADER
            end = len(data)
            if end - start > room:
                end = data.rfind(b"\n", start, start + room) + 1 if room > 0 else 0
            if end <= start:
                if not self._fill_page():
                    break
                continue
            piece = data if end - start == len(data) else data[start:end]
            if not files.append((_header(stream, len(piece), piece.count(b"\n"), now), piece), HEADER + len(piece)):
                break
            self.position += HEADER + len(piece)
            start = end
        files.lost += len(data) - start

    def ready(self) -> bool:
        """Whether more may be written without dropping what is not delivered."""
        rotation = self._files.rotation
        if self._cursor < 0 or self._files.size + _SLACK <= rotation.max_size or len(self._starts) < rotation.max_file:
            return True
        needed = self._starts[1] if len(self._starts) > 1 else self.position
        if self._delivered() >= needed:
            return True
        os.pwrite(self._cursor, b"\1", 8)
        return self._delivered() >= needed  # it may have got there before it could see that we wait

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        self._files.close()
        if self._cursor >= 0:
            os.close(self._cursor)
            self._cursor = -1

    def _delivered(self) -> int:
        return int.from_bytes(os.pread(self._cursor, 8, 0), "little")

    def _least(self) -> int:
        return HEADER + 8 + len(self._attributes)

    def _rotate(self, now: int) -> None:
        self._files.rotate()
        del self._starts[: max(0, len(self._starts) + 1 - self._files.rotation.max_file)]
        self._begin(now)

    def _begin(self, now: int) -> None:
        self._starts.append(self.position)
        payload = self.position.to_bytes(8, "little") + self._attributes
        if self._files.append((_header(START, len(payload), 0, now), payload), HEADER + len(payload)):
            self.position += HEADER + len(payload)

    def _fill_page(self) -> bool:
        size = self._files.size
        missing = PAGE - size % PAGE
        if not self._files.extend(size + missing):
            return False
        self.position += missing
        return True

    def _recover(self) -> int:
        """Drop half a block at the end, which a machine that went down may have left; the position of the end."""
        files = self._files
        if not files.size:
            self.position = 0
            self._begin(time.time_ns())
            return self.position
        first = files.read(HEADER + 8, 0)
        start = int.from_bytes(first[HEADER:], "little") if first[2:3] == bytes([START]) else 0
        self._starts.append(start)
        page = (files.size - 1) // PAGE * PAGE
        end = page
        for block in blocks(files.read(PAGE, page)):
            end = page + block.end
            self._last_ns = block.time_ns
        rest = files.read(PAGE, end)
        if rest.strip(b"\0"):
            files.extend(end)
        return start + files.size


class Block:
    """One block of a page: where its payload is in it, and what that is."""

    __slots__ = ("end", "kind", "lines", "start", "time_ns")

    def __init__(self, kind: int, start: int, end: int, lines: int, time_ns: int) -> None:
        self.kind = kind
        self.start = start
        self.end = end
        self.lines = lines
        self.time_ns = time_ns


def blocks(page: bytes, offset: int = 0) -> "Iterator[Block]":
    """The whole blocks of a page (or of the beginning of one), from the one at `offset`."""
    size = len(page)
    while offset + HEADER <= size and page[offset : offset + 2] == _MAGIC:
        start = offset + HEADER
        end = start + int.from_bytes(page[offset + 4 : offset + 8], "little")
        if end > size:
            return
        lines = int.from_bytes(page[offset + 8 : offset + 12], "little")
        time_ns = int.from_bytes(page[offset + 12 : offset + 20], "little")
        yield Block(page[offset + 2], start, end, lines, time_ns)
        offset = end


def _header(kind: int, length: int, lines: int, time_ns: int) -> bytes:
    head = length.to_bytes(4, "little") + lines.to_bytes(4, "little") + time_ns.to_bytes(8, "little")
    return _MAGIC + bytes((kind, 0)) + head
