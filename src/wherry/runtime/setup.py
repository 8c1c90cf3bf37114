"""Namespaces joined, the cgroup entered, and what is written through the host's /proc, before any mount is made.

Writes to /proc/sys and /proc/self go through the host's own procfs, opened before the container's root exists: nothing
a container mounts can stand in their way (CVE-2025-52881).
"""

from __future__ import annotations

import _socket
import fcntl
import os
import struct

from wherry.kernel import files, mounts, namespaces, syscalls
from wherry.kernel.paths import AT_FDCWD
from wherry.kernel.processes import PR_SET_DUMPABLE, prctl
from wherry.runtime.scene import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from wherry.runtime.scene import Scene
else:
    from wherry.kernel.tuples import NamedTuple

_SIGCHLD = 17


def write_proc(path: str, text: str) -> None:
    """Write one value to a file of the host's procfs."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        files.require(fd, files.PROC_SUPER_MAGIC, path)
        os.write(fd, text.encode())
    finally:
        os.close(fd)


class EnterCgroup(NamedTuple):
    """Move this process into its cgroups; before a cgroup namespace is made, whose root they become.

    The parent sends the files, opened (kernel.cgroups, `entry_fds`), once the limits are set, while this process makes
    its mounts. Into v2's, clone3 has placed the process already.
    """

    def describe(self) -> str:
        return "enter the cgroup"

    def apply(self, scene: Scene) -> None:
        for fd in scene.hear(b"cgroup"):
            os.write(fd, b"0")
            os.close(fd)


class Fork(NamedTuple):
    """Go on in a new process, a sibling of this one: for namespaces whose making or joining shows only in children."""

    flags: int

    def describe(self) -> str:
        return "fork"

    def apply(self, scene: Scene) -> None:
        pid = syscalls.clone(self.flags | namespaces.CLONE_PARENT | _SIGCHLD)
        if pid:
            scene.tell({"pid": pid})
            os._exit(0)
        prctl(PR_SET_DUMPABLE, 0)


class AwaitGo(NamedTuple):
    """The parent has recorded this process."""

    def describe(self) -> str:
        return "wait to be recorded"

    def apply(self, scene: Scene) -> None:
        scene.hear(b"go")


class BorrowMounts(NamedTuple):
    """Make the container's mounts in a namespace that is given up again: the one at `path` ("": ours) is not its own.

    There they would change what everybody in that namespace sees, and stay when the container has ended.
    """

    path: str

    def describe(self) -> str:
        return "make mounts aside"

    def apply(self, scene: Scene) -> None:
        scene.mounts = os.open(self.path or "/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        namespaces.unshare(namespaces.CLONE_NEWNS)


class ReturnMounts(NamedTuple):
    """Enter the namespace BorrowMounts remembered, and there a root that is a copy of all mounts, attached nowhere."""

    def describe(self) -> str:
        return "enter the mount namespace"

    def apply(self, scene: Scene) -> None:
        tree = mounts.open_tree(AT_FDCWD, "/", recursive=True)
        namespaces.setns(scene.mounts, namespaces.CLONE_NEWNS)
        os.close(scene.mounts)
        _change_root(tree)


def _change_root(fd: int) -> None:
    os.fchdir(fd)
    os.chroot(".")
    os.close(fd)


class Join(NamedTuple):
    """Join namespaces by path, in the order given: (specification's name, path)."""

    targets: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        return "join " + ", ".join([f"{kind} namespace {path}" for kind, path in self.targets])

    def apply(self, scene: Scene) -> None:
        opened = [(kind, os.open(path, os.O_RDONLY | os.O_CLOEXEC)) for kind, path in self.targets]
        for kind, fd in opened:
            namespaces.setns(fd, namespaces.FLAG_OF[kind])
            os.close(fd)


class JoinProcess(NamedTuple):
    """Join the namespaces of a running process, `scene.pidfd`. `flags`: CLONE_NEW*. Its root and mounts become ours.

    `root`: its root is not that of its mount namespace (ReturnMounts).
    """

    flags: int
    root: bool = False

    def describe(self) -> str:
        return "join the container's namespaces"

    def apply(self, scene: Scene) -> None:
        root = os.open(f"/proc/{_pid_of(scene.pidfd)}/root", os.O_PATH | os.O_CLOEXEC) if self.root else -1
        namespaces.setns(scene.pidfd, self.flags)
        os.close(scene.pidfd)
        if self.root:
            _change_root(root)


def _pid_of(pidfd: int) -> int:
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        return int(next(line for line in file if line.startswith("Pid:"))[4:])


class Unshare(NamedTuple):
    """Make namespaces that clone(2) could not: the cgroup's (after entering the cgroup) and time's."""

    flags: int

    def describe(self) -> str:
        return "make namespaces"

    def apply(self, scene: Scene) -> None:
        namespaces.unshare(self.flags)


class TimeOffsets(NamedTuple):
    """Offsets of the clocks of a new time namespace, as lines of /proc/self/timens_offsets."""

    lines: str

    def describe(self) -> str:
        return "set the clocks' offsets"

    def apply(self, scene: Scene) -> None:
        write_proc("/proc/self/timens_offsets", self.lines)


class OpenConfinement(NamedTuple):
    """Open the file by which a process chooses its AppArmor profile, while the host's procfs is still in reach.

    Inside, /proc may be anything (CVE-2019-16884, CVE-2023-28642). Only who opened it may write to it.
    """

    def describe(self) -> str:
        return "open the AppArmor attribute"

    def apply(self, scene: Scene) -> None:
        for path in ("/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"):
            try:
                scene.confinement = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            files.require(scene.confinement, files.PROC_SUPER_MAGIC, path)
            return
        raise Refused("FailedPrecondition", "an AppArmor profile is asked for, and this kernel has no AppArmor")


class BecomeRoot(NamedTuple):
    """Be root of the user namespace; of a new one once the parent has written its maps."""

    new: bool

    def describe(self) -> str:
        return "become root in the user namespace"

    def apply(self, scene: Scene) -> None:
        if self.new:
            scene.hear(b"mapped")
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)


