"""COPY, ADD and WORKDIR carried out: files into a writable tree, through descriptors, never outside it."""

import errno
import io
import os
import stat
import tarfile
import time
from contextlib import suppress
from typing import BinaryIO

from wherry.archive import UnpackOptions, unpack
from wherry.build.graph import Copy
from wherry.build.ignore import Ignore
from wherry.build.modes import Mode, parse_mode
from wherry.build.selection import Selected, excluding, select
from wherry.build.trees import Entry, SourceTree
from wherry.errors import InvalidArgument, WherryError
from wherry.images.compression import decompressed
from wherry.kernel.paths import fd_path, open_in_root

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CHUNK = 1 << 26
_NO_RANGE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_KEPT_XATTRS = ("user.", "security.capability")
_MAX_DEPTH = 255


class Copier:
    """One COPY or ADD into the tree `root`. `owner` None: as in the source."""

    def __init__(self, root: int, operation: Copy, owner: tuple[int, int] | None) -> None:
        self._root, self._operation, self._owner = root, operation, owner
        self._mode: Mode | None = parse_mode(operation.chmod) if operation.chmod else None
        self._linked: dict[tuple[int, int], str] = {}
        self._epoch = time.time_ns()

    def run(self, trees: list[SourceTree]) -> None:
        """`trees` are the inputs of the operation after the first."""
        operation = self._operation
        excludes = excluding(operation.excludes)
        chosen: list[tuple[SourceTree, Selected]] = []
        for index, text in operation.sources:
            tree = trees[index - 1]
            chosen += [(tree, one) for one in select(tree, text, parents=operation.parents)]
        many = len(chosen) + len(operation.files) > 1
        if not chosen and not operation.files:
            return
        target = operation.target
        if many and not target.endswith("/") and not operation.parents:
            target += "/"
        for tree, one in chosen:
            self._one(tree, one, target, excludes)
        for inline in operation.files:
            path = target + inline.name if target.endswith("/") else target
            self._inline(path, inline.data)

    def _one(self, tree: SourceTree, one: Selected, target: str, excludes: Ignore | None) -> None:
        if one.below:
            self._parents(tree, one, target)
            target = f"{target.rstrip('/')}/{os.fsdecode(one.below)}" + ("" if one.directory else "/")
        if one.directory:
            self._directory(tree, one, target, excludes)
        elif self._unpacks(tree) and self._unpack(tree, one, target):
            return
        else:
            for entry in tree.entries(one.real, excludes=excludes):
                self._file(tree, entry, self._file_target(target, os.fsdecode(one.name)))

    # -- directories ------------------------------------------------------------------------------------------------

    def _directory(self, tree: SourceTree, one: Selected, target: str, excludes: Ignore | None) -> None:
        os.close(self.make_directories(target))
        top = target.rstrip("/")
        made: list[tuple[str, os.stat_result]] = []
        current, current_fd = "", -1
        try:
            for entry in tree.entries(one.real, excludes=excludes):
                if not entry.name:
                    continue
                parent, _, name = os.fsdecode(entry.name).rpartition("/")
                if parent != current or current_fd < 0:
                    if current_fd >= 0:
                        os.close(current_fd)
                        current_fd = -1
                    current, current_fd = parent, self._inner_directory(f"{top}/{parent}" if parent else top or "/")
                if stat.S_ISDIR(entry.status.st_mode):
                    if self._make_inner(current_fd, name, entry, tree):
                        made.append((f"{top}/{parent}/{name}" if parent else f"{top}/{name}", entry.status))
                else:
                    self._entry(tree, entry, current_fd, name, f"{top}/{os.fsdecode(entry.name)}")
        finally:
            if current_fd >= 0:
                os.close(current_fd)
        for path, status in reversed(made):
            with suppress(OSError):
                self._set_time(path, status.st_mtime_ns)

    def _inner_directory(self, path: str) -> int:
        return open_in_root(self._root, path, _DIRECTORY)

    def _make_inner(self, parent: int, name: str, entry: Entry, tree: SourceTree) -> bool:
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            os.mkdir(name, 0o700, dir_fd=parent)
        else:
            if not stat.S_ISDIR(found.st_mode):
                raise InvalidArgument(f"cannot copy to non-directory: {name}", object=name)
        fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        try:
            os.fchown(fd, *(self._owner or tree.owner(entry.status)))
            os.fchmod(fd, self._mode(entry.status.st_mode) if self._mode else stat.S_IMODE(entry.status.st_mode))
        finally:
            os.close(fd)
        return True

    def _parents(self, tree: SourceTree, one: Selected, target: str) -> None:
        """The directories between, with the looks they have in the source."""
        parts = os.fsdecode(one.below).split("/")
        base = os.fsdecode(one.real)
        tail = len(parts) if one.directory else len(parts) + 1
        source_parts = base.split("/")
        start = len(source_parts) - tail
        os.close(self.make_directories(target))
        for count in range(1, len(parts) + 1):
            source = "/".join(source_parts[: start + count]) if start >= 0 else ""
            path = target.rstrip("/") + "/" + "/".join(parts[:count])
            fd = self.make_directories(path)
            try:
                if source:
                    status = tree.status(os.fsencode(source))
                    if stat.S_ISDIR(status.st_mode):
                        os.chown(fd_path(fd), *(self._owner or tree.owner(status)))
                        mode = self._mode(status.st_mode) if self._mode else stat.S_IMODE(status.st_mode)
                        os.chmod(fd_path(fd), mode)
            finally:
                os.close(fd)

    def make_directories(self, path: str) -> int:
        """`path` in the root, opened; what lacks is made, owned by the owner asked for."""
        return make_directories(self._root, path, self._owner or (0, 0), self._mode)

    # -- files ------------------------------------------------------------------------------------------------------

    def _file_target(self, target: str, name: str) -> str:
        if target.endswith("/"):
            return target + name
        try:
            fd = open_in_root(self._root, target, os.O_PATH | os.O_DIRECTORY)
        except OSError:
            return target
        os.close(fd)
        return f"{target}/{name}"

    def _file(self, tree: SourceTree, entry: Entry, path: str) -> None:
        directory, _, name = path.rpartition("/")
        parent = self.make_directories(directory or "/")
        try:
            self._entry(tree, entry, parent, name, path)
        finally:
            os.close(parent)

    def _entry(self, tree: SourceTree, entry: Entry, parent: int, name: str, path: str) -> None:
        """Anything but a directory, in the place of what is there."""
        status = entry.status
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            self._clear(parent, name)
        if status.st_nlink > 1:
            first = self._linked.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                try:
                    os.link(first.lstrip("/"), name, src_dir_fd=self._root, dst_dir_fd=parent, follow_symlinks=False)
                    return
                except OSError:
                    pass
        owner = self._owner or tree.owner(status)
        if stat.S_ISREG(status.st_mode):
            self._regular(tree, entry, parent, name, owner)
            return
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(entry.path, dir_fd=tree.root), os.fsencode(name), dir_fd=parent)
        elif tree.foreign_owners:
            raise InvalidArgument(f"{os.fsdecode(entry.path)} is neither a file, a directory nor a link", object=path)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=parent)
        os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=(status.st_mtime_ns, status.st_mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _clear(self, parent: int, name: str) -> None:
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            raise InvalidArgument(f"cannot copy a file over the directory {name}", object=name) from None

    def _regular(self, tree: SourceTree, entry: Entry, parent: int, name: str, owner: tuple[int, int]) -> None:
        old = open_in_root(tree.root, entry.path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            status = os.fstat(old)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidArgument(f"{os.fsdecode(entry.path)} changed while it was copied")
            try:
                new = os.open(name, _CREATE, 0o600, dir_fd=parent)
            except FileExistsError:
                self._clear(parent, name)
                new = os.open(name, _CREATE, 0o600, dir_fd=parent)
            try:
                _copy_data(old, new, status.st_size)
                os.fchown(new, *owner)
                for attribute in os.listxattr(old):
                    if attribute.startswith(_KEPT_XATTRS):
                        with suppress(OSError):
                            os.setxattr(new, attribute, os.getxattr(old, attribute))
                mode = self._mode(status.st_mode) if self._mode else stat.S_IMODE(status.st_mode)
                os.fchmod(new, mode)
                os.utime(new, ns=(status.st_mtime_ns, status.st_mtime_ns))
            finally:
                os.close(new)
        finally:
            os.close(old)

    def _inline(self, path: str, data: bytes) -> None:
        directory, _, name = path.rpartition("/")
        parent = self.make_directories(directory or "/")
        try:
            self._clear(parent, name)
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fchown(file.fileno(), *(self._owner or (0, 0)))
                os.fchmod(file.fileno(), self._mode(stat.S_IFREG | 0o644) if self._mode else 0o644)
        finally:
            os.close(parent)

    # -- archives ---------------------------------------------------------------------------------------------------

    def _unpacks(self, tree: SourceTree) -> bool:
        return self._operation.unpack == "always" or (self._operation.unpack == "auto" and not tree.remote)

    def _unpack(self, tree: SourceTree, one: Selected, target: str) -> bool:
        """Unpack a tar archive, compressed or not; False where the source is none."""
        fd = open_in_root(tree.root, one.real, os.O_RDONLY | os.O_NOFOLLOW)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode) or not is_archive(file):
                if self._operation.unpack == "always":
                    raise InvalidArgument(f"{os.fsdecode(one.real)} is no tar archive", hint="leave --unpack out")
                return False
            file.seek(0)
            path = target.rstrip("/") or "/"
            os.close(self.make_directories(path))
            with decompressed(file, name=os.fsdecode(one.name)) as tar:
                unpack(tar, self._root, UnpackOptions(path=path, owner=self._owner))
        return True

    def _set_time(self, path: str, ns: int) -> None:
        fd = open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.utime(fd, ns=(ns, ns))
        finally:
            os.close(fd)


def make_directories(root: int, path: str, owner: tuple[int, int], mode: Mode | None = None) -> int:
    """An O_PATH descriptor of `path` in `root`; directories that lack are made with `owner`."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if len(parts) > _MAX_DEPTH:
        raise InvalidArgument(f"{path} is too deep", object=path)
    current = open_in_root(root, ".", os.O_PATH | os.O_DIRECTORY)
    for count, part in enumerate(parts, 1):
        try:
            following = open_in_root(root, "/".join(parts[:count]), os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            try:
                # A dangling link is not followed into being: its maker chose the name.
                os.mkdir(part, 0o755, dir_fd=current)
                following = open_in_root(current, part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
                os.chown(fd_path(following), *owner)
                os.chmod(fd_path(following), mode(stat.S_IFDIR | 0o755) if mode else 0o755)
            except FileExistsError:
                raise InvalidArgument(f"{path} leads through a link to nothing", object=path) from None
            finally:
                os.close(current)
        except NotADirectoryError:
            os.close(current)
            raise InvalidArgument(f"cannot copy to non-directory: {path}", object=path) from None
        else:
            os.close(current)
        current = following
    return current


def is_archive(file: BinaryIO) -> bool:
    """Whether a file is a tar archive, compressed or not: its first header is one."""
    try:
        head = decompressed(file).read(tarfile.BLOCKSIZE)
        if len(head) < tarfile.BLOCKSIZE or not any(head):
            return False
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, WherryError, OSError, io.UnsupportedOperation, ValueError):
        return False
    return True


def _copy_data(old: int, new: int, size: int) -> None:
    done = 0
    while done < size:
        try:
            count = os.copy_file_range(old, new, min(_CHUNK, size - done))
        except OSError as error:
            if error.errno not in _NO_RANGE:
                raise
            count = os.write(new, os.read(old, min(1 << 20, size - done)))
        if not count:
            return
        done += count
