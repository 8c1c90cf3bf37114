"""Headers and bodies out: ustar, with pax records for what does not fit (as Go's archive/tar writes them)."""

import os
from typing import Protocol

from wherry.archive._entry import BLOCK, PAX, Entry

_MAX_OCTAL_7 = 0o7777777
_MAX_OCTAL_11 = 0o77777777777
_BUFFER = 1 << 18
_CHUNK = 1 << 20


class Writable(Protocol):
    """Where a tar goes: `write` takes all of it."""

    def write(self, data: bytes, /) -> object: ...


class TarWriter:
    def __init__(self, out: Writable) -> None:
        self._write = out.write
        self._parts: list[bytes] = []
        self._held = 0

    def header(self, entry: Entry, records: dict[bytes, bytes] | None = None) -> None:
        """One entry's header, preceded by an extended one when it needs it; `entry.size` bytes of body must follow."""
        records = dict(records or {})
        name, prefix = _split_name(entry.name, records)
        link = entry.link
        if len(link) > 100:
            records[b"linkpath"], link = link, link[:100]
        uid = _fit(entry.uid, _MAX_OCTAL_7, b"uid", records)
        gid = _fit(entry.gid, _MAX_OCTAL_7, b"gid", records)
        size = _fit(entry.size, _MAX_OCTAL_11, b"size", records)
        seconds, fraction = divmod(entry.mtime, 1_000_000_000)
        if fraction or not 0 <= seconds <= _MAX_OCTAL_11:
            records[b"mtime"] = _decimal(entry.mtime)
            seconds = min(max(seconds, 0), _MAX_OCTAL_11)
        for key, value in (entry.xattrs or {}).items():
            records[b"SCHILY.xattr." + key] = value
        if records:
            self._extended(name, records)
        self._put(_block(name, entry.mode, uid, gid, size, seconds, entry, link, prefix))

    def body(self, data: bytes) -> None:
        """A whole body at once, with its padding."""
        self._put(data)
        self.pad(len(data))

    def copy(self, fd: int, size: int) -> None:
        """`size` bytes from `fd`; a file that got shorter meanwhile is filled up with zeros, since its size is out."""
        while size:
            data = os.read(fd, min(size, _CHUNK))
            if not data:
                data = bytes(min(size, _CHUNK))
            size -= len(data)
            self._put(data)

    def pad(self, size: int) -> None:
        if size % BLOCK:
            self._put(bytes(-size % BLOCK))

    def close(self) -> None:
        """The end mark; the stream itself stays open."""
        self._put(bytes(2 * BLOCK))
        self._flush()

    def _extended(self, name: bytes, records: dict[bytes, bytes]) -> None:
        data = b"".join(_record(key, records[key]) for key in sorted(records))
        head = Entry()
        head.name, head.kind, head.devmajor, head.devminor = b"PaxHeaders.0/" + name[-80:], PAX, 0, 0
        self._put(_block(head.name, 0o644, 0, 0, len(data), 0, head, b"", b""))
        self.body(data)

    def _put(self, data: bytes) -> None:
        if len(data) >= _BUFFER:
            self._flush()
            self._write(data)
            return
        self._parts.append(data)
        self._held += len(data)
        if self._held >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        if self._parts:
            self._write(b"".join(self._parts))
        self._parts.clear()
        self._held = 0


def _block(
    name: bytes, mode: int, uid: int, gid: int, size: int, seconds: int, entry: Entry, link: bytes, prefix: bytes
) -> bytes:
    head = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0" % (name.ljust(100, b"\0"), mode, uid, gid, size, seconds)
    devices = b"%07o\0%07o\0" % (entry.devmajor & _MAX_OCTAL_7, entry.devminor & _MAX_OCTAL_7)
    rest = b"%c%sustar\x0000%s%s%s" % (entry.kind, link.ljust(100, b"\0"), bytes(64), devices, prefix)
    block = (head + b"        " + rest).ljust(BLOCK, b"\0")
    return b"%s%06o\0 %s" % (head, sum(block), block[156:])


def _split_name(name: bytes, records: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    if len(name) <= 100:
        return name, b""
    if len(name) <= 255:
        # The prefix ends at a slash, which is not stored; what is left must not be empty.
        cut = name.find(b"/", len(name) - 101, len(name) - 1)
        if 0 < cut <= 155:
            return name[cut + 1 :], name[:cut]
    records[b"path"] = name
    return name[:100], b""


def _fit(value: int, limit: int, key: bytes, records: dict[bytes, bytes]) -> int:
    if value <= limit:
        return value
    records[key] = b"%d" % value
    return 0


def _record(key: bytes, value: bytes) -> bytes:
    """The length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _decimal(ns: int) -> bytes:
    sign, ns = (b"-", -ns) if ns < 0 else (b"", ns)
    seconds, fraction = divmod(ns, 1_000_000_000)
    return sign + (b"%d.%09d" % (seconds, fraction)).rstrip(b"0").rstrip(b".") if fraction else sign + b"%d" % seconds
