"""Owner, mode, extended attributes and times of what was just made, by calls that follow no link."""

import errno
import os

from wherry.archive._entry import Entry, show
from wherry.archive._ids import Ids
from wherry.errors import InvalidArgument
from wherry.kernel.paths import fd_path

# The file system cannot hold the attribute, or we may not set it: docker skips these too.
_CANNOT = (errno.ENOTSUP, errno.EPERM)
# These steer overlayfs: a layer that could set them would redirect, hide or expose what it likes.
_STEERING = (b"trusted.overlay.", b"user.overlay.")
_NOBODY = (1 << 32) - 1


class Attributes:
    """Sets attributes as the archive says, or the given owner; remembers which extended ones could not be set."""

    def __init__(self, owner: tuple[int, int] | None, ids: Ids | None = None) -> None:
        self._owner = owner
        self._ids = ids
        self.skipped: set[str] = set()

    def set(self, fd: int, entry: Entry) -> None:
        """All but times, on a descriptor opened for use. Owner first: chown drops set-id bits and capabilities."""
        os.fchown(fd, *self._owner_of(entry))
        if entry.xattrs is not None:
            self._set_xattrs(fd, entry)
        os.fchmod(fd, entry.mode)

    def set_link(self, directory: int, name: bytes, entry: Entry) -> None:
        """Of a symbolic link: it has no mode."""
        self._chown(directory, name, entry)
        if entry.xattrs is not None:
            path = os.fsencode(fd_path(directory)) + b"/" + name
            self._set_xattrs(path, entry)

    def set_special(self, directory: int, name: bytes, entry: Entry) -> None:
        """Of a device or fifo, which must not be opened for use."""
        self._chown(directory, name, entry)
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            # Through the magic link: chmod has no form for O_PATH descriptors before fchmodat2 (Linux 6.6).
            path = fd_path(fd)
            if entry.xattrs is not None:
                self._set_xattrs(path, entry)
            os.chmod(path, entry.mode)
        finally:
            os.close(fd)

    def _chown(self, directory: int, name: bytes, entry: Entry) -> None:
        os.chown(name, *self._owner_of(entry), dir_fd=directory, follow_symlinks=False)

    def _owner_of(self, entry: Entry) -> tuple[int, int]:
        uid, gid = self._owner or (entry.uid, entry.gid)
        if uid >= _NOBODY or gid >= _NOBODY:
            raise _bad_owner(entry)
        return (uid, gid) if self._ids is None else self._ids.outside(uid, gid)

    def _set_xattrs(self, target: int | str | bytes, entry: Entry) -> None:
        follow = not isinstance(target, bytes)
        for name, value in (entry.xattrs or {}).items():
            if name.startswith(_STEERING):
                self.skipped.add(os.fsdecode(name))
                continue
            if self._ids is not None:
                value = self._ids.xattr_outside(name, value)
            try:
                if follow:
                    os.setxattr(target, name, value)
                else:
                    os.setxattr(target, name, value, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                self.skipped.add(os.fsdecode(name))


def _bad_owner(entry: Entry) -> InvalidArgument:
    return InvalidArgument(
        f"invalid tar archive: owner of entry {show(entry.name)} out of range", object=show(entry.name)
    )