class OomScore(NamedTuple):
    """oom_score_adj; lowering it needs CAP_SYS_RESOURCE, without which the inherited value stays."""

    score: int

    def describe(self) -> str:
        return "set oom_score_adj"

    def apply(self, scene: Scene) -> None:
        try:
            write_proc("/proc/self/oom_score_adj", str(self.score))
        except PermissionError:
            scene.warn(f"oom_score_adj {self.score} needs CAP_SYS_RESOURCE; the inherited value stays")


class Names(NamedTuple):
    """Host name and NIS domain name."""

    host: str
    domain: str

    def describe(self) -> str:
        return "set the host name"

    def apply(self, scene: Scene) -> None:
        if self.host:
            _socket.sethostname(self.host)
        if self.domain:
            namespaces.set_domain_name(self.domain)


class Sysctls(NamedTuple):
    """Kernel parameters of the container's own namespaces: (dotted or slashed name, value)."""

    values: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        return "set sysctls"

    def apply(self, scene: Scene) -> None:
        for name, value in self.values:
            path = name if "/" in name else name.replace(".", "/")
            try:
                write_proc(f"/proc/sys/{path}", value)
            except FileNotFoundError:
                raise Refused("InvalidArgument", f"sysctl {name} does not exist on this kernel")
            except OSError as error:
                raise Refused("InvalidArgument", f"sysctl {name}={value}: {os.strerror(error.errno or 0)}")


class AwaitHooks(NamedTuple):
    """Let the parent run its hooks of this point while this process waits."""

    point: str

    def describe(self) -> str:
        return f"{self.point} hooks"

    def apply(self, scene: Scene) -> None:
        scene.tell({"hooks": self.point})
        scene.hear(b"hooked")


class LoopbackUp(NamedTuple):
    """Bring up `lo` in a network namespace just made, as every container expects."""

    def describe(self) -> str:
        return "bring up the loopback device"

    def apply(self, scene: Scene) -> None:
        if scene.network < 0:
            bring_up_loopback()


def bring_up_loopback() -> None:
    """Set `lo` up in the calling thread's network namespace."""
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        # SIOCSIFFLAGS (0x8914) with IFF_UP | IFF_RUNNING.
        fcntl.ioctl(sock.fileno(), 0x8914, struct.pack("16sH14x", b"lo", 0x41))
    finally:
        sock.close()
