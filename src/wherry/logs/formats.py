"""How records are found in one file of a log: by its time, or counted from its end, and what is there from a place
on."""

import calendar
import time
from typing import NamedTuple, Protocol

from wherry.logs.pages import PAGE, START, blocks
from wherry.logs.source import Source
from wherry.spec.fastjson import loads

_BLOCK = 256 * 1024
_NAMES = {1: "stdout", 2: "stderr"}


class LogRecord(NamedTuple):
    """One line (or piece of a line too long) of a container's output: `line` holds its newline."""

    stream: str
    time_ns: int
    line: bytes
    attributes: dict[str, str] | None = None


class Format(Protocol):
    """Reading one kind of file. Offsets are places at which a record, or a block of them, begins."""

    def since(self, source: Source, moment: int) -> int:
        """Where the first record whose time is at least `moment` is (or a little before); the size when there is
        none."""

    def tail(self, source: Source, until: int, count: int) -> tuple[int, int, int]:
        """(offset, records to skip there, how many follow): the last `count` records not after `until` (0: no
        bound)."""

    def read(self, source: Source, offset: int) -> tuple[list[LogRecord], int]:
        """The next records from `offset`, and where the ones after them begin; the same offset when there are none
        yet."""


class JSONLines:
    """json-file: a record is a line."""

    def since(self, source: Source, moment: int) -> int:
        low, high = 0, source.size()
        while low < high:
            middle = (low + high) // 2
            start = _line_start(source, middle, low)
            line = _line_at(source, start)
            if not line.endswith(b"\n"):
                high = start
                continue
            records = parse_lines(line)
            if not records or records[0].time_ns < moment:
                low = start + len(line)
            else:
                high = start
        return low

    def tail(self, source: Source, until: int, count: int) -> tuple[int, int, int]:
        end = self.since(source, until + 1) if until else source.size()
        found, position = 0, end
        if count <= 0:
            return end, 0, 0
        while position > 0:
            start = max(0, position - _BLOCK)
            block = source.read(position - start, start)
            cut = len(block)
            while (cut := block.rfind(b"\n", 0, cut)) >= 0:
                if start + cut + 1 == end:
                    continue  # the end of the last line is no start of another
                found += 1
                if found == count:
                    return start + cut + 1, 0, found
            position = start
        return 0, 0, found + (1 if end else 0)

    def read(self, source: Source, offset: int) -> tuple[list[LogRecord], int]:
        data = source.read(_BLOCK, offset)
        while data and b"\n" not in data:
            more = source.read(_BLOCK, offset + len(data))
            if not more:
                return [], offset
            data += more
        end = data.rfind(b"\n") + 1
        return parse_lines(data[:end]), offset + end


class Pages:
    """local, and the copies: pages of blocks (wherry.logs.pages)."""

    def __init__(self) -> None:
        self._attributes: dict[int, dict[str, str] | None] = {}

    def since(self, source: Source, moment: int) -> int:
        size = source.size()
        low, high = 0, (size + PAGE - 1) // PAGE
        while low < high:  # the first page that begins at or after the moment
            middle = (low + high) // 2
            first = next(blocks(source.read(PAGE, middle * PAGE)), None)
            if first is not None and first.time_ns < moment:
                low = middle + 1
            else:
                high = middle
        page = max(0, low - 1) * PAGE
        for block in blocks(source.read(PAGE, page)):
            if block.time_ns >= moment:
                return page + block.start - 20
        return min(low * PAGE, size)

    def tail(self, source: Source, until: int, count: int) -> tuple[int, int, int]:
        offset = source.size()
        found, page = 0, (offset + PAGE - 1) // PAGE * PAGE
        while page > 0 and found < count:
            page -= PAGE
            data = source.read(PAGE, page)
            for block in reversed(list(blocks(data))):
                if block.kind not in _NAMES or (until and block.time_ns > until):
                    continue
                found += block.lines + (data[block.end - 1] != 10)
                offset = page + block.start - 20
                if found >= count:
                    return offset, found - count, count
        return (0, 0, found) if found < count else (offset, 0, found)

    def read(self, source: Source, offset: int) -> tuple[list[LogRecord], int]:
        attributes = self._attributes_of(source)
        records: list[LogRecord] = []
        while not records:
            page_end = offset - offset % PAGE + PAGE
            size = source.size()
            data = source.read(page_end - offset, offset)
            used = 0
            for block in blocks(data):
                used = block.end
                stream = _NAMES.get(block.kind)
                if stream is None:
                    continue
                lines = data[block.start : block.end].split(b"\n")
                last = lines.pop()
                records += [LogRecord(stream, block.time_ns, line + b"\n", attributes) for line in lines]
                if last:
                    records.append(LogRecord(stream, block.time_ns, last, attributes))
            # What does not fit into a page's end is left empty, and a half-written block grows.
            offset = page_end if size >= page_end else offset + used
            if size < page_end:
                break
        return records, offset

    def _attributes_of(self, source: Source) -> dict[str, str] | None:
        if source.inode not in self._attributes:
            head = source.read(64 * 1024, 0)
            first = next(blocks(head), None)
            text = head[first.start + 8 : first.end] if first is not None and first.kind == START else b""
            if first is None:
                return None  # not written yet
            self._attributes[source.inode] = loads(text) if text else None
        return self._attributes[source.inode]


def parse_lines(data: bytes) -> list[LogRecord]:
    """Whole json-file lines. What is no record (damage by a crash of the machine) must not hide the others."""
    records = []
    stamp, time_ns = b"", 0
    for line in data.split(b"\n"):
        # Most lines need no JSON parser: nothing in them is escaped but the newline at the end.
        head, _, tail = line.rpartition(b'","stream":"std')
        text = head[8:-2]
        if head[-2:] == b"\\n" and tail[3:12] == b'","time":"' and b"\\" not in text and head[:8] == b'{"log":"':
            if tail[12:-2] != stamp:
                stamp = tail[12:-2]
                time_ns = nanoseconds(stamp.decode())
            records.append(LogRecord("std" + tail[:3].decode(), time_ns, text + b"\n"))
        elif line:
            try:
                found = loads(line)
                text = found["log"].encode("utf-8", "surrogatepass")
                records.append(LogRecord(found["stream"], nanoseconds(found["time"]), text, found.get("attrs")))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
    return records


def _line_start(source: Source, offset: int, floor: int) -> int:
    position = offset
    while position > floor:
        start = max(floor, position - 4096)
        cut = source.read(position - start, start).rfind(b"\n")
        if cut >= 0:
            return start + cut + 1
        position = start
    return floor


def _line_at(source: Source, offset: int) -> bytes:
    line = b""
    while block := source.read(4096, offset + len(line)):
        cut = block.find(b"\n")
        if cut >= 0:
            return line + block[: cut + 1]
        line += block
    return line


_seconds_cache: tuple[str, int] = ("", 0)


def nanoseconds(text: str) -> int:
    """Of an RFC 3339 time in UTC, as the writer writes it."""
    global _seconds_cache
    head = text[:19]
    if _seconds_cache[0] != head:
        _seconds_cache = (head, calendar.timegm(time.strptime(head, "%Y-%m-%dT%H:%M:%S")))
    return _seconds_cache[1] * 1_000_000_000 + int(text[20:-1].ljust(9, "0") or 0)
