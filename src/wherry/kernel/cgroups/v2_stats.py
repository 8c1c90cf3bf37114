"""CgroupStats from cgroup v2."""

from __future__ import annotations

from wherry.kernel.cgroups.contract import CgroupStats, CpuStats, HugetlbStats, IoEntry, MemoryStats
from wherry.kernel.cgroups.files import limit, number, table
from wherry.kernel.cgroups.v1_stats import page_sizes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.kernel.cgroups.resources import Files


def collect(files: Files) -> CgroupStats:
    """Everything, in one pass."""
    io_bytes, io_operations = _io(files)
    return CgroupStats(
        version=2,
        cpu=_cpu(files),
        memory=_memory(files),
        pids=number(files.read("pids", "pids.current")),
        pids_limit=limit(files.read("pids", "pids.max")),
        io_bytes=io_bytes,
        io_operations=io_operations,
        hugetlb=_hugetlb(files),
    )


def _cpu(files: Files) -> CpuStats:
    counters = table(files.read("cpu", "cpu.stat"))
    return CpuStats(
        total_ns=counters.get("usage_usec", 0) * 1000,
        user_ns=counters.get("user_usec", 0) * 1000,
        kernel_ns=counters.get("system_usec", 0) * 1000,
        per_cpu_ns=(),
        periods=counters.get("nr_periods", 0),
        throttled_periods=counters.get("nr_throttled", 0),
        throttled_ns=counters.get("throttled_usec", 0) * 1000,
    )


def _memory(files: Files) -> MemoryStats:
    peak = files.read("memory", "memory.peak")
    return MemoryStats(
        usage=number(files.read("memory", "memory.current")),
        peak=number(peak) if peak else None,
        limit=limit(files.read("memory", "memory.max")),
        failures=table(files.read("memory", "memory.events")).get("max", 0),
        swap=number(files.read("memory", "memory.swap.current")),
        swap_limit=limit(files.read("memory", "memory.swap.max")),
        detail=table(files.read("memory", "memory.stat")),
    )


def _io(files: Files) -> tuple[tuple[IoEntry, ...], tuple[IoEntry, ...]]:
    data: list[IoEntry] = []
    operations: list[IoEntry] = []
    for line in files.read("io", "io.stat").splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        for pair in pairs:
            key, _, value = pair.partition("=")
            op = _IO_WORDS.get(key[:1])
            if op and key[1:] in ("bytes", "ios") and value.isdigit():
                found = IoEntry(int(major), int(minor or 0), op, int(value))
                (data if key[1:] == "bytes" else operations).append(found)
    return tuple(data), tuple(operations)


_IO_WORDS = {"r": "read", "w": "write", "d": "discard"}


def _hugetlb(files: Files) -> dict[str, HugetlbStats]:
    found = {}
    for size in page_sizes():
        usage = files.read("hugetlb", f"hugetlb.{size}.current")
        if usage:
            failures = table(files.read("hugetlb", f"hugetlb.{size}.events")).get("max", 0)
            found[size] = HugetlbStats(number(usage), None, failures)
    return found
