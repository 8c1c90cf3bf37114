"""Deletions in layers (OCI image-spec, layer.md#whiteouts), and the directories a layer implies without listing them.

A whiteout speaks only of the layers below: what the same layer brings stays, whichever comes first in the archive.
"""

import os
import stat
from collections.abc import Sequence

from wherry.archive._directories import Directories, is_whiteout
from wherry.archive._entry import show
from wherry.archive._walk import open_directory
from wherry.errors import InvalidArgument
from wherry.kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, fd_path, openat2
from wherry.kernel.removal import remove_tree

PREFIX = b".wh."
_META = b".wh..wh."
OPAQUE = b".wh..wh..opq"
_OPAQUE_ATTRIBUTE = "trusted.overlay.opaque"
_SPECIAL = frozenset((b"", b".", b".."))


class OverlayWhiteouts:
    """Marks that overlayfs reads: nothing below is touched, only hidden."""

    def __init__(self, lowers: Sequence[str]) -> None:
        self._lowers = lowers
        self._made: dict[bytes, tuple[bytes, bytes]] = {}
        self._opaque: set[bytes] = set()

    def note(self, directory: bytes, name: bytes) -> None:
        """An entry of the layer itself; nothing to remember, since its presence is what counts."""

    def clear(self, fd: int, directory: bytes) -> None:
        """Hide what the layers below have in `directory`, open as `fd`."""
        self._opaque.add(directory)
        set_opaque(fd)

    def delete(self, directories: Directories, directory: bytes, target: bytes) -> None:
        """Hide `target` in `directory`, which is made when it must be."""
        path = _join(directory, target)
        if not self._is_below(path) or any(above in self._made for above in _ancestors(directory)):
            # Where nothing is to be merged, the kernel would show the mark as a broken entry.
            return
        fd = directories.open(directory)
        try:
            os.mknod(target, stat.S_IFCHR, 0, dir_fd=fd)
            self._made[path] = (directory, target)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(target, dir_fd=fd, follow_symlinks=False).st_mode):
                inner = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                try:
                    self.clear(inner, path)
                finally:
                    os.close(inner)

    def finish(self, root: int) -> None:
        """Take back marks inside directories that turned out opaque: there is nothing left to hide from."""
        for directory, name in self._made.values():
            if not any(above in self._opaque for above in _ancestors(directory)):
                continue
            try:
                fd = open_directory(root, directory)
            except OSError:
                continue
            try:
                _clear_whiteout(fd, name)
            finally:
                os.close(fd)

    def adopt(self, fd: int, name: bytes, path: bytes) -> os.stat_result | None:
        """Make the directory `name` that an entry implies: as it is in the layers below, else root's and 0755."""
        hidden = _clear_whiteout(fd, name)
        _make_directory(fd, name, path)
        made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        try:
            if hidden:
                self.clear(made, path)
                below = None
            else:
                below = self._find_below(path)
            if below is None:
                os.fchmod(made, 0o755)
                return None
            try:
                status = os.fstat(below)
                os.fchown(made, status.st_uid, status.st_gid)
                _copy_xattrs(below, made)
                os.fchmod(made, stat.S_IMODE(status.st_mode))
            finally:
                os.close(below)
            return status
        finally:
            os.close(made)

    def replace(self, fd: int, path: bytes, status: os.stat_result) -> None:
        """A new directory takes the place of what had `status`: if that hid the layers below, so must this."""
        if is_whiteout(status):
            self.clear(fd, path)

    def _is_below(self, path: bytes) -> bool:
        for lower in self._lowers:
            root = os.open(lower, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                found = openat2(root, path, os.O_PATH | os.O_NOFOLLOW, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
            except FileNotFoundError:
                continue
            except OSError:
                return False
            finally:
                os.close(root)
            try:
                return not is_whiteout(os.fstat(found))
            finally:
                os.close(found)
        return False

    def _find_below(self, path: bytes) -> int | None:
        for lower in self._lowers:
            root = os.open(lower, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return open_directory(root, path)
            except FileNotFoundError:
                continue
            except OSError:
                # Something that is no directory hides whatever lies further down.
                return None
            finally:
                os.close(root)
        return None


class RemovingWhiteouts:
    """Removal at once, for a layer unpacked onto a copy of those below."""

    def __init__(self) -> None:
        # What this layer brought, and the directories it did so in: never removed by its own whiteouts.
        self._brought: set[bytes] = set()

    def note(self, directory: bytes, name: bytes) -> None:
        path = _join(directory, name)
        brought = self._brought
        while path not in brought:
            brought.add(path)
            path = path.rpartition(b"/")[0]
            if not path:
                break

    def clear(self, fd: int, directory: bytes) -> None:
        above, _, name = directory.rpartition(b"/")
        self.note(above, name)
        self._empty(fd, directory)

    def delete(self, directories: Directories, directory: bytes, target: bytes) -> None:
        fd = directories.find(directory)
        if fd is not None:
            self._remove(fd, target, _join(directory, target))

    def finish(self, root: int) -> None:
        """Nothing is put off."""

    def adopt(self, fd: int, name: bytes, path: bytes) -> os.stat_result | None:
        if path not in self._brought:
            # A file of the layers below gives way, as it would under an overlay.
            remove_tree(fd, name)
        _make_directory(fd, name, path)
        return None

    def replace(self, fd: int, path: bytes, status: os.stat_result) -> None:
        """Nothing is hidden here: what was deleted is gone."""

    def _remove(self, fd: int, name: bytes, path: bytes) -> None:
        if path not in self._brought:
            remove_tree(fd, name)
            return
        try:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        except OSError:
            return
        try:
            self._empty(inner, path)
        finally:
            os.close(inner)

    def _empty(self, fd: int, path: bytes) -> None:
        # `fd` may be O_PATH, which cannot be listed.
        listing = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        try:
            for name in os.listdir(listing):
                base = os.fsencode(name)
                self._remove(listing, base, _join(path, base))
        finally:
            os.close(listing)


class PlainNames(RemovingWhiteouts):
    """No layer: ``.wh.`` means nothing, and nothing is removed but what an entry of the same name replaces."""

    def note(self, directory: bytes, name: bytes) -> None:
        """Nothing need be remembered."""

    def adopt(self, fd: int, name: bytes, path: bytes) -> os.stat_result | None:
        _make_directory(fd, name, path)
        return None


def set_opaque(fd: int) -> None:
    """Hide what the layers below have in this directory. `fd` may be O_PATH."""
    os.setxattr(fd_path(fd), _OPAQUE_ATTRIBUTE, b"y")


def target_of(name: bytes) -> bytes | None:
    """What a whiteout names; None for the bookkeeping of aufs, which still occurs in old images."""
    if name.startswith(_META):
        return None
    target = name[len(PREFIX) :]
    if target in _SPECIAL:
        raise InvalidArgument(f"invalid layer: whiteout {show(name)} names no file", object=show(name))
    return target


def _make_directory(fd: int, name: bytes, path: bytes) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=fd)
    except FileExistsError:
        raise InvalidArgument(
            f"invalid tar archive: {show(path)} is not a directory, yet entries lie below it", object=show(path)
        ) from None


def _clear_whiteout(fd: int, name: bytes) -> bool:
    try:
        if not is_whiteout(os.stat(name, dir_fd=fd, follow_symlinks=False)):
            return False
    except FileNotFoundError:
        return False
    os.unlink(name, dir_fd=fd)
    return True


def _copy_xattrs(source: int, target: int) -> None:
    for name in os.listxattr(source):
        if not name.startswith("trusted.overlay."):
            os.setxattr(target, name, os.getxattr(source, name))


def _ancestors(directory: bytes) -> list[bytes]:
    """The directory and those above it, but for the root."""
    parts = directory.split(b"/")
    return [b"/".join(parts[: at + 1]) for at in range(len(parts))]


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name
