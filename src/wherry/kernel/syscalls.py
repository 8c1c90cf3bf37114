"""The one place that calls into libc, and that turns errno into OSError.

ctypes prototypes are declared here once, at import. Imports are kept tiny: the monitor and a cold
`wherry-runtime` load this.
"""

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
# Keeps the GIL: for calls after which this process is two (clone), where a hand-over to another thread must not happen.
_pylibc = ctypes.PyDLL(None, use_errno=True)

ARCH = os.uname().machine
_GENERIC = ARCH != "x86_64"  # aarch64, riscv64, loongarch64 share asm-generic numbers

NR_CLONE = 220 if _GENERIC else 56
NR_PIVOT_ROOT = 41 if _GENERIC else 155
NR_CAPGET = 90 if _GENERIC else 125
NR_CAPSET = 91 if _GENERIC else 126
NR_KEYCTL = 219 if _GENERIC else 250
NR_SECCOMP = 277 if _GENERIC else 317
NR_PERSONALITY = 92 if _GENERIC else 135
# Numbers above 424 are the same on every architecture.
NR_PIDFD_SEND_SIGNAL = 424
NR_OPEN_TREE = 428
NR_MOVE_MOUNT = 429
NR_FSOPEN = 430
NR_FSCONFIG = 431
NR_FSMOUNT = 432
NR_PIDFD_OPEN = 434
NR_CLONE3 = 435
NR_CLOSE_RANGE = 436
NR_OPENAT2 = 437
NR_PIDFD_GETFD = 438
NR_MOUNT_SETATTR = 442

_long, _int, _str, _ptr, _ulong = ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_ulong

_syscall = libc.syscall
_syscall.restype = _long
_pysyscall = _pylibc.syscall
_pysyscall.restype = _long
_pysyscall.argtypes = (_long, _ulong, _ptr, _ptr, _ptr, _ptr)


def _prototype(name: str, *arguments: type) -> "ctypes._NamedFuncPointer":
    function = getattr(libc, name)
    function.restype = _int
    function.argtypes = arguments
    return function  # type: ignore[no-any-return]


c_mount = _prototype("mount", _str, _str, _str, _ulong, _str)
c_umount2 = _prototype("umount2", _str, _int)
c_setns = _prototype("setns", _int, _int)
c_unshare = _prototype("unshare", _int)
c_prctl = _prototype("prctl", _int, _ulong, _ulong, _ulong, _ulong)
c_setdomainname = _prototype("setdomainname", _str, ctypes.c_size_t)

Path = str | bytes | os.PathLike[str]


def failure(call: str, path: "Path | None" = None) -> OSError:
    """The OSError for ctypes' errno: `[Errno 2] mount: No such file or directory: '/path'`."""
    number = ctypes.get_errno()
    text = f"{call}: {os.strerror(number)}"
    return OSError(number, text) if path is None else OSError(number, text, os.fsdecode(path))


def check(result: int, call: str, path: "Path | None" = None) -> int:
    """`result`, or OSError naming the call and the path when it is -1."""
    if result < 0:
        raise failure(call, path)
    return result


def syscall(number: int, call: str, path: "Path | None", *arguments: object) -> int:
    """syscall(2). Integers are passed as longs: libc's `syscall` is variadic and would truncate plain ints."""
    converted = [_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = _syscall(_long(number), *converted)
    if result < 0:
        raise failure(call, path)
    return result


def clone(flags: int) -> int:
    """fork(2) with clone(2)'s flags and no new stack: 0 in the child. Only for a single-threaded process."""
    result: int = _pysyscall(NR_CLONE, flags, None, None, None, None)
    if result < 0:
        raise failure("clone")
    return result


class _CloneArgs(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in ("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls")
        + ("set_tid", "set_tid_size", "cgroup")
    ]


_CLONE_INTO_CGROUP = 0x200000000


def clone_into(flags: int, signal: int, cgroup: int) -> int:
    """Like `clone`, the child starting in the v2 cgroup whose directory descriptor is `cgroup` (clone3(2))."""
    arguments = _CloneArgs(flags=flags | _CLONE_INTO_CGROUP, exit_signal=signal, cgroup=cgroup)
    result: int = _pysyscall(NR_CLONE3, ctypes.addressof(arguments), ctypes.sizeof(arguments), None, None, None)
    if result < 0:
        raise failure("clone3")
    return result


def fsencode(path: "Path | None") -> bytes | None:
    """`path` for a char pointer; None stays NULL."""
    return None if path is None else os.fsencode(path)
