"""Reading logs, rotated and compressed files included, without reading what is not asked for.

Times in a file never go back, so `since` is found by bisection; `tail` is found by counting from the end. Following
waits on inotify(7), not on a clock.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from wherry.logs.formats import Format, JSONLines, LogRecord, Pages
from wherry.logs.notify import Watch
from wherry.logs.source import Plain, Source, open_files

__all__ = ["LogRecord", "read_log"]
# A log may be still when its container ends: whether it has is looked at this often while nothing is written.
_STILL_SECONDS = 0.1


async def read_log(
    path: Path,
    *,
    since: int = 0,
    until: int = 0,
    tail: int | None = None,
    follow: bool = False,
    still_running: Callable[[], bool] = lambda: False,
    paged: bool = False,
) -> AsyncIterator[LogRecord]:
    """Records of the log at `path` with since <= time <= until (ns since the epoch; 0: no bound), the last `tail`.

    With `follow`, goes on with what is written until `still_running()` is false and all has been read. `paged`: the
    format of wherry.logs.pages, not json-file's. A log that does not exist has no records.
    """
    if follow and still_running() and path.parent.parent.is_dir():
        path.parent.mkdir(mode=0o700, exist_ok=True)  # the logger may not have got there yet
    watch = Watch(path) if follow and path.parent.is_dir() else None
    try:
        reader = _Reader(path, Pages() if paged else JSONLines())
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

    def __init__(self, path: Path, format: Format) -> None:
        self._path = path
        self._format = format
        self._files: list[Source] = open_files(path)
        self._current = 0
        self._offset = 0
        self._skip = 0

    def position(self, since: int, tail: int | None, until: int) -> None:
        """Go to the first record to be given."""
        if tail is not None:
            self._seek_tail(tail, until)
        if since:
            self._seek_since(since)

    def read_batch(self) -> list[LogRecord]:
        """The next records; empty when there are none (yet)."""
        while True:
            if self._current >= len(self._files) and not self._open_newer():
                return []
            file = self._files[self._current]
            if file.size() < self._offset:  # emptied in place by a rotation that keeps no old file
                self._offset = 0
            records, self._offset = self._format.read(file, self._offset)
            if self._skip:
                records, self._skip = records[self._skip :], max(0, self._skip - len(records))
            if records:
                return records
            if self._current + 1 < len(self._files) or self._open_newer():
                self._current, self._offset = self._current + 1, 0
                continue
            return []

    def close(self) -> None:
        for file in self._files:
            file.close()
        self._files = []

    def _open_newer(self) -> bool:
        """After the newest file: have rotations (or the first write) put others in its place?"""
        if not self._files:
            self._files = open_files(self._path)
            self._current = 0
            return bool(self._files)
        newest = self._files[-1]
        try:
            if self._path.stat().st_ino == newest.inode:
                return False
        except FileNotFoundError:
            return False
        if isinstance(newest, Plain) and newest.size() > self._offset:
            records, _ = self._format.read(newest, self._offset)
            if records:
                return False  # the last lines came between our read and the rotation
        found = open_files(self._path)
        # One that has been compressed since is another file by now; then all are newer than it.
        known = [index for index, file in enumerate(found) if file.inode == newest.inode]
        first = known[0] + 1 if known else 0
        for file in found[:first]:
            file.close()
        self._files += found[first:]
        return len(found) > first

    def _seek_tail(self, tail: int, until: int) -> None:
        left = tail
        for index in range(len(self._files) - 1, -1, -1):
            start, self._skip, found = self._format.tail(self._files[index], until, left)
            self._current, self._offset = index, start
            left -= found
            if left <= 0:
                return

    def _seek_since(self, since: int) -> None:
        for index in range(self._current, len(self._files)):
            file = self._files[index]
            offset = self._format.since(file, since)
            if offset < file.size() or index == len(self._files) - 1:
                if (index, offset) > (self._current, self._offset):
                    self._current, self._offset, self._skip = index, offset, 0
                return
