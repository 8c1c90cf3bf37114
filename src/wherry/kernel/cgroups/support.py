"""Which limits this host's cgroups can set, by the names of docker's API."""

from __future__ import annotations

import os

from wherry.kernel.cgroups.files import read_or_empty
from wherry.kernel.cgroups.layout import Layout, layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from wherry.kernel.tuples import NamedTuple


class Support(NamedTuple):
    """True: the kernel has the file for it."""

    memory: bool
    swap: bool
    swappiness: bool
    reservation: bool
    kernel_tcp: bool
    oom_kill_disable: bool
    pids: bool
    cpu_shares: bool
    cpu_cfs: bool
    cpu_realtime: bool
    cpuset: bool
    blkio_weight: bool
    blkio_weight_device: bool
    blkio_throttle: bool


def detect(host: Layout | None = None) -> Support:
    """Look at the hierarchies of `host`, this host's by default."""
    host = host or layout()
    return _v1(host.v1) if host.version == 1 else _v2(host.unified or "")


def _v1(points: dict[str, str]) -> Support:
    def has(controller: str, name: str = "") -> bool:
        return controller in points and os.path.exists(f"{points[controller]}/{name}")

    def below(controller: str, name: str) -> bool:
        # Some files are in every group but the root.
        if controller not in points:
            return False
        with os.scandir(points[controller]) as entries:
            return any(entry.is_dir() and os.path.exists(f"{entry.path}/{name}") for entry in entries)

    # BFQ's weight is what is left of weights since CFQ went with Linux 5.0.
    weight = has("blkio", "blkio.weight") or has("blkio", "blkio.bfq.weight") or below("blkio", "blkio.bfq.weight")
    return Support(
        memory=has("memory"),
        swap=has("memory", "memory.memsw.limit_in_bytes"),
        swappiness=has("memory", "memory.swappiness"),
        reservation=has("memory", "memory.soft_limit_in_bytes"),
        kernel_tcp=has("memory", "memory.kmem.tcp.limit_in_bytes"),
        oom_kill_disable=has("memory", "memory.oom_control"),
        pids=has("pids"),
        cpu_shares=has("cpu", "cpu.shares"),
        cpu_cfs=has("cpu", "cpu.cfs_quota_us"),
        cpu_realtime=has("cpu", "cpu.rt_runtime_us"),
        cpuset=has("cpuset"),
        blkio_weight=weight,
        blkio_weight_device=weight,
        blkio_throttle=has("blkio", "blkio.throttle.read_bps_device"),
    )


def _v2(point: str) -> Support:
    held = read_or_empty(f"{point}/cgroup.controllers").split()
    memory, cpu, io = "memory" in held, "cpu" in held, "io" in held
    return Support(
        memory=memory,
        swap=memory and os.path.exists("/proc/swaps"),
        swappiness=False,
        reservation=memory,
        kernel_tcp=False,
        oom_kill_disable=False,
        pids="pids" in held,
        cpu_shares=cpu,
        cpu_cfs=cpu,
        cpu_realtime=False,
        cpuset="cpuset" in held,
        blkio_weight=io,
        blkio_weight_device=io,
        blkio_throttle=io,
    )
