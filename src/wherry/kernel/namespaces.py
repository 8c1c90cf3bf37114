"""Namespaces: the clone flags, setns(2), unshare(2), and names held by the UTS namespace."""

import os

from wherry.kernel import syscalls
from wherry.kernel.syscalls import check

CLONE_VM = 0x100
CLONE_VFORK = 0x4000
CLONE_PARENT = 0x8000
CLONE_NEWTIME = 0x80
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

FLAG_OF = {
    "mount": CLONE_NEWNS,
    "cgroup": CLONE_NEWCGROUP,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "user": CLONE_NEWUSER,
    "pid": CLONE_NEWPID,
    "network": CLONE_NEWNET,
    "time": CLONE_NEWTIME,
}
"""The runtime specification's names of namespaces."""
PROC_NAME_OF = {"mount": "mnt", "network": "net"}
"""Names under /proc/PID/ns where they differ."""


def setns(fd: int, flags: int = 0) -> None:
    """Join the namespace `fd` refers to, or with a pidfd every namespace in `flags` of that process."""
    check(syscalls.c_setns(fd, flags), "setns")


def unshare(flags: int) -> None:
    """unshare(2)."""
    check(syscalls.c_unshare(flags), "unshare")


def open_namespace(pid: int | str, kind: str) -> int:
    """A close-on-exec descriptor of the `kind` (specification's name) namespace of a process."""
    return os.open(f"/proc/{pid}/ns/{PROC_NAME_OF.get(kind, kind)}", os.O_RDONLY | os.O_CLOEXEC)


def set_domain_name(name: str) -> None:
    """setdomainname(2)."""
    data = os.fsencode(name)
    check(syscalls.c_setdomainname(data, len(data)), "setdomainname", name)
