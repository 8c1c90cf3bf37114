"""A tree copied by descriptors: owners, modes, times, attributes, hard links and holes kept, no link followed."""

import errno
import os
import stat

from wherry.archive._sparse import data_map
from wherry.archive._walk import Directory, open_directory, walk
from wherry.kernel.paths import fd_path

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 24
# Overlay's marks are not part of what it shows.
_NOT_COPIED = ("trusted.overlay.", "user.overlay.")
# Different file systems, or one that has no such call.
_NO_RANGE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def copy_tree(source: int, target: int) -> None:
    """Copy everything below the directory `source` into the empty directory `target`, which takes its attributes too.

    Sockets are left out. FileExistsError when `target` already has an entry of the same name.
    """
    linked: dict[tuple[int, int], bytes] = {}
    directories = []
    for directory in walk(source, pseudo=False):
        copy = open_directory(target, directory.path)
        try:
            for name, status in directory.entries:
                _copy_entry(directory, copy, name, status, target, linked)
            _copy_xattrs(fd_path(directory.fd), fd_path(copy))
        finally:
            os.close(copy)
        directories.append((directory.path, os.fstat(directory.fd)))
    for path, status in reversed(directories):
        fd = open_directory(target, path)
        try:
            os.fchown(fd, status.st_uid, status.st_gid)
            os.fchmod(fd, stat.S_IMODE(status.st_mode))
            os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(fd)


def _copy_entry(
    directory: Directory,
    copy: int,
    name: bytes,
    status: os.stat_result,
    target: int,
    linked: dict[tuple[int, int], bytes],
) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:
        os.mkdir(name, 0o700, dir_fd=copy)
        return
    if status.st_nlink > 1:
        path = directory.path + b"/" + name if directory.path else name
        first = linked.setdefault((status.st_dev, status.st_ino), path)
        if first is not path:
            os.link(first, name, src_dir_fd=target, dst_dir_fd=copy, follow_symlinks=False)
            return
    try:
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.fd)
    except FileNotFoundError:
        return
    try:
        status = os.fstat(handle)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            _copy_file(handle, copy, name, status)
            return
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(b"", dir_fd=handle), name, dir_fd=copy)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO):
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=copy)
        else:
            return
        os.chown(name, status.st_uid, status.st_gid, dir_fd=copy, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            _chmod(copy, name, status)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=copy, follow_symlinks=False)
    finally:
        os.close(handle)


def _chmod(directory: int, name: bytes, status: os.stat_result) -> None:
    """Of a device or fifo, which must not be opened, nor may a link that took its name be followed."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.chmod(fd_path(fd), stat.S_IMODE(status.st_mode))
    finally:
        os.close(fd)


def _copy_file(handle: int, directory: int, name: bytes, status: os.stat_result) -> None:
    old = os.open(fd_path(handle), os.O_RDONLY | os.O_CLOEXEC)
    try:
        new = os.open(name, _CREATE, 0o600, dir_fd=directory)
        try:
            size = status.st_size
            sparse = status.st_blocks * 512 < size
            for offset, length in data_map(old, size) if sparse else [(0, size)]:
                _copy_range(old, new, offset, length)
            os.ftruncate(new, size)
            os.fchown(new, status.st_uid, status.st_gid)
            _copy_xattrs(old, new)
            os.fchmod(new, stat.S_IMODE(status.st_mode))
            os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(new)
    finally:
        os.close(old)


def _copy_range(old: int, new: int, offset: int, length: int) -> None:
    end = offset + length
    ranges = True
    while offset < end:
        part = min(end - offset, _CHUNK)
        if ranges:
            try:
                done = os.copy_file_range(old, new, part, offset, offset)
            except OSError as error:
                if error.errno not in _NO_RANGE:
                    raise
                ranges = False
                continue
        else:
            done = os.pwrite(new, os.pread(old, min(part, 1 << 20), offset), offset)
        if not done:
            return
        offset += done


def _copy_xattrs(source: int | str, target: int | str) -> None:
    try:
        names = os.listxattr(source)
    except OSError:
        return
    for name in names:
        if not name.startswith(_NOT_COPIED):
            try:
                os.setxattr(target, name, os.getxattr(source, name))
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.ENODATA):
                    raise
