"""What a container uses, in docker's document (Engine API, ContainerStats): one pass over its cgroup's files."""

import os
import time
from pathlib import Path
from typing import Any

from wherry.engine.container import Container
from wherry.engine.core import Core
from wherry.kernel.cgroups import CgroupStats

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
HOST_MEMORY = os.sysconf("SC_PHYS_PAGES") * _PAGE
_NEVER = "0001-01-01T00:00:00Z"
# user, nice, system, idle, iowait, irq, softirq: guest time is within user time (proc_stat(5)).
_CPU_FIELDS = slice(1, 8)
_LINK_COUNTERS = ("bytes", "packets", "errors", "dropped")


def sample(core: Core, container: Container) -> dict[str, Any]:
    """One sample, without what went before it. Blocks shortly (0.2 ms): call it in a thread.

    Of a container that does not run: everything is zero, as docker has it.
    """
    document: dict[str, Any] = {
        "read": _now(),
        "preread": _NEVER,
        "name": f"/{container.name}",
        "id": container.id,
        "num_procs": 0,
        "storage_stats": {},
        "pids_stats": {},
        "blkio_stats": dict.fromkeys(_BLKIO),
        "cpu_stats": _cpu(None),
        "precpu_stats": _cpu(None),
        "memory_stats": {},
    }
    pid = container.state.pid
    if not container.state.running or not pid:
        return document | {"read": _NEVER}
    stats = core.parts.cgroup(core.cgroup_path(container)).stats()
    document["cpu_stats"] = _cpu(stats)
    document["memory_stats"] = _memory(stats)
    document["pids_stats"] = {"current": stats.pids, "limit": stats.pids_limit or (1 << 64) - 1}
    document["blkio_stats"] = _blkio(stats)
    links = networks(pid)
    if links and container.definition.host.network_mode != "host":
        document["networks"] = links
    return document


def follow(previous: dict[str, Any] | None, current: dict[str, Any]) -> dict[str, Any]:
    """`current` with what it needs of the sample before it."""
    if previous is not None:
        current["preread"] = previous["read"]
        current["precpu_stats"] = previous["cpu_stats"]
    return current


def _now() -> str:
    seconds, fraction = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09d}Z"


def _cpu(stats: CgroupStats | None) -> dict[str, Any]:
    throttling = {"periods": 0, "throttled_periods": 0, "throttled_time": 0}
    usage: dict[str, Any] = {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0}
    if stats is None:
        return {"cpu_usage": usage, "throttling_data": throttling}
    cpu = stats.cpu
    usage = {"total_usage": cpu.total_ns, "usage_in_kernelmode": cpu.kernel_ns, "usage_in_usermode": cpu.user_ns}
    if cpu.per_cpu_ns:
        usage["percpu_usage"] = list(cpu.per_cpu_ns)
    throttling = {
        "periods": cpu.periods,
        "throttled_periods": cpu.throttled_periods,
        "throttled_time": cpu.throttled_ns,
    }
    return {
        "cpu_usage": usage,
        "system_cpu_usage": _host_cpu_ns(),
        "online_cpus": os.cpu_count() or 1,
        "throttling_data": throttling,
    }


def _host_cpu_ns() -> int:
    with open("/proc/stat", "rb") as file:
        fields = file.readline().split()
    return sum(int(field) for field in fields[_CPU_FIELDS]) * _TICK_NS


def _memory(stats: CgroupStats) -> dict[str, Any]:
    memory = stats.memory
    limit = memory.limit if memory.limit is not None else HOST_MEMORY
    document: dict[str, Any] = {
        "usage": memory.usage,
        "stats": memory.detail,
        "limit": min(limit, HOST_MEMORY),
    }
    if stats.version == 1:
        document["max_usage"] = memory.peak or 0
        if memory.failures:
            document["failcnt"] = memory.failures
    return document


_BLKIO = (
    "io_service_bytes_recursive",
    "io_serviced_recursive",
    "io_queue_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
    "io_time_recursive",
    "sectors_recursive",
)


def _blkio(stats: CgroupStats) -> dict[str, Any]:
    document: dict[str, Any] = dict.fromkeys(_BLKIO)
    for name, entries in (
        ("io_service_bytes_recursive", stats.io_bytes),
        ("io_serviced_recursive", stats.io_operations),
    ):
        document[name] = [
            {"major": entry.major, "minor": entry.minor, "op": entry.op, "value": entry.value} for entry in entries
        ]
    return document


def networks(pid: int) -> dict[str, dict[str, int]]:
    """By interface, as the container sees them (proc_pid_net(5)); empty when it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, _, rest = line.partition(":")
        if name.strip() == "lo":
            continue
        numbers = [int(number) for number in rest.split()]
        received = zip((f"rx_{counter}" for counter in _LINK_COUNTERS), numbers[:4], strict=True)
        sent = zip((f"tx_{counter}" for counter in _LINK_COUNTERS), numbers[8:12], strict=True)
        found[name.strip()] = dict((*received, *sent))
    return found
