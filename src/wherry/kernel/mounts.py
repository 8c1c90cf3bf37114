"""mount(2) and the descriptor-based mount API (fsopen, fsconfig, fsmount, open_tree, move_mount, mount_setattr)."""

import ctypes
import os

from wherry.kernel import syscalls
from wherry.kernel.paths import AT_EMPTY_PATH, AT_RECURSIVE
from wherry.kernel.syscalls import Path, check, fsencode, syscall

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 32768
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_I_VERSION = 1 << 23
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

MNT_FORCE = 1
MNT_DETACH = 2
MNT_EXPIRE = 4
UMOUNT_NOFOLLOW = 8

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_SYMLINKS = 0x10
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOVE_MOUNT_BENEATH = 0x200

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_SET_BINARY = 2
_FSCONFIG_SET_FD = 5
_FSCONFIG_CMD_CREATE = 6


class _MountAttr(ctypes.Structure):
    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


def mount(source: Path | None, target: Path, fstype: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2)."""
    result = syscalls.c_mount(fsencode(source), fsencode(target), fsencode(fstype), flags, fsencode(data))
    check(result, f"mount {fstype}" if fstype else "mount", target)


def umount(target: Path, flags: int = 0) -> None:
    """umount2(2)."""
    check(syscalls.c_umount2(fsencode(target), flags), "umount", target)


def pivot_root(new_root: Path, put_old: Path) -> None:
    """pivot_root(2). (".", ".") with the new root as working directory stacks the old root on top of it."""
    syscall(syscalls.NR_PIVOT_ROOT, "pivot_root", new_root, os.fsencode(new_root), os.fsencode(put_old))


def fsopen(fstype: str) -> int:
    """A file system context (close-on-exec) to configure with `fsconfig_*` and to turn into a mount by `fsmount`."""
    return syscall(syscalls.NR_FSOPEN, f"fsopen {fstype}", None, os.fsencode(fstype), _FSOPEN_CLOEXEC)


def fsconfig_string(context: int, key: str, value: str) -> None:
    """Set `key=value`."""
    _fsconfig(context, _FSCONFIG_SET_STRING, key, os.fsencode(value), 0)


def fsconfig_flag(context: int, key: str) -> None:
    """Set a parameter that takes no value."""
    _fsconfig(context, _FSCONFIG_SET_FLAG, key, None, 0)


def fsconfig_fd(context: int, key: str, fd: int) -> None:
    """Set a parameter to what a descriptor refers to (overlay's layers: Linux 6.13)."""
    _fsconfig(context, _FSCONFIG_SET_FD, key, None, fd)


def fsconfig_create(context: int) -> None:
    """Make the superblock."""
    _fsconfig(context, _FSCONFIG_CMD_CREATE, None, None, 0)


def _fsconfig(context: int, command: int, key: str | None, value: bytes | None, aux: int) -> None:
    try:
        name = None if key is None else key.encode()
        syscall(syscalls.NR_FSCONFIG, "fsconfig", None, context, command, name, value, aux)
    except OSError as error:
        said = fs_messages(context)
        what = f"fsconfig {key or 'create'}: {said or os.strerror(error.errno or 0)}"
        raise OSError(error.errno, what, None if value is None else os.fsdecode(value)) from None


def fs_messages(context: int) -> str:
    """What the kernel had to say about the context, joined by "; ". Each read gives one message ("e text")."""
    found = []
    while True:
        try:
            found.append(os.read(context, 4096).decode(errors="replace").strip().removeprefix("e "))
        except OSError:
            return "; ".join(found)


def fsmount(context: int, attributes: int = 0) -> int:
    """A detached mount (close-on-exec O_PATH-like descriptor) of a created context. `attributes`: MOUNT_ATTR_*."""
    return syscall(syscalls.NR_FSMOUNT, "fsmount", None, context, _FSMOUNT_CLOEXEC, attributes)


def open_tree(
    directory: int, path: Path, *, recursive: bool = False, clone: bool = True, nofollow: bool = False
) -> int:
    """A detached copy (clone) of the mount at `path`, or a descriptor of it. "" is `directory` itself."""
    flags = os.O_CLOEXEC | AT_EMPTY_PATH | (OPEN_TREE_CLONE if clone else 0)
    flags |= (AT_RECURSIVE if recursive else 0) | (0x100 if nofollow else 0)
    return syscall(syscalls.NR_OPEN_TREE, "open_tree", path, directory, os.fsencode(path), flags)


def move_mount(tree: int, directory: int, path: Path = "", *, flags: int = 0) -> None:
    """Attach a detached mount `tree` at `path` ("" is the descriptor `directory` itself, so no path is walked)."""
    flags |= MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    syscall(syscalls.NR_MOVE_MOUNT, "move_mount", path, tree, b"", directory, os.fsencode(path), flags)


def mount_setattr(
    directory: int,
    path: Path = "",
    *,
    set: int = 0,
    clear: int = 0,
    propagation: int = 0,
    userns: int = 0,
    recursive: bool = False,
) -> None:
    """mount_setattr(2). `userns`: the descriptor of a user namespace, with MOUNT_ATTR_IDMAP in `set`."""
    attributes = _MountAttr(set, clear, propagation, userns)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    size = ctypes.sizeof(attributes)
    name = os.fsencode(path)
    syscall(syscalls.NR_MOUNT_SETATTR, "mount_setattr", path, directory, name, flags, ctypes.byref(attributes), size)
