"""The archive as a sequence of entries, with long names, extended headers and sparse maps already resolved."""

import os
from collections.abc import Iterator

from wherry.archive import _pax, _sparse
from wherry.archive._blocks import BlockReader, Readable
from wherry.archive._entry import (
    BLOCK,
    CONTIGUOUS,
    DIRECTORY,
    GNU_LONG_LINK,
    GNU_LONG_NAME,
    GNU_SPARSE,
    OLD_REGULAR,
    PAX,
    PAX_GLOBAL,
    REGULAR,
    Entry,
    malformed,
)
from wherry.archive._header import is_zero, parse, special_size

_WITH_BODY = frozenset((REGULAR, CONTIGUOUS, GNU_SPARSE))


class TarReader:
    """`next()` until None; `write_body(fd)` at most once after each, what is not written is skipped."""

    def __init__(self, stream: Readable) -> None:
        self._blocks = BlockReader(stream)
        self._left = 0
        self._padding = 0

    def next(self) -> Entry | None:
        blocks = self._blocks
        if self._left or self._padding:
            blocks.skip(self._left + self._padding)
            self._left = self._padding = 0
        name = link = records = None
        while True:
            header = blocks.take(BLOCK)
            if not header or (not header[0] and is_zero(header)):
                if name is not None or link is not None or records is not None:
                    raise malformed("extended header without an entry")
                return None
            entry = parse(header)
            kind = entry.kind
            if kind == PAX:
                records = _pax.records(self._special(entry))
            elif kind == GNU_LONG_NAME:
                name = self._special(entry).split(b"\0", 1)[0]
            elif kind == GNU_LONG_LINK:
                link = self._special(entry).split(b"\0", 1)[0]
            elif kind == PAX_GLOBAL:
                # git-archive's comment, in practice; docker ignores these too.
                self._special(entry)
            else:
                break
        if name is not None:
            entry.name = name
        if link is not None:
            entry.link = link
        self._complete(entry, header, records)
        return entry

    def write_body(self, entry: Entry, fd: int) -> None:
        """Write the file's data to `fd`, a fresh file, leaving holes where the archive has them."""
        copy = self._blocks.copy
        if entry.sparse is None:
            copy(fd, self._left)
        else:
            for offset, length in entry.sparse:
                os.lseek(fd, offset, os.SEEK_SET)
                copy(fd, length)
            os.ftruncate(fd, entry.real_size)
        self._left = 0

    def body(self, entry: Entry) -> Iterator[memoryview]:
        """The file's data in parts, for archives that are read and not unpacked; sparse files are refused."""
        if entry.sparse is not None:
            raise malformed("a sparse file where none belongs", entry.name)
        left, self._left = self._left, 0
        yield from self._blocks.chunks(left)

    def drain(self) -> None:
        """Read whatever follows the last entry."""
        self._blocks.drain()

    def _complete(self, entry: Entry, header: bytes, records: dict[bytes, bytes] | None) -> None:
        if records is not None:
            _pax.apply(entry, records)
        kind = entry.kind
        if kind in (REGULAR, OLD_REGULAR):
            # Before type 5 existed a trailing slash said "directory"; a body, if any, is there all the same.
            kind = entry.kind = DIRECTORY if entry.name.endswith(b"/") else REGULAR
            self._left, self._padding = entry.size, -entry.size % BLOCK
        if kind not in _WITH_BODY:
            # Links and directories may carry a size that counts nothing (POSIX: ignored, except by old writers).
            entry.size = entry.real_size = 0
            return
        self._padding = -entry.size % BLOCK
        if kind == GNU_SPARSE:
            _sparse.read_old(entry, header, self._blocks)
        elif records is not None:
            _sparse.read_pax(entry, records, self._blocks)
        entry.kind = REGULAR
        self._left = entry.size

    def _special(self, entry: Entry) -> bytes:
        size = special_size(entry)
        data = self._blocks.take(size) if size else b""
        if len(data) != size:
            raise malformed("unexpected end of the stream")
        self._blocks.skip(-size % BLOCK)
        return data
