"""Reading json-file logs, rotated ones included, without reading what is not asked for.

Times in a file never go back, so `since` is found by bisection; `tail` is found by reading blocks from the end.
Following waits on inotify(7), not on a clock.
"""

import asyncio
import calendar
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from wherry.logs.notify import Watch
from wherry.spec.fastjson import loads

_BLOCK = 256 * 1024
_BATCH = 1024
# A log may be still when its container ends: whether it has is looked at this often while nothing is written.
_STILL_SECONDS = 0.1


class LogRecord(NamedTuple):
    """One line (or piece of a line too long) of a container's output: `line` holds its newline."""

    stream: str
    time_ns: int
    line: bytes


async def read_log(
    path: Path,
    *,
    since: int = 0,
    until: int = 0,
    tail: int | None = None,
    follow: bool = False,
    still_running: Callable[[], bool] = lambda: False,
) -> AsyncIterator[LogRecord]:
    """Records of the log at `path` with since <= time <= until (ns since the epoch; 0: no bound), the last `tail`.

    With `follow`, goes on with what is written until `still_running()` is false and all has been read.
    A log that does not exist has no records.
    """
    watch = Watch(path) if follow else None
    try:
        reader = _Reader(path)
        try:
            await asyncio.to_thread(reader.position, since, tail, until)
            async for record in _records(reader, since, until, watch, still_running):
                yield record
        finally:
            reader.close()
    finally:
        if watch is not None:
            watch.close()


async def _records(
    reader: "_Reader", since: int, until: int, watch: Watch | None, still_running: Callable[[], bool]
) -> AsyncIterator[LogRecord]:
    while True:
        running = still_running()  # asked before reading: what comes after the answer is read in the next round
        while batch := await asyncio.to_thread(reader.read_batch):
            for record in batch:
                if until and record.time_ns > until:
                    return
                if record.time_ns >= since:
                    yield record
        if watch is None or not running or (until and time.time_ns() > until):
            return
        await watch.changed(_STILL_SECONDS)


class _Reader:
    """Reads the rotated files of a log one after the other, oldest first, as one sequence of records."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = _open_all(path)
        self._current = 0
        self._offset = 0
        self._rest = b""

    def position(self, since: int, tail: int | None, until: int) -> None:
        """Go to the first record to be given."""
        if tail is not None:
            self._seek_tail(tail, until)
        if since:
            self._seek_since(since)

    def read_batch(self) -> list[LogRecord]:
        """The next records; empty when there are none (yet)."""
        records: list[LogRecord] = []
        while not records:
            if self._current >= len(self._files) and not self._open_next():
                break
            fd = self._files[self._current]
            if os.fstat(fd).st_size < self._offset:  # emptied in place by a rotation that keeps no old file
                self._offset, self._rest = 0, b""
            data = os.pread(fd, _BLOCK, self._offset)
            if not data:
                if self._current + 1 < len(self._files) or self._open_next():
                    self._current, self._offset, self._rest = self._current + 1, 0, b""
                    continue
                break
            self._offset += len(data)
            data = self._rest + data
            end = data.rfind(b"\n") + 1
            self._rest = data[end:]
            records = list(_parse(data[:end]))
        return records

    def close(self) -> None:
        for fd in self._files:
            if fd >= 0:
                os.close(fd)
        self._files = []

    def _open_next(self) -> bool:
        """After the newest file: has a rotation (or the first write) put another in its place?"""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        if self._files and os.path.sameopenfile(fd, self._files[-1]):
            os.close(fd)
            return False
        if self._files and os.fstat(self._files[-1]).st_size > self._offset:
            os.close(fd)  # the last lines came between our read and the rotation
            return False
        self._files.append(fd)
        return True

    def _seek_tail(self, tail: int, until: int) -> None:
        left = tail
        for index in range(len(self._files) - 1, -1, -1):
            fd = self._files[index]
            end = _bisect(fd, until + 1) if until else os.fstat(fd).st_size
            start, found = _last_lines(fd, end, left)
            self._current, self._offset = index, start
            left -= found
            if left <= 0:
                return

    def _seek_since(self, since: int) -> None:
        for index in range(self._current, len(self._files)):
            fd = self._files[index]
            offset = _bisect(fd, since)
            if offset < os.fstat(fd).st_size or index == len(self._files) - 1:
                if (index, offset) > (self._current, self._offset):
                    self._current, self._offset = index, offset
                return


def _open_all(path: Path) -> list[int]:
    """Descriptors of path.N ... path.1, path: oldest first. Opened newest first: a rotation between loses nothing."""
    descriptors: list[int] = []
    seen: set[tuple[int, int]] = set()
    number = 0
    while True:
        try:
            fd = os.open(f"{path}.{number}" if number else path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if number:
                break
        else:
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) in seen:
                os.close(fd)
            else:
                seen.add((status.st_dev, status.st_ino))
                descriptors.append(fd)
        number += 1
    return descriptors[::-1]


def _last_lines(fd: int, end: int, count: int) -> tuple[int, int]:
    """Where the last `count` lines before `end` start, and how many there are."""
    if count <= 0:
        return end, 0
    found = 0
    position = end
    while position > 0:
        start = max(0, position - _BLOCK)
        block = os.pread(fd, position - start, start)
        cut = len(block)
        while (cut := block.rfind(b"\n", 0, cut)) >= 0:
            if start + cut + 1 == end:
                continue  # the end of the last line is no start of another
            found += 1
            if found == count:
                return start + cut + 1, found
        position = start
    return 0, found + (1 if end else 0)


def _bisect(fd: int, moment: int) -> int:
    """The offset of the first line whose time is at least `moment`."""
    low, high = 0, os.fstat(fd).st_size
    while low < high:
        middle = (low + high) // 2
        start = _line_start(fd, middle, low)
        line = _line_at(fd, start)
        if not line.endswith(b"\n"):
            high = start
            continue
        record = next(_parse(line), None)
        if record is None or record.time_ns < moment:
            low = start + len(line)
        else:
            high = start
    return low


def _line_start(fd: int, offset: int, floor: int) -> int:
    position = offset
    while position > floor:
        start = max(floor, position - 4096)
        cut = os.pread(fd, position - start, start).rfind(b"\n")
        if cut >= 0:
            return start + cut + 1
        position = start
    return floor


def _line_at(fd: int, offset: int) -> bytes:
    line = b""
    while block := os.pread(fd, 4096, offset + len(line)):
        cut = block.find(b"\n")
        if cut >= 0:
            return line + block[: cut + 1]
        line += block
    return line


def _parse(data: bytes) -> Iterator[LogRecord]:
    for line in data.splitlines(keepends=True):
        try:
            record = loads(line)
            yield LogRecord(
                record["stream"], _nanoseconds(record["time"]), record["log"].encode("utf-8", "surrogatepass")
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # damage in one line (a crash of the machine) must not hide the others


_seconds_cache: tuple[str, int] = ("", 0)


def _nanoseconds(text: str) -> int:
    global _seconds_cache
    head = text[:19]
    if _seconds_cache[0] != head:
        _seconds_cache = (head, calendar.timegm(time.strptime(head, "%Y-%m-%dT%H:%M:%S")))
    return _seconds_cache[1] * 1_000_000_000 + int(text[20:-1].ljust(9, "0") or 0)
