"""What a client says a directory holds: the stat packets of fsutil's protocol, checked before anything is made of them.

A client may say anything. A path is accepted when it is relative and clean, was not named before, and stands in a
directory that was named before: so no entry can be reached through a link.
"""

import stat
from collections.abc import Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError

from wherry.buildkit.messages.buildkit_pb2 import Packet, Stat
from wherry.errors import InvalidArgument

_ENTRIES_MAX = 4_000_000
_BYTES_MAX = 512 << 20
_PATH_MAX = 4095
_XATTRS_MAX = 64 << 10

# Go's os.FileMode.
_GO_TYPES = {
    0: stat.S_IFREG,
    1 << 31: stat.S_IFDIR,
    1 << 27: stat.S_IFLNK,
    1 << 26: stat.S_IFBLK,
    1 << 26 | 1 << 21: stat.S_IFCHR,
    1 << 25: stat.S_IFIFO,
    1 << 24: stat.S_IFSOCK,
}
_GO_TYPE_MASK = 1 << 31 | 1 << 27 | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19
_GO_BITS = ((1 << 23, stat.S_ISUID), (1 << 22, stat.S_ISGID), (1 << 20, stat.S_ISVTX))


class Entry(NamedTuple):
    """One path. `mode` is the kernel's; `link`: where a symbolic link leads, or of which file this is another name."""

    path: str
    mode: int
    size: int
    mtime_ns: int
    link: str
    device: tuple[int, int]
    xattrs: tuple[tuple[str, bytes], ...]


class Listing:
    """The packets of one directory, in the order they came; `raw` keeps them as they are, to be compared."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self._bytes = 0
        self._kinds: dict[str, int] = {}

    def add(self, packet: bytes) -> Entry:
        """Check one more; InvalidArgument says what is wrong with it."""
        self.count(packet)
        try:
            entry = entry_of(Packet.FromString(packet).stat)
        except DecodeError:
            raise InvalidArgument("the client sent a file's description that cannot be read") from None
        path = entry.path
        if path in self._kinds:
            raise InvalidArgument(f"the client named {path!r} twice", object=path)
        parent = path.rpartition("/")[0]
        if parent and self._kinds.get(parent) != stat.S_IFDIR:
            raise InvalidArgument(f"the client named {path!r} before its directory", object=path)
        kind = stat.S_IFMT(entry.mode)
        if kind == stat.S_IFREG and entry.link and self._kinds.get(entry.link) != stat.S_IFREG:
            raise InvalidArgument(f"the client named {path!r} a link to {entry.link!r}, which is no file", object=path)
        self._kinds[path] = kind
        return entry

    def count(self, packet: bytes) -> None:
        """Keep a packet, checked or known to be good."""
        self.raw.append(packet)
        self._bytes += len(packet)
        if len(self.raw) > _ENTRIES_MAX or self._bytes > _BYTES_MAX:
            raise InvalidArgument("the build context has too many files", hint="leave some out by .dockerignore")


def entry_of(found: Stat) -> Entry:
    """A description, checked by itself."""
    path = check_path(found.path)
    kind = _GO_TYPES.get(found.mode & _GO_TYPE_MASK)
    if kind is None:
        raise InvalidArgument(f"{path!r} is of an unknown kind ({found.mode:#o})", object=path)
    mode = kind | found.mode & 0o777
    for go, ours in _GO_BITS:
        if found.mode & go:
            mode |= ours
    link = found.linkname
    if kind == stat.S_IFLNK:
        if not link or len(link) > _PATH_MAX or "\0" in link:
            raise InvalidArgument(f"the symbolic link {path!r} leads nowhere", object=path)
    elif link:
        link = check_path(link.lstrip("/")) if kind == stat.S_IFREG else ""
    xattrs = tuple(sorted(found.xattrs.items())) if found.xattrs else ()
    if sum(len(value) for _, value in xattrs) > _XATTRS_MAX:
        raise InvalidArgument(f"{path!r} has too many extended attributes", object=path)
    return Entry(path, mode, found.size, found.mod_time, link, (found.devmajor, found.devminor), xattrs)


def check_path(path: str) -> str:
    """`path` if it is relative, clean and inside."""
    if not path or len(path.encode("utf-8", "surrogateescape")) > _PATH_MAX or "\0" in path:
        raise InvalidArgument(f"the client sent a path that is none: {path[:100]!r}")
    for part in path.split("/"):
        if part in ("", ".", "..") or len(part.encode("utf-8", "surrogateescape")) > 255:
            raise InvalidArgument(f"the client sent a path that leaves its directory or is not clean: {path[:200]!r}")
    return path


def paths_of(raw: Sequence[bytes]) -> dict[str, bytes]:
    """Path to packet, of a listing that was checked before."""
    return {Packet.FromString(packet).stat.path: packet for packet in raw}


def go_mode(mode: int) -> int:
    """The kernel's mode as Go's."""
    kind = next(go for go, ours in _GO_TYPES.items() if ours == stat.S_IFMT(mode))
    return kind | mode & 0o777 | sum(go for go, ours in _GO_BITS if mode & ours)
