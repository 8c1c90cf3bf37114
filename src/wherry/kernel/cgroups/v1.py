"""A cgroup on v1, or on a hybrid host, where it has a directory in the v2 hierarchy too.

The v2 half of a hybrid costs one mkdir and gives what v1 lacks: cgroup.kill, which no fork can outrun, entry by clone3,
and on hosts with systemd a place of its own, out of the daemon's unit.
"""

from __future__ import annotations

import errno
import os
import time

from wherry.kernel.cgroups import files, v1_resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from wherry.kernel.cgroups.contract import CgroupStats
    from wherry.kernel.cgroups.glance import Glance

_FREEZE_TIMEOUT = 10.0
_KILL_ROUNDS = 50
_SIGKILL = 9  # the signal module costs an enum, and a cold start feels it


class V1Cgroup:
    """The contract's Cgroup for v1 and hybrid hosts."""

    def __init__(self, paths: dict[str, str]) -> None:
        self.paths: Mapping[str, str] = paths
        # Controllers mounted together ("cpu,cpuacct") share a directory.
        self._hierarchies = list(dict.fromkeys([path for name, path in paths.items() if name]))
        self._unified = paths.get("")

    def create(self) -> None:
        cpuset = self.paths.get("cpuset")
        for path in self._hierarchies:
            _make(path, path == cpuset)
        if self._unified is not None:
            _make(self._unified, False)

    def enter_fd(self) -> int | None:
        if self._unified is None:
            return None
        return os.open(self._unified, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def entry_fds(self) -> list[int]:
        # `tasks` moves one thread: for itself the kernel then needs no lock on thread groups, see contract.py.
        fds: list[int] = []
        try:
            fds.extend(os.open(path + "/tasks", os.O_WRONLY | os.O_CLOEXEC) for path in self._hierarchies)
        except OSError:
            for fd in fds:
                os.close(fd)
            raise
        return fds

    def add(self, pid: int) -> None:
        for path in self._hierarchies:
            files.write(path + "/cgroup.procs", str(pid))
        if self._unified is not None:
            files.write(self._unified + "/cgroup.procs", str(pid))

    def apply(self, resources: Mapping[str, Any]) -> None:
        v1_resources.apply(self, resources)

    def write(self, controller: str, name: str, value: str) -> None:
        """See resources.Files."""
        self.write_lines(controller, name, (value,))

    def write_lines(self, controller: str, name: str, lines: Sequence[str]) -> None:
        """See resources.Files."""
        path = self.paths.get(controller)
        if path is None:
            message = f"cannot set {', '.join(lines)}: cgroup controller {controller} is not mounted on this host"
            raise OSError(errno.ENOENT, message, name)
        files.write_lines(f"{path}/{name}", lines)

    def read(self, controller: str, name: str) -> str:
        """See resources.Files."""
        path = self.paths.get(controller)
        return "" if path is None else files.read_or_empty(f"{path}/{name}")

    def processes(self) -> list[int]:
        return files.processes(self._hierarchies[0])

    def freeze(self) -> None:
        files.wait(self.freezing())

    def freezing(self) -> Iterator[float]:
        deadline = time.monotonic() + _FREEZE_TIMEOUT
        pause = 0.0001
        self.write("freezer", "freezer.state", "FROZEN")
        while self.read("freezer", "freezer.state").strip() == "FREEZING":
            if time.monotonic() > deadline:
                self.write("freezer", "freezer.state", "THAWED")
                raise TimeoutError(errno.ETIMEDOUT, "cgroup does not freeze", self.paths["freezer"])
            # No event tells; and a process forked while freezing is only caught by writing again.
            yield pause
            pause = min(pause * 2, 0.01)
            self.write("freezer", "freezer.state", "FROZEN")

    def thaw(self) -> None:
        self.write("freezer", "freezer.state", "THAWED")

    def frozen(self) -> bool:
        return self.read("freezer", "freezer.state").strip() in ("FROZEN", "FREEZING")

    def kill(self) -> None:
        if self._unified is not None and os.path.exists(self._unified + "/cgroup.kill"):
            files.write(self._unified + "/cgroup.kill", "1")
        signalled: set[int] = set()
        for _ in range(_KILL_ROUNDS):
            # Also with cgroup.kill: a process may have entered the v1 hierarchies only.
            found = set(self.processes()) - signalled
            for pid in found:
                try:
                    os.kill(pid, _SIGKILL)
                except ProcessLookupError:
                    pass
            if self.frozen():
                self.thaw()  # v1's freezer holds back SIGKILL as well
            if not found:
                return
            signalled |= found

    def oom_kills(self) -> int:
        return files.table(self.read("memory", "memory.oom_control")).get("oom_kill", 0)

    def stats(self) -> CgroupStats:
        from wherry.kernel.cgroups import v1_stats  # not for a cold start

        return v1_stats.collect(self)

    def glance(self) -> Glance:
        from wherry.kernel.cgroups import glance

        return glance.glance_v1(self.paths)

    def cpu_ns(self) -> int:
        from wherry.kernel.cgroups import glance

        return glance.cpu_ns(self.paths)

    def delete(self, timeout: float = 2.0) -> None:
        files.wait(self.deleting(timeout))

    def deleting(self, timeout: float = 2.0) -> Iterator[float]:
        deadline = time.monotonic() + timeout
        for path in self._hierarchies:
            yield from files.removing(path, deadline)
        if self._unified is not None:
            yield from files.removing(self._unified, deadline)


def _make(path: str, cpuset: bool) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        pass
    except FileNotFoundError:
        _make(os.path.dirname(path), cpuset)
        _make(path, cpuset)
        return
    if cpuset and not files.read(path + "/cpuset.cpus").strip():
        _inherit_cpuset(path)


def _inherit_cpuset(path: str) -> None:
    # A cpuset without processors or memory nodes lets nobody in; clone_children gives new ones those of their parent.
    parent = os.path.dirname(path)
    for name in ("cpuset.cpus", "cpuset.mems"):
        files.write(f"{path}/{name}", files.read(f"{parent}/{name}").strip())
    files.write(path + "/cgroup.clone_children", "1")
