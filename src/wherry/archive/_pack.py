"""A directory tree becomes a tar stream, in a fixed order, while its owner may be changing it.

No link is followed below the starting point, and only regular files are ever opened.
"""

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wherry.archive._directories import is_whiteout
from wherry.archive._entry import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Entry,
)
from wherry.archive._ids import Ids
from wherry.archive._path import opened
from wherry.archive._sparse import data_map, table
from wherry.archive._walk import walk
from wherry.archive._writer import TarWriter, Writable
from wherry.kernel.paths import fd_path

_KINDS = {
    stat.S_IFREG: REGULAR,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFIFO: FIFO,
}
# What belongs to the file wherever it goes; labels and overlay's own marks do not.
_KEPT = ("user.", "security.capability", "system.posix_acl_")
_NOT_KEPT = "user.overlay."
_OPAQUE = "trusted.overlay.opaque"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackOptions:
    """`name`: what the top is called in the archive; None: as docker does, the last part of the path; "": the top
    itself is left out and its entries have no prefix (export).
    `nanoseconds`: keep fractions of times, in a pax header per file; docker drops them.
    `layer`: the tree is an overlay upper directory; write its deletions as ``.wh.`` files.
    `sparse_from`: bytes of holes from which on a file is written sparse (pax 1.0): few readers but tar and Go know it.
    `skip`: whether to leave out the entry of that path (relative, without slashes at its ends); what is in a directory
    is asked for by itself.
    `deleted`: paths to be written as ``.wh.`` files, for a tree that has no marks of its own.
    `ids`: the root is seen through a user namespace with these ids; the archive's owners are those in it.
    `newest`: the latest time written, in nanoseconds since 1970; what is newer gets that.
    """

    name: str | None = None
    nanoseconds: bool = False
    layer: bool = False
    sparse_from: int = 64 << 20
    skip: Callable[[bytes], bool] | None = None
    deleted: Sequence[bytes] = ()
    newest: int | None = None
    ids: Ids | None = None


def pack(root: int, path: str, out: Writable, options: PackOptions | None = None) -> None:
    """Write `path` in `root` and all below it as a tar stream. NotFound when there is no such path.

    The contents of mounted /proc, /sys and cgroup trees are left out, and so are sockets.
    """
    chosen = options or PackOptions()
    packer = _Packer(out, chosen)
    with opened(root, path) as (fd, name):
        top = os.fsencode(name if chosen.name is None else chosen.name)
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            packer.tree(fd, top)
        else:
            packer.single(fd, top, status)
    packer.close()


