"""Where this host has its cgroup hierarchies: v1, hybrid or v2."""

from __future__ import annotations

import errno
import os

from wherry.kernel.cgroups.files import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from wherry.kernel.tuples import NamedTuple

ROOT = "/sys/fs/cgroup"
_CONTROLLERS = frozenset(
    ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb")
    + ("net_cls", "net_prio", "perf_event", "rdma", "misc")
)


class Layout(NamedTuple):
    """Mount points: of each v1 hierarchy by controller (and "name=..."), and of the v2 one."""

    v1: dict[str, str]
    unified: str | None

    @property
    def version(self) -> int:
        """1 for v1 and hybrid, where v1 has the controllers that matter; 2 for v2."""
        return 1 if self.v1 else 2


_found: Layout | None = None


def layout() -> Layout:
    """This host's layout, looked up once per process."""
    global _found
    if _found is None:
        _found = _detect()
    return _found


def _detect() -> Layout:
    # On a v2 host the answer is in one stat: no need to parse a mount table of any length.
    if os.path.exists(ROOT + "/cgroup.controllers"):
        return Layout({}, ROOT)
    return parse(read("/proc/self/mountinfo"))


def parse(mountinfo: str) -> Layout:
    """The layout that a mount table (proc_pid_mountinfo(5)) shows. OSError(ENOENT) when it shows none."""
    v1: dict[str, str] = {}
    unified = None
    for line in mountinfo.splitlines():
        head, separator, tail = line.partition(" - ")
        kind = tail.split(" ", 1)[0]
        if not separator or kind not in ("cgroup", "cgroup2"):
            continue
        point = head.split(" ")[4].replace("\\040", " ")
        if kind == "cgroup2":
            unified = unified or point
            continue
        for option in tail.split(" ")[2].split(","):
            if option in _CONTROLLERS or option.startswith("name="):
                v1.setdefault(option, point)
    if not any(name in _CONTROLLERS for name in v1):
        v1 = {}
    if not v1 and unified is None:
        raise OSError(errno.ENOENT, "no cgroup file system is mounted", ROOT)
    return Layout(v1, unified)


def own() -> dict[str, str]:
    """This process's own cgroup in each hierarchy, by controller; "" is v2's (cgroups(7), /proc/PID/cgroup)."""
    found = {}
    for line in read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(","):
            found[name] = path
    return found


def locate(path: str, hosts: Layout) -> dict[str, str]:
    """The directory of the cgroup `path` in each hierarchy. OSError(EINVAL) for a path that names no group."""
    clean = os.path.normpath("/" + path).lstrip("/")
    if not clean or "\0" in path or "\n" in path:
        raise OSError(errno.EINVAL, "not a cgroup path", path)
    points = dict(hosts.v1)
    if hosts.unified is not None:
        points[""] = hosts.unified
    if path.startswith("/"):
        return {name: f"{point}/{clean}" for name, point in points.items()}
    mine = own()
    # v2 allows no processes in a group that has children with controllers: beside, not below, our own.
    return {
        name: os.path.normpath(f"{point}/{mine.get(name, '/') if name else os.path.dirname(mine.get('', '/'))}/{clean}")
        for name, point in points.items()
    }
