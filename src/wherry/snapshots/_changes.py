"""What differs between a writable and its parent, as `docker diff` tells it."""

import os
import stat
from collections.abc import Iterator

from wherry.archive import Directory, open_directory, walk
from wherry.snapshots._contract import Change, ChangeKind

_OPAQUE = "trusted.overlay.opaque"
_CAPABILITY = "security.capability"


def compare(tree: int, below: int | None, *, whole: bool = False) -> list[Change]:
    """`tree` (a descriptor of an overlay's upper directory) against the merged view `below` it.

    `below` None: nothing is. With `whole`, `tree` is complete: what it lacks is deleted, and there are no whiteouts.
    """
    found: dict[bytes, ChangeKind] = {}
    for directory in walk(tree):
        _compare_directory(directory, below, found, whole)
    for path in list(found):
        # A directory is modified when anything below it changed.
        parent = path.rpartition(b"/")[0]
        while parent and parent not in found:
            found[parent] = ChangeKind.MODIFIED
            parent = parent.rpartition(b"/")[0]
    return [Change(kind, "/" + os.fsdecode(path)) for path, kind in sorted(found.items())]


def _compare_directory(directory: Directory, below: int | None, found: dict[bytes, ChangeKind], whole: bool) -> None:
    prefix = directory.path + b"/" if directory.path else b""
    old = _open_same(below, directory.path)
    if old is None:
        # Not a directory there: all of it is new.
        for name, status in directory.entries:
            if whole or not _is_whiteout(status):
                found[prefix + name] = ChangeKind.ADDED
        return
    try:
        for name, status in directory.entries:
            kind = _compare_entry(directory.fd, old, name, status, whole)
            if kind is not None:
                found[prefix + name] = kind
        if whole or _is_opaque(directory.fd):
            for name in _missing(old, directory):
                found[prefix + name] = ChangeKind.DELETED
    finally:
        os.close(old)


def _open_same(below: int | None, path: bytes) -> int | None:
    try:
        return None if below is None else open_directory(below, path)
    except OSError:
        return None


def _compare_entry(new: int, old: int, name: bytes, status: os.stat_result, whole: bool) -> ChangeKind | None:
    try:
        before = os.stat(name, dir_fd=old, follow_symlinks=False)
    except FileNotFoundError:
        return None if not whole and _is_whiteout(status) else ChangeKind.ADDED
    if not whole and _is_whiteout(status):
        return ChangeKind.DELETED
    if _differs(status, before) or _capability(new, name, status) != _capability(old, name, before):
        return ChangeKind.MODIFIED
    return None


def _differs(one: os.stat_result, other: os.stat_result) -> bool:
    if (one.st_mode, one.st_uid, one.st_gid, one.st_rdev) != (other.st_mode, other.st_uid, other.st_gid, other.st_rdev):
        return True
    # Of directories neither size nor time says anything about them that their entries do not.
    return not stat.S_ISDIR(one.st_mode) and (one.st_size, one.st_mtime_ns) != (other.st_size, other.st_mtime_ns)


def _capability(directory: int, name: bytes, status: os.stat_result) -> bytes:
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
        return b""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return b""
    try:
        return os.getxattr(fd, _CAPABILITY)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _missing(old: int, directory: Directory) -> Iterator[bytes]:
    present = {name for name, _ in directory.entries}
    return (name for name in map(os.fsencode, os.listdir(old)) if name not in present)


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, _OPAQUE) == b"y"
    except OSError:
        return False


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
