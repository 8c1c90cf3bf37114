"""CgroupStats from cgroup v1."""

from __future__ import annotations

import os

from wherry.kernel.cgroups.contract import CgroupStats, CpuStats, HugetlbStats, IoEntry, MemoryStats
from wherry.kernel.cgroups.files import limit, number, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.kernel.cgroups.resources import Files


def collect(files: Files) -> CgroupStats:
    """Everything, in one pass."""
    return CgroupStats(
        version=1,
        cpu=_cpu(files),
        memory=_memory(files),
        pids=number(files.read("pids", "pids.current")),
        pids_limit=limit(files.read("pids", "pids.max")),
        io_bytes=_io(files, "io_service_bytes"),
        io_operations=_io(files, "io_serviced"),
        hugetlb=_hugetlb(files),
    )


def _cpu(files: Files) -> CpuStats:
    throttling = table(files.read("cpu", "cpu.stat"))
    return CpuStats(
        total_ns=number(files.read("cpuacct", "cpuacct.usage")),
        user_ns=number(files.read("cpuacct", "cpuacct.usage_user")),
        kernel_ns=number(files.read("cpuacct", "cpuacct.usage_sys")),
        per_cpu_ns=tuple([int(n) for n in files.read("cpuacct", "cpuacct.usage_percpu").split()]),
        periods=throttling.get("nr_periods", 0),
        throttled_periods=throttling.get("nr_throttled", 0),
        throttled_ns=throttling.get("throttled_time", 0),
    )


def _memory(files: Files) -> MemoryStats:
    return MemoryStats(
        usage=number(files.read("memory", "memory.usage_in_bytes")),
        peak=number(files.read("memory", "memory.max_usage_in_bytes")),
        limit=limit(files.read("memory", "memory.limit_in_bytes")),
        failures=number(files.read("memory", "memory.failcnt")),
        swap=number(files.read("memory", "memory.memsw.usage_in_bytes")),
        swap_limit=limit(files.read("memory", "memory.memsw.limit_in_bytes")),
        detail=table(files.read("memory", "memory.stat")),
    )


def _io(files: Files, counter: str) -> tuple[IoEntry, ...]:
    # BFQ, where it is the scheduler, counts what the throttling layer never sees.
    text = files.read("blkio", f"blkio.bfq.{counter}_recursive")
    if not text.partition("Total")[0].strip():
        text = files.read("blkio", f"blkio.throttle.{counter}_recursive")
    found = []
    for line in text.splitlines():
        words = line.replace(":", " ").split()
        if len(words) == 4:  # MAJOR:MINOR OP VALUE; the last line is a total
            found.append(IoEntry(int(words[0]), int(words[1]), words[2], int(words[3])))
    return tuple(found)


def _hugetlb(files: Files) -> dict[str, HugetlbStats]:
    found = {}
    for size in page_sizes():
        usage = files.read("hugetlb", f"hugetlb.{size}.usage_in_bytes")
        if usage:
            peak = number(files.read("hugetlb", f"hugetlb.{size}.max_usage_in_bytes"))
            found[size] = HugetlbStats(number(usage), peak, number(files.read("hugetlb", f"hugetlb.{size}.failcnt")))
    return found


def page_sizes() -> list[str]:
    """The huge page sizes of this host as they stand in file names: 2MB, 1GB."""
    try:
        names = os.listdir("/sys/kernel/mm/hugepages")
    except FileNotFoundError:
        return []
    sizes = []
    for name in names:
        kilobytes = int(name.removeprefix("hugepages-").removesuffix("kB"))
        unit = 0
        while kilobytes >= 1024 and unit < 2:
            kilobytes, unit = kilobytes // 1024, unit + 1
        sizes.append(f"{kilobytes}{('KB', 'MB', 'GB')[unit]}")
    return sorted(sizes)
