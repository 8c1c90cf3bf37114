"""The files of a log as byte sequences that can be read at any place, be they plain or compressed."""

import os
import zlib
from pathlib import Path
from typing import Protocol

from wherry.logs.squeeze import HEADER_SIZE, parse_header

_MAX_MEMBER = 64 << 20


class Source(Protocol):
    """One file. `size` grows while a log is written; `inode` tells which file it is."""

    inode: int

    def size(self) -> int:
        """How many bytes there are now."""

    def read(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes; fewer only at the end."""

    def close(self) -> None:
        """Close it; closing twice is harmless."""


class Plain:
    """A file as it is."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.inode = os.fstat(fd).st_ino

    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def read(self, size: int, offset: int) -> bytes:
        return os.pread(self.fd, size, offset)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Squeezed:
    """A file made by wherry.logs.squeeze. The last member inflated is kept; damage reads as the end of the file."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.inode = os.fstat(fd).st_ino
        # Of each member: where it is, and where what it holds begins.
        self._members: list[tuple[int, int]] = []
        self._size = 0
        self._held = (-1, b"")
        self._find_members()

    def size(self) -> int:
        return self._size

    def read(self, size: int, offset: int) -> bytes:
        pieces = []
        while size > 0 and 0 <= offset < self._size:
            index = self._index(offset)
            data = self._inflate(index)
            start = offset - self._members[index][1]
            piece = data[start : start + size]
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
            offset += len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _find_members(self) -> None:
        place = 0
        while sizes := parse_header(os.pread(self.fd, HEADER_SIZE, place)):
            packed, plain = sizes
            if packed <= HEADER_SIZE or not 0 < plain <= _MAX_MEMBER:
                return
            self._members.append((place, self._size))
            place += packed
            self._size += plain

    def _index(self, offset: int) -> int:
        low, high = 0, len(self._members)
        while high - low > 1:
            middle = (low + high) // 2
            if self._members[middle][1] <= offset:
                low = middle
            else:
                high = middle
        return low

    def _inflate(self, index: int) -> bytes:
        if self._held[0] != index:
            place = self._members[index][0]
            end = self._members[index + 1][0] if index + 1 < len(self._members) else os.fstat(self.fd).st_size
            packed = os.pread(self.fd, end - place, place)
            try:
                data = zlib.decompressobj(31).decompress(packed, _MAX_MEMBER)
            except zlib.error:
                data = b""
            self._held = (index, data)
        return self._held[1]


def open_files(path: Path) -> list[Source]:
    """The files of the log at `path`, oldest first. Opened newest first, so that a rotation between loses nothing."""
    found: list[Source] = []
    seen: set[int] = set()
    number = 0
    while True:
        source = _open(f"{path}.{number}" if number else str(path), packed=number > 0)
        if source is None:
            if number:
                return found[::-1]
        elif source.inode in seen:
            source.close()
        else:
            seen.add(source.inode)
            found.append(source)
        number += 1


def _open(path: str, packed: bool) -> Source | None:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return Plain(os.open(path, flags))
    except FileNotFoundError:
        pass
    try:
        return Squeezed(os.open(f"{path}.gz", flags)) if packed else None
    except FileNotFoundError:
        return None