class _Packer:
    def __init__(self, out: Writable, options: PackOptions) -> None:
        self._out = TarWriter(out)
        self._options = options
        self._linked: dict[tuple[int, int], bytes] = {}

    def close(self) -> None:
        self._out.close()

    def single(self, handle: int, name: bytes, status: os.stat_result) -> None:
        """One entry that is no directory, through an O_PATH descriptor of it."""
        entry = self._entry(name, status)
        if entry is None:
            return
        # Where xattr calls find it: magic links of links are not followed by them.
        entry.xattrs = None if entry.kind == SYMLINK else self._xattrs(fd_path(handle))
        if entry.kind == SYMLINK:
            entry.link = os.readlink(b"", dir_fd=handle)
        self._add(entry, handle)

    def tree(self, top: int, name: bytes) -> None:
        listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=top)
        try:
            # "/" names its entries "/bin", as docker's does.
            prefix = name.rstrip(b"/") + b"/" if name else b""
            for path in self._options.deleted:
                parent, slash, last = path.rpartition(b"/")
                self._whiteout(prefix + parent + slash + b".wh." + last, 0)
            skip = self._options.skip or _nothing
            for directory in walk(listing, pseudo=False):
                base = prefix + directory.path + b"/" if directory.path else prefix
                # A directory comes right before what is in it: GNU tar sets its times when it leaves it.
                if base and not skip(directory.path):
                    self._directory(base, directory.fd)
                if self._options.layer and _is_opaque(directory.fd):
                    self._whiteout(base + b".wh..wh..opq", 0)
                for child, child_status in directory.entries:
                    inside = directory.path + b"/" + child if directory.path else child
                    if not stat.S_ISDIR(child_status.st_mode) and not skip(inside):
                        self._child(directory.fd, child, base + child, child_status)
        finally:
            os.close(listing)

    def _child(self, directory: int, name: bytes, path: bytes, status: os.stat_result) -> None:
        if self._options.layer and is_whiteout(status):
            self._whiteout(path[: -len(name)] + b".wh." + name, status.st_mtime_ns)
            return
        if status.st_nlink > 1:
            inode = (status.st_dev, status.st_ino)
            first = self._linked.setdefault(inode, path)
            if first is not path:
                self._hard_link(path, first, status)
                return
        try:
            handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        except FileNotFoundError:
            return
        try:
            # It may be another file by now: what is held counts.
            status = os.fstat(handle)
            if not stat.S_ISDIR(status.st_mode):
                self.single(handle, path, status)
        finally:
            os.close(handle)

    def _directory(self, path: bytes, fd: int) -> None:
        entry = self._entry(path, os.fstat(fd))
        if entry is not None:
            entry.xattrs = self._xattrs(fd_path(fd))
            self._out.header(entry)

    def _xattrs(self, path: str) -> dict[bytes, bytes] | None:
        found, ids = _xattrs(path), self._options.ids
        return found and {name: ids.xattr_inside(name, value) for name, value in found.items()} if ids else found

    def _add(self, entry: Entry, handle: int) -> None:
        out = self._out
        if entry.kind != REGULAR or not entry.size:
            out.header(entry)
            return
        fd = os.open(fd_path(handle), os.O_RDONLY | os.O_CLOEXEC)
        try:
            if entry.real_size - entry.size < self._options.sparse_from:
                entry.size = entry.real_size
                out.header(entry)
                out.copy(fd, entry.size)
            else:
                self._add_sparse(entry, fd)
            out.pad(entry.size)
        finally:
            os.close(fd)

    def _add_sparse(self, entry: Entry, fd: int) -> None:
        pieces = data_map(fd, entry.real_size)
        head = table(pieces)
        records = {
            b"GNU.sparse.major": b"1",
            b"GNU.sparse.minor": b"0",
            b"GNU.sparse.name": entry.name,
            b"GNU.sparse.realsize": b"%d" % entry.real_size,
        }
        directory, _, base = entry.name.rpartition(b"/")
        entry.name = b"/".join(part for part in (directory, b"GNUSparseFile.0", base) if part)
        entry.size = len(head) + sum(length for _, length in pieces)
        self._out.header(entry, records)
        self._out.body(head)
        for offset, length in pieces:
            os.lseek(fd, offset, os.SEEK_SET)
            self._out.copy(fd, length)

    def _hard_link(self, path: bytes, first: bytes, status: os.stat_result) -> None:
        entry = self._entry(path, status)
        if entry is not None:
            entry.kind, entry.link, entry.size = HARD_LINK, first, 0
            self._out.header(entry)

    def _whiteout(self, path: bytes, mtime: int) -> None:
        entry = _blank(path, REGULAR)
        entry.mtime = self._time(mtime // 1_000_000_000 * 1_000_000_000)
        self._out.header(entry)

    def _time(self, mtime: int) -> int:
        newest = self._options.newest
        return mtime if newest is None else min(mtime, newest)

    def _entry(self, path: bytes, status: os.stat_result) -> Entry | None:
        """None for a socket, which no archive can hold. `size` is what is on disk, `real_size` what it claims."""
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return None
        entry = _blank(path, kind)
        entry.mode = stat.S_IMODE(status.st_mode)
        ids = self._options.ids
        entry.uid, entry.gid = ids.inside(status.st_uid, status.st_gid) if ids else (status.st_uid, status.st_gid)
        entry.mtime = status.st_mtime_ns
        if not self._options.nanoseconds:
            entry.mtime -= entry.mtime % 1_000_000_000
        entry.mtime = self._time(entry.mtime)
        if kind == REGULAR:
            entry.real_size = status.st_size
            # An empty or wholly sparse file still counts as having a body.
            entry.size = min(status.st_size, max(status.st_blocks * 512, 1))
        elif kind in (CHARACTER, BLOCK_DEVICE):
            entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        return entry


def _nothing(path: bytes) -> bool:
    return False


def _blank(path: bytes, kind: int) -> Entry:
    entry = Entry()
    entry.name, entry.link, entry.kind = path, b"", kind
    entry.mode, entry.uid, entry.gid = 0, 0, 0
    entry.size = entry.real_size = entry.mtime = entry.devmajor = entry.devminor = 0
    entry.xattrs = entry.sparse = None
    return entry


def _xattrs(path: str) -> dict[bytes, bytes] | None:
    try:
        names = os.listxattr(path)
        if not names:
            return None
        kept = [name for name in names if name.startswith(_KEPT) and not name.startswith(_NOT_KEPT)]
        return {os.fsencode(name): os.getxattr(path, name) for name in kept}
    except OSError:
        # Gone meanwhile, or a file system without any.
        return None


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, _OPAQUE) == b"y"
    except OSError:
        return False
