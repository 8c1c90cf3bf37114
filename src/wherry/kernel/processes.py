"""Processes: pidfds, exit status for those who are not the parent, prctl, and what /proc says."""

import ctypes
import os
import select

from wherry.kernel import syscalls
from wherry.kernel.syscalls import check, syscall

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

CLOSE_RANGE_CLOEXEC = 4

# _IOWR(0xFF, 11, struct pidfd_info): the size in the number tells the kernel which version of the struct we know.
_PIDFD_INFO_EXIT = 1 << 3


class _PidfdInfo(ctypes.Structure):
    _fields_ = [("mask", ctypes.c_uint64), ("cgroupid", ctypes.c_uint64)] + [
        (name, ctypes.c_uint32)
        for name in (
            "pid",
            "tgid",
            "ppid",
            "ruid",
            "rgid",
            "euid",
            "egid",
            "suid",
            "sgid",
            "fsuid",
            "fsgid",
            "exit_code",
        )
    ]


_PIDFD_GET_INFO = (3 << 30) | (ctypes.sizeof(_PidfdInfo) << 16) | (0xFF << 8) | 11

_ioctl = syscalls.libc.ioctl
_ioctl.restype = ctypes.c_int


def prctl(option: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    """prctl(2)."""
    return check(syscalls.c_prctl(option, a, b, c, d), f"prctl {option}")


def set_name(name: str) -> None:
    """The calling thread's name as `ps` and /proc/PID/comm show it (at most 15 bytes)."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    prctl(PR_SET_NAME, ctypes.addressof(buffer))


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """close_range(2); with CLOSE_RANGE_CLOEXEC descriptors are only marked."""
    syscall(syscalls.NR_CLOSE_RANGE, "close_range", None, first, last, flags)


def pidfd_open(pid: int) -> int:
    """A pidfd (always close-on-exec); readable once the process is a zombie or gone. ESRCH: no such process."""
    return syscall(syscalls.NR_PIDFD_OPEN, "pidfd_open", str(pid), pid, 0)


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """Signal exactly the process the pidfd refers to. ProcessLookupError once it is reaped."""
    syscall(syscalls.NR_PIDFD_SEND_SIGNAL, "pidfd_send_signal", None, pidfd, signal, None, 0)


def pidfd_exit_status(pidfd: int) -> int | None:
    """The wait status (as os.waitpid gives it) of a process that was reaped by anyone, from a pidfd held meanwhile.

    None while it lives or is a zombie, and on kernels before 6.15 (ioctl_pidfd(2), PIDFD_INFO_EXIT).
    """
    info = _PidfdInfo(mask=_PIDFD_INFO_EXIT)
    if _ioctl(ctypes.c_int(pidfd), ctypes.c_ulong(_PIDFD_GET_INFO), ctypes.byref(info)) < 0:
        return None
    status: int = info.exit_code
    return status if info.mask & _PIDFD_INFO_EXIT else None


def pidfd_has_exited(pidfd: int) -> bool:
    """Whether the process is a zombie or gone."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def shell_status(status: int) -> int:
    """A wait status as a shell gives it: the exit code, or 128 + the signal."""
    return 128 + (status & 0x7F) if status & 0x7F else (status >> 8) & 0xFF


class Stat:
    """A few fields of /proc/PID/stat. `start_time` (clock ticks since boot) tells a pid from its next owner."""

    __slots__ = ("parent", "start_time", "state")

    def __init__(self, state: str, parent: int, start_time: int) -> None:
        self.state = state
        self.parent = parent
        self.start_time = start_time


def stat(pid: int | str) -> Stat | None:
    """What /proc/PID/stat says, or None when there is no such process."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        text = os.read(fd, 4096)
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)
    # The name may hold anything, brackets and spaces too: fields are counted from its closing bracket.
    fields = text[text.rindex(b")") + 2 :].split()
    return Stat(fields[0].decode(), int(fields[1]), int(fields[19]))


def zombie_status(pid: int, start_time: int) -> int | None:
    """The wait status of a zombie, which /proc shows to root whoever its parent is; None when it is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(4096) or b""
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    if fields[0] != b"Z" or int(fields[19]) != start_time:
        return None
    return int(fields[49])


def start_time(pid: int) -> int | None:
    """Start of the process in clock ticks since boot, or None."""
    found = stat(pid)
    return None if found is None else found.start_time
