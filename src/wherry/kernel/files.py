"""Which file system a descriptor is on, and writes that land only there (CVE-2025-52881)."""

import ctypes
import os

from wherry.kernel import syscalls

PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
CGROUP_SUPER_MAGIC = 0x27E0EB
CGROUP2_SUPER_MAGIC = 0x63677270
DEVPTS_SUPER_MAGIC = 0x1CD1
NSFS_MAGIC = 0x6E736673


class _Statfs(ctypes.Structure):
    # f_type is the first word on every 64-bit Linux; the rest (120 bytes with padding) is not of interest.
    _fields_ = [("f_type", ctypes.c_long), ("rest", ctypes.c_char * 248)]


_fstatfs = syscalls.libc.fstatfs
_fstatfs.restype = ctypes.c_int
_fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)
_syncfs = syscalls.libc.syncfs
_syncfs.restype = ctypes.c_int
_syncfs.argtypes = (ctypes.c_int,)


def magic(fd: int) -> int:
    """The file system's magic number (statfs(2) f_type); O_PATH descriptors will do."""
    buffer = _Statfs()
    syscalls.check(_fstatfs(fd, ctypes.addressof(buffer)), "fstatfs")
    kind: int = buffer.f_type
    return kind


def require(fd: int, expected: int, path: str) -> None:
    """OSError(EXDEV) when `fd` is not on the expected file system: `path` leads elsewhere than its name says."""
    if magic(fd) != expected:
        raise OSError(18, "fstatfs: not on the file system its path promises", path)


def write_all(fd: int, data: bytes) -> None:
    """Write every byte."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def syncfs(fd: int) -> None:
    """syncfs(2): everything written to the file system that holds `fd` reaches the disk."""
    syscalls.check(_syncfs(fd), "syncfs")
