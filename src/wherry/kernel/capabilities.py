"""Capabilities: names, the five sets (capabilities(7))."""

from __future__ import annotations

import ctypes

from wherry.kernel import syscalls
from wherry.kernel.processes import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    prctl,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NAMES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
)
BIT_OF = {f"CAP_{name}": bit for bit, name in enumerate(NAMES)}

_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def last() -> int:
    """The highest capability this kernel knows."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        return int(file.read())


def every() -> int:
    """All that this kernel knows: what a process has in a user namespace it just entered, whatever it had before."""
    return (1 << last() + 1) - 1


def get() -> tuple[int, int, int]:
    """The calling thread's effective, permitted and inheritable sets as bit masks."""
    header, data = _Header(_VERSION_3, 0), (_Data * 2)()
    syscalls.syscall(syscalls.NR_CAPGET, "capget", None, ctypes.byref(header), ctypes.byref(data))
    low, high = data
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def put(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) for the calling thread."""
    header, data = _Header(_VERSION_3, 0), (_Data * 2)()
    mask = 0xFFFFFFFF
    data[0] = _Data(effective & mask, permitted & mask, inheritable & mask)
    data[1] = _Data(effective >> 32, permitted >> 32, inheritable >> 32)
    syscalls.syscall(syscalls.NR_CAPSET, "capset", None, ctypes.byref(header), ctypes.byref(data))


def bounding(highest: int | None = None) -> int:
    """The bounding set."""
    top = last() if highest is None else highest
    return sum(1 << bit for bit in range(top + 1) if prctl(PR_CAPBSET_READ, bit))


def drop_bounding(bits: Iterable[int]) -> None:
    """Drop capabilities, by number, from the bounding set."""
    # Every container does this two dozen times: without the detour over prctl().
    for bit in bits:
        if syscalls.c_prctl(PR_CAPBSET_DROP, bit, 0, 0, 0) < 0:
            raise syscalls.failure(f"prctl PR_CAPBSET_DROP {bit}")


def set_ambient(mask: int) -> None:
    """Make the ambient set `mask`; each bit must be permitted and inheritable already."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    bit = 0
    while mask:
        if mask & 1:
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, bit)
        mask >>= 1
        bit += 1


def is_effective(name: str) -> bool:
    """Whether the calling thread has the capability in its effective set."""
    return bool(get()[0] >> BIT_OF[name] & 1)
