"""The tar stream of a container's files into a directory of this machine, for `wherry cp` out of it.

A container is an attacker: its archive may name `../x`, or put a symbolic link where a later entry expects a
directory. Each entry is therefore reached from a descriptor of the target directory, one component at a time, and
none of them may be a link (`tarfile`'s own filters follow paths by name).
"""

from __future__ import annotations

import os
import stat
import tarfile

from wherry.errors import InvalidArgument, PermissionDenied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = 1 << 18


class _Reader:
    """A file's `read` over chunks."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks: Iterator[bytes] = iter(chunks)
        self._rest = b""

    def read(self, size: int) -> bytes:
        parts = [self._rest]
        have = len(self._rest)
        while have < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            parts.append(chunk)
            have += len(chunk)
        data = b"".join(parts)
        self._rest = data[size:]
        return data[:size]


def unpack(chunks: Iterable[bytes], target: str, rename: str, owners: bool) -> int:
    """Unpacks below `target`. The first component of each name becomes `rename`; with "" it is dropped.

    The bytes of all files. Raises InvalidArgument for names that lead out.
    """
    size = 0
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    late: list[tuple[list[str], tarfile.TarInfo]] = []  # times of directories, once nothing is put into them any more
    try:
        with tarfile.open(fileobj=_Reader(chunks), mode="r|") as archive:  # type: ignore[call-overload]
            for info in archive:
                parts = _parts(info.name, rename)
                if not parts:
                    continue
                size += info.size if info.isreg() else 0
                _Entry(root, parts, info, rename).write(archive, owners)
                if info.isdir():
                    late.append((parts, info))
        for parts, info in reversed(late):
            _touch(root, parts, info)
    except tarfile.TarError as error:
        raise InvalidArgument(f"the container's archive is broken: {error}") from None
    finally:
        os.close(root)
    return size


def _parts(name: str, rename: str) -> list[str]:
    # The first component is what was asked for: a name, `.` for what a directory holds, nothing for the root.
    first, _, rest = name.partition("/")
    parts = [part for part in rest.split("/") if part not in ("", ".")]
    if ".." in parts or (rename == "" and first == ".."):
        raise InvalidArgument(f"the container's archive names {name!r}, which leads out of the target")
    return ([rename] if rename else []) + parts


def _walk(root: int, parts: list[str]) -> int:
    """A descriptor of the directory, made where it is missing; never through a link."""
    fd = os.dup(root)
    for part in parts:
        try:
            below = os.open(part, _DIRECTORY, dir_fd=fd)
        except FileNotFoundError:
            os.mkdir(part, 0o755, dir_fd=fd)
            below = os.open(part, _DIRECTORY, dir_fd=fd)
        except OSError as error:
            raise PermissionDenied(f"{part!r} in the target is no directory, or a link: {error.strerror}") from None
        finally:
            os.close(fd)
        fd = below
    return fd


def _touch(root: int, parts: list[str], info: tarfile.TarInfo) -> None:
    fd = _walk(root, parts)
    try:
        os.utime(fd, (info.mtime, info.mtime))
    finally:
        os.close(fd)


class _Entry:
    def __init__(self, root: int, parts: list[str], info: tarfile.TarInfo, rename: str) -> None:
        self._root, self._parts, self._info, self._rename = root, parts, info, rename
        self._name = parts[-1]

    def write(self, archive: tarfile.TarFile, owners: bool) -> None:
        info = self._info
        directory = _walk(self._root, self._parts[:-1])
        try:
            if info.isdir():
                self._directory(directory, owners)
                return
            self._clear(directory)
            if info.isreg():
                self._file(directory, archive)
            elif info.issym():
                os.symlink(info.linkname, self._name, dir_fd=directory)
            elif info.islnk():
                self._hard_link(directory)
                return
            elif info.isfifo():
                os.mkfifo(self._name, info.mode & 0o777, dir_fd=directory)
            else:
                device = os.makedev(info.devmajor, info.devminor)
                kind = stat.S_IFBLK if info.isblk() else stat.S_IFCHR
                os.mknod(self._name, kind | info.mode & 0o777, device, dir_fd=directory)
            if owners:
                os.chown(self._name, info.uid, info.gid, dir_fd=directory, follow_symlinks=False)
            os.utime(self._name, (info.mtime, info.mtime), dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(directory)

    def _clear(self, directory: int) -> None:
        """A file of that name is replaced, never written through."""
        try:
            found = os.lstat(self._name, dir_fd=directory)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(found.st_mode):
            raise InvalidArgument(f'cannot overwrite directory "{"/".join(self._parts)}" with non-directory')
        os.unlink(self._name, dir_fd=directory)

    def _directory(self, directory: int, owners: bool) -> None:
        fd = _walk(directory, [self._name])
        try:
            os.fchmod(fd, self._info.mode & 0o7777)
            if owners:
                os.fchown(fd, self._info.uid, self._info.gid)
        finally:
            os.close(fd)

    def _file(self, directory: int, archive: tarfile.TarFile) -> None:
        source = archive.extractfile(self._info)
        assert source is not None
        fd = os.open(self._name, _NEW_FILE, 0o600, dir_fd=directory)
        with open(fd, "wb") as file:
            while block := source.read(_READ):
                file.write(block)
            os.fchmod(fd, self._info.mode & 0o7777)

    def _hard_link(self, directory: int) -> None:
        parts = _parts(self._info.linkname, self._rename)
        if not parts:
            raise InvalidArgument(f"the container's archive has a hard link to {self._info.linkname!r}")
        source = _walk(self._root, parts[:-1])
        try:
            os.link(parts[-1], self._name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(source)
