"""cgroups: one small contract (contract.py), two implementations (v1 with hybrid, v2).

cgroup = one group for this host's layout; layout = where the hierarchies are; DEFAULT_DEVICES = rules for the devices
every container has.
"""

from __future__ import annotations

import os

from wherry.kernel.cgroups.contract import (
    Cgroup,
    CgroupStats,
    CpuStats,
    HugetlbStats,
    IoEntry,
    MemoryStats,
)
from wherry.kernel.cgroups.layout import Layout, layout, locate

__all__ = [
    "DEFAULT_DEVICES",
    "Cgroup",
    "CgroupStats",
    "CpuStats",
    "HugetlbStats",
    "IoEntry",
    "Layout",
    "MemoryStats",
    "cgroup",
    "children",
    "layout",
]


def cgroup(path: str, host: Layout | None = None) -> Cgroup:
    """The group at `path` (an OCI cgroupsPath) in `host`'s layout, this host's by default. Nothing is created.

    OSError(EINVAL): `path` names no group; OSError(ENOENT): no cgroup file system is mounted.
    """
    host = host or layout()
    paths = locate(path, host)
    # Each layout loads only its own half.
    if host.version == 1:
        from wherry.kernel.cgroups.v1 import V1Cgroup

        return V1Cgroup(paths)
    from wherry.kernel.cgroups.v2 import V2Cgroup

    return V2Cgroup(paths[""], host.unified or "")


def children(path: str, host: Layout | None = None) -> set[str]:
    """The names of the groups in the one at `path`, in whichever hierarchies they are."""
    found: set[str] = set()
    for directory in set(locate(path, host or layout()).values()):
        try:
            with os.scandir(directory) as entries:
                found.update(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            continue
    return found


def _rule(kind: str, major: int | None, minor: int | None, access: str = "rwm") -> dict[str, object]:
    return {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}


DEFAULT_DEVICES: tuple[dict[str, object], ...] = (
    _rule("c", None, None, "m"),
    _rule("b", None, None, "m"),
    *[_rule("c", 1, minor) for minor in (3, 5, 7, 8, 9)],
    *[_rule("c", 5, minor) for minor in (0, 2)],
    _rule("c", 136, None),
)
"""OCI rules a runtime adds after the bundle's own: making any node (the file system decides), null, zero, full, random,
urandom, tty, ptmx, and the pseudo-terminals (runtime-spec, config-linux.md, "Default Devices")."""
