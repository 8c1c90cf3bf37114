"""Files to copy from: what a source path stands for in a tree, and a digest of it without times.

Trees are strangers': paths are resolved by the kernel inside the tree's root, and nothing is followed below the place
a source names.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from wherry.archive import walk
from wherry.build.ignore import Ignore
from wherry.errors import FailedPrecondition, InvalidArgument, NotFound
from wherry.kernel.paths import fd_path, open_in_root

_CHUNK = 1 << 20
_KEPT_XATTRS = ("user.", "security.capability")


class Entry(NamedTuple):
    """One thing to copy: `path` in its tree, `name` below the destination ("" for the top itself)."""

    path: bytes
    name: bytes
    status: os.stat_result


@dataclass(slots=True)
class SourceTree:
    """A tree that is open for reading. `root` is a directory descriptor; `ignore` hides paths of it.

    `foreign_owners`: who owns the files is the client's business: they count as root's (the build context).
    """

    root: int
    name: str
    ignore: Ignore | None = None
    foreign_owners: bool = False
    remote: bool = False
    """Fetched: archives in it are unpacked only when that is asked for."""
    digests: "Digests | None" = None

    def resolve(self, path: str) -> bytes:
        """The real path `path` leads to, links followed inside the root. NotFound names the rule that hides it."""
        wanted = path.lstrip("/") or "."
        try:
            fd = open_in_root(self.root, wanted)
        except OSError as error:
            raise self._missing(path, error) from None
        try:
            top, found = os.readlink(fd_path(self.root)), os.readlink(fd_path(fd))
        finally:
            os.close(fd)
        real = os.fsencode(os.path.relpath(found, top))
        real = b"" if real == b"." else real
        self.check(real, path)
        return real

    def check(self, real: bytes, shown: str) -> None:
        """NotFound for what the ignore file hides."""
        if self.ignore is not None and real:
            rule = self.ignore.reason(os.fsdecode(real))
            if rule is not None and not (self.ignore.descends(os.fsdecode(real)) and self._is_directory(real)):
                raise NotFound(
                    f'"{shown}": not found in {self.name}', object=shown, hint=f"the ignore rule {rule!r} hides it"
                )

    def _is_directory(self, real: bytes) -> bool:
        return stat.S_ISDIR(self.status(real).st_mode)

    def status(self, real: bytes) -> os.stat_result:
        fd = open_in_root(self.root, real or b".", os.O_PATH | os.O_NOFOLLOW)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def entries(self, real: bytes, *, excludes: Ignore | None = None) -> Iterator[Entry]:
        """Everything at and below `real`, parents first; `name` is relative to it."""
        status = self.status(real)
        if not stat.S_ISDIR(status.st_mode):
            base = real.rpartition(b"/")[2]
            if excludes is None or not excludes.ignores(os.fsdecode(base)):
                yield Entry(real, b"", status)
            return
        yield Entry(real, b"", status)
        hidden: set[bytes] = set()
        for directory in walk(self.root, real):
            if any(directory.path == path or directory.path.startswith(path + b"/") for path in hidden):
                continue
            prefix = directory.path + b"/" if directory.path else b""
            for name, found in directory.entries:
                path = prefix + name
                below = path[len(real) + 1 :] if real else path
                if self._hides(path, below, excludes):
                    if stat.S_ISDIR(found.st_mode) and not self._descends(path, below, excludes):
                        hidden.add(path)
                    continue
                if not stat.S_ISSOCK(found.st_mode):
                    yield Entry(path, below, found)

    def _hides(self, path: bytes, below: bytes, excludes: Ignore | None) -> bool:
        if self.ignore is not None and self.ignore.rules and self.ignore.ignores(os.fsdecode(path)):
            return True
        return excludes is not None and excludes.ignores(os.fsdecode(below))

    def _descends(self, path: bytes, below: bytes, excludes: Ignore | None) -> bool:
        if self.ignore is not None and self.ignore.ignores(os.fsdecode(path)):
            return self.ignore.descends(os.fsdecode(path))
        return excludes is not None and excludes.descends(os.fsdecode(below))

    def owner(self, status: os.stat_result) -> tuple[int, int]:
        return (0, 0) if self.foreign_owners else (status.st_uid, status.st_gid)

    def _missing(self, path: str, error: OSError) -> Exception:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            return InvalidArgument(f"cannot open {path} in {self.name}: {os.strerror(error.errno or 0)}", object=path)
        rule = self.ignore.reason(path.strip("/")) if self.ignore is not None and path.strip("/") else None
        hint = f"the ignore rule {rule!r} hides it" if rule is not None else None
        return NotFound(f'"{path}": not found in {self.name}', object=path, hint=hint)


class Digests:
    """SHA-256 of files, remembered by inode as long as nothing shows that they changed."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[tuple[int, int, int], bytes]] = {}

    def get(self, status: os.stat_result) -> bytes | None:
        found = self._known.get((status.st_dev, status.st_ino))
        return found[1] if found is not None and found[0] == _version(status) else None

    def put(self, status: os.stat_result, digest: bytes) -> None:
        self._known[status.st_dev, status.st_ino] = (_version(status), digest)


def _version(status: os.stat_result) -> tuple[int, int, int]:
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def digest_entries(tree: SourceTree, entries: Iterator[Entry], *, top: bool) -> str:
    """A digest of names, kinds, modes, owners, attributes and contents; times do not count.

    Without `top`, of a directory itself only what is in it counts.
    """
    total = hashlib.sha256()
    for entry in entries:
        status = entry.status
        if not entry.name and not top and stat.S_ISDIR(status.st_mode):
            continue
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = _file_digest(tree, entry).hex()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(entry.path, dir_fd=tree.root).decode("utf-8", "surrogateescape")
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            content = status.st_rdev
        fields = [os.fsdecode(entry.name), status.st_mode, *tree.owner(status), content]
        total.update(json.dumps(fields).encode() + b"\n")
    return total.hexdigest()


def _file_digest(tree: SourceTree, entry: Entry) -> bytes:
    known = tree.digests.get(entry.status) if tree.digests is not None else None
    if known is not None:
        return known
    hasher = hashlib.sha256()
    fd = open_in_root(tree.root, entry.path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        for name in sorted(os.listxattr(fd)):
            if name.startswith(_KEPT_XATTRS):
                hasher.update(f"{name}={os.getxattr(fd, name).hex()}\n".encode())
        while chunk := os.read(fd, _CHUNK):
            hasher.update(chunk)
    finally:
        os.close(fd)
    digest = hasher.digest()
    if tree.digests is not None:
        tree.digests.put(entry.status, digest)
    return digest


def resolve_directory(directory: str, source: str) -> str:
    """A path inside a directory of this machine, links followed inside it only."""
    root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = open_in_root(root, source.lstrip("/") or ".")
        try:
            return os.readlink(fd_path(fd))
        finally:
            os.close(fd)
    except OSError as error:
        raise FailedPrecondition(f'"{source}": not found: {os.strerror(error.errno or 0)}', object=source) from None
    finally:
        os.close(root)
