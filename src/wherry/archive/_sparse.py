"""Sparse files in GNU's four ways: header type S, and pax 0.0, 0.1, 1.0 (GNU tar manual, "Sparse Formats")."""

import os

from wherry.archive import _pax
from wherry.archive._blocks import BlockReader
from wherry.archive._entry import BLOCK, MAX_SPECIAL, Entry, malformed
from wherry.archive._header import MAX_SIZE, number

Map = list[tuple[int, int]]
_PAIR = 24


def read_old(entry: Entry, header: bytes, blocks: BlockReader) -> None:
    """Four pairs in the header, 21 in each extension block that follows it."""
    found = _pairs(header[386:482])
    extended = header[482]
    real_size = number(header[483:495], "sparse size")
    while extended:
        block = blocks.take(BLOCK)
        if not block or len(found) * _PAIR > MAX_SPECIAL:
            raise malformed("sparse map too long or cut short", entry.name)
        found += _pairs(block[:504])
        extended = block[504]
    _accept(entry, found, real_size)


def read_pax(entry: Entry, records: dict[bytes, bytes], blocks: BlockReader) -> None:
    """Make `entry` sparse when its records say so; 1.0 keeps its map at the head of the body."""
    major, minor = records.get(b"GNU.sparse.major"), records.get(b"GNU.sparse.minor")
    listed = records.get(_pax.SPARSE_MAP)
    if (major, minor) == (b"1", b"0"):
        numbers = _read_table(entry, blocks)
    elif listed is not None and major in (None, b"0"):
        numbers = [_pax.integer(part, "sparse map") for part in listed.split(b",")] if listed else []
    elif b"GNU.sparse.major" in records or b"GNU.sparse.numblocks" in records:
        raise malformed("unknown sparse format", entry.name)
    else:
        return
    name = records.get(b"GNU.sparse.name")
    if name:
        entry.name = _pax.text(name)
    if len(numbers) % 2:
        raise malformed("sparse map of odd length", entry.name)
    real_size = records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size") or b""
    _accept(entry, list(zip(numbers[::2], numbers[1::2], strict=True)), _pax.integer(real_size, "sparse size"))


def data_map(fd: int, size: int) -> Map:
    """Where the first `size` bytes of a file hold data; ends with an empty piece at the end when that is a hole."""
    found: Map = []
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:
            # ENXIO: nothing but a hole from here on.
            break
        if start >= size:
            break
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        found.append((start, end - start))
    os.lseek(fd, 0, os.SEEK_SET)
    if end < size:
        found.append((size, 0))
    return found


def table(pieces: Map) -> bytes:
    """The map as sparse format 1.0 puts it before the data."""
    text = b"%d\n" % len(pieces) + b"".join(b"%d\n%d\n" % piece for piece in pieces)
    return text + bytes(-len(text) % BLOCK)


def _read_table(entry: Entry, blocks: BlockReader) -> list[int]:
    """A count, then offset and length by turns, each decimal and ended by a newline, padded to a block."""
    text = b""
    wanted = 1
    while text.count(b"\n") < wanted:
        block = blocks.take(BLOCK) if entry.size >= BLOCK else b""
        if not block or len(text) > MAX_SPECIAL:
            raise malformed("sparse map too long or cut short", entry.name)
        entry.size -= BLOCK
        text += block
        if wanted == 1 and b"\n" in text:
            wanted = 1 + 2 * _pax.integer(text.split(b"\n", 1)[0], "sparse count")
    return [_pax.integer(line, "sparse map") for line in text.split(b"\n")[1:wanted]]


def _pairs(table: bytes) -> Map:
    found = []
    for at in range(0, len(table), _PAIR):
        offset, length = table[at : at + 12], table[at + 12 : at + _PAIR]
        if not length[0]:
            break
        found.append((number(offset, "sparse offset"), number(length, "sparse length")))
    return found


def _accept(entry: Entry, found: Map, real_size: int) -> None:
    """Ascending, apart, inside the file, and together as long as what is stored; else the archive lies."""
    end = total = 0
    for offset, length in found:
        if offset < end or length < 0 or offset + length > real_size:
            raise malformed("sparse map out of order or out of range", entry.name)
        end = offset + length
        total += length
    if total != entry.size or not 0 <= real_size <= MAX_SIZE:
        raise malformed("sparse map does not match the stored size", entry.name)
    entry.sparse = [pair for pair in found if pair[1]]
    entry.real_size = real_size
