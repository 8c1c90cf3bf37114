"""A cgroup on v2 (Documentation/admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

import errno
import os
import time

from wherry.kernel.cgroups import files, v2_resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from wherry.kernel.cgroups.contract import CgroupStats
    from wherry.kernel.cgroups.glance import Glance

_FREEZE_TIMEOUT = 10.0
_KILL_ROUNDS = 50
_SIGKILL = 9  # the signal module costs an enum, and a cold start feels it


class V2Cgroup:
    """The contract's Cgroup for v2 hosts. `root` is the mount point, above which nothing is touched."""

    def __init__(self, path: str, root: str) -> None:
        self.paths: Mapping[str, str] = {"": path}
        self._path = path
        self._root = root

    def create(self) -> None:
        self._make(self._path)

    def _make(self, path: str) -> None:
        parent = os.path.dirname(path)
        if parent.startswith(self._root + "/") and not os.path.isdir(parent):
            self._make(parent)
        _delegate(parent)
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            pass

    def enter_fd(self) -> int | None:
        path = self._path
        if files.read_or_empty(path + "/cgroup.subtree_control").strip():
            # A manager inside (systemd) has given controllers to groups of its own: none may enter above those.
            path = self._group_of_first_process() or path
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def _group_of_first_process(self) -> str | None:
        for pid in self.processes():
            for line in files.read_or_empty(f"/proc/{pid}/cgroup").splitlines():
                path = self._root + line.removeprefix("0::")
                if line.startswith("0::") and path.startswith(self._path + "/"):
                    return path
        return None

    def entry_fds(self) -> list[int]:
        return []

    def add(self, pid: int) -> None:
        files.write(self._path + "/cgroup.procs", str(pid))

    def apply(self, resources: Mapping[str, Any]) -> None:
        v2_resources.apply(self, resources)

    def attach_devices(self, program: bytes) -> None:
        """See v2_resources.V2Files."""
        from wherry.kernel.cgroups import bpf

        bpf.attach_device_program(self._path, program)

    def write(self, controller: str, name: str, value: str) -> None:
        """See resources.Files."""
        self.write_lines(controller, name, (value,))

    def write_lines(self, controller: str, name: str, lines: Sequence[str]) -> None:
        """See resources.Files."""
        path = f"{self._path}/{name}"
        try:
            files.write_lines(path, lines)
        except FileNotFoundError:
            if controller and controller not in files.read_or_empty(self._path + "/cgroup.controllers").split():
                message = f"cannot set {', '.join(lines)}: cgroup controller {controller} is not available here"
                raise OSError(errno.ENOENT, message, path) from None
            raise

    def read(self, controller: str, name: str) -> str:
        """See resources.Files."""
        return files.read_or_empty(f"{self._path}/{name}")

    def processes(self) -> list[int]:
        return files.processes(self._path)

    def freeze(self) -> None:
        files.wait(self.freezing())

    def freezing(self) -> Iterator[float]:
        deadline = time.monotonic() + _FREEZE_TIMEOUT
        pause = 0.0001
        self.write("", "cgroup.freeze", "1")
        while files.table(self.read("", "cgroup.events")).get("frozen") != 1:
            if time.monotonic() > deadline:
                self.thaw()
                raise TimeoutError(errno.ETIMEDOUT, "cgroup does not freeze", self._path)
            yield pause
            pause = min(pause * 2, 0.01)

    def thaw(self) -> None:
        self.write("", "cgroup.freeze", "0")

    def frozen(self) -> bool:
        return self.read("", "cgroup.freeze").strip() == "1"

    def kill(self) -> None:
        try:
            files.write(self._path + "/cgroup.kill", "1")
        except FileNotFoundError:
            self._kill_each()  # before Linux 5.14, or the group is gone

    def _kill_each(self) -> None:
        signalled: set[int] = set()
        for _ in range(_KILL_ROUNDS):
            found = set(self.processes()) - signalled
            for pid in found:
                try:
                    os.kill(pid, _SIGKILL)
                except ProcessLookupError:
                    pass
            if not found:
                return
            signalled |= found

    def oom_kills(self) -> int:
        return files.table(self.read("memory", "memory.events")).get("oom_kill", 0)

    def stats(self) -> CgroupStats:
        from wherry.kernel.cgroups import v2_stats  # not for a cold start

        return v2_stats.collect(self)

    def glance(self) -> Glance:
        from wherry.kernel.cgroups import glance

        return glance.glance_v2(self.paths[""])

    def cpu_ns(self) -> int:
        from wherry.kernel.cgroups import glance

        return glance.cpu_ns(self.paths)

    def delete(self, timeout: float = 2.0) -> None:
        files.wait(self.deleting(timeout))

    def deleting(self, timeout: float = 2.0) -> Iterator[float]:
        yield from files.removing(self._path, time.monotonic() + timeout)


def _delegate(parent: str) -> None:
    """Give the children of `parent` every controller it has itself."""
    try:
        available = files.read(parent + "/cgroup.controllers").split()
    except FileNotFoundError:
        return
    control = parent + "/cgroup.subtree_control"
    missing = [name for name in available if name not in files.read(control).split()]
    if not missing:
        return
    try:
        files.write(control, " ".join(["+" + name for name in missing]))
    except OSError:
        # One that cannot be had (cpu with realtime tasks about, a group with processes in it) must not cost the others;
        # who needs it is told by `write`.
        for name in missing:
            try:
                files.write(control, "+" + name)
            except OSError:
                pass
