"""Paths resolved beneath a directory descriptor: openat2(2), and magic links to descriptors.

Nothing an image or a container controls is ever joined to a host path as a string; it is resolved by the kernel with
RESOLVE_IN_ROOT, and what was opened is then used through its descriptor.
"""

import ctypes
import os
import stat

from wherry.kernel import syscalls

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_SYMLINK_NOFOLLOW = 0x100
AT_RECURSIVE = 0x8000


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def openat2(directory: int, path: syscalls.Path, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2); the descriptor is close-on-exec. EAGAIN (a rename raced with "..") is retried."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    name = os.fsencode(path)
    for attempt in range(128):
        try:
            return syscalls.syscall(
                syscalls.NR_OPENAT2, "openat2", path, directory, name, ctypes.byref(how), ctypes.sizeof(how)
            )
        except BlockingIOError:
            if attempt == 127:
                raise
    raise AssertionError


def open_in_root(root: int, path: syscalls.Path, flags: int = os.O_PATH, *, mode: int = 0) -> int:
    """`path` as a process chrooted to `root` would see it: absolute links and ".." stay inside. No magic links."""
    return openat2(root, path, flags, mode=mode, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def open_beneath(root: int, path: syscalls.Path, flags: int = os.O_PATH, *, mode: int = 0) -> int:
    """`path` beneath `root`; leaving it, by link or "..", is an error (EXDEV). No magic links."""
    return openat2(root, path, flags, mode=mode, resolve=RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)


def fd_path(fd: int) -> str:
    """A path that leads to what `fd` holds, for calls that take only paths. Needs a /proc of ours."""
    return f"/proc/self/fd/{fd}"


def make_directories(root: int, path: str, mode: int = 0o755) -> int:
    """Open `path` in `root`, making every directory that lacks; an O_PATH descriptor.

    Links are followed inside the root. A dangling link is an error (EEXIST): what it names is not made, since the
    name was chosen by whoever made the link.
    """
    try:
        return open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        pass
    current = os.dup(root)
    done = ""
    for part in path.split("/"):
        if part in ("", "."):
            continue
        done = f"{done}/{part}"
        try:
            following = open_in_root(root, done, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            try:
                if part == "..":
                    raise
                os.mkdir(part, mode, dir_fd=current)
                following = open_beneath(current, part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
            except BaseException:
                os.close(current)
                raise
        except BaseException:
            os.close(current)
            raise
        os.close(current)
        current = following
    return current


def make_file(root: int, path: str, mode: int = 0o755) -> int:
    """Open `path` in `root` (any kind but a directory), making an empty file and its directories when it lacks."""
    try:
        return open_in_root(root, path)
    except FileNotFoundError:
        pass
    head, _, name = path.rstrip("/").rpartition("/")
    directory = make_directories(root, head or "/", mode)
    try:
        try:
            os.close(
                os.open(
                    name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=directory
                )
            )
        except FileExistsError:
            pass
        return open_beneath(directory, name, os.O_PATH | os.O_NOFOLLOW)
    finally:
        os.close(directory)


def is_directory(fd: int) -> bool:
    """Whether `fd` (O_PATH will do) is a directory."""
    return stat.S_ISDIR(os.fstat(fd).st_mode)
