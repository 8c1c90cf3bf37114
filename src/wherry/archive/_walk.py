"""Walking a tree whose owner may change it meanwhile, and may have made it as deep and odd as the kernel allows.

Each directory is opened anew from the root, following nothing, so that one descriptor is held at a time and what
was swapped for a link is passed over.
"""

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from wherry.kernel import files
from wherry.kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

# Not files anyone keeps: what these show is made by the kernel on demand.
_PSEUDO = frozenset((files.PROC_SUPER_MAGIC, files.SYSFS_MAGIC, files.CGROUP_SUPER_MAGIC, files.CGROUP2_SUPER_MAGIC))


class Directory(NamedTuple):
    """`fd` is open until the next step; `entries` are sorted by name."""

    path: bytes
    fd: int
    entries: list[tuple[bytes, os.stat_result]]


def walk(root: int, start: bytes = b"", *, pseudo: bool = True) -> Iterator[Directory]:
    """Every directory at and below `start`, parents first, in a fixed order; paths are relative to `root`.

    Without `pseudo`, mounted /proc, /sys and cgroup trees are taken for empty.
    """
    waiting = [start]
    while waiting:
        path = waiting.pop()
        try:
            fd = open_directory(root, path)
        except (FileNotFoundError, NotADirectoryError):
            if path == start:
                raise
            continue
        except OSError as error:
            if path == start or error.errno != 40:  # ELOOP: a link by now
                raise
            continue
        try:
            entries = [] if not pseudo and files.magic(fd) in _PSEUDO else _entries(fd)
            yield Directory(path, fd, entries)
        finally:
            os.close(fd)
        prefix = path + b"/" if path else b""
        waiting.extend(prefix + name for name, status in reversed(entries) if stat.S_ISDIR(status.st_mode))


def open_directory(root: int, path: bytes) -> int:
    """The directory `path` below `root`, for listing; no link is followed, ELOOP when there is one."""
    flags = os.O_RDONLY | os.O_DIRECTORY
    return openat2(root, path or b".", flags, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)


def tree_size(root: int) -> int:
    """Bytes of all files below `root`, directories not counted, each inode once (docker's SizeRw)."""
    total = 0
    linked = set()
    for directory in walk(root):
        for _, status in directory.entries:
            if stat.S_ISDIR(status.st_mode):
                continue
            if status.st_nlink > 1:
                inode = (status.st_dev, status.st_ino)
                if inode in linked:
                    continue
                linked.add(inode)
            total += status.st_size
    return total


def _entries(fd: int) -> list[tuple[bytes, os.stat_result]]:
    found = []
    for name in sorted(map(os.fsencode, os.listdir(fd))):
        try:
            found.append((name, os.stat(name, dir_fd=fd, follow_symlinks=False)))
        except FileNotFoundError:
            continue
    return found
