"""OCI `linux.resources` on cgroup v1 (Documentation/admin-guide/cgroup-v1)."""

from __future__ import annotations

import errno

from wherry.kernel.cgroups import devices
from wherry.kernel.cgroups.resources import (
    THROTTLES,
    Files,
    device_number,
    entries,
    integer,
    memory_pair,
    page_size,
    rdma_lines,
    section,
    text,
    unsupported,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


def apply(files: Files, resources: Mapping[str, Any]) -> None:
    """Write what `resources` names."""
    if resources.get("unified"):
        raise unsupported("unified", "v1")
    for name, setter in _SECTIONS:
        if resources.get(name):
            setter(files, resources)


def _devices(files: Files, resources: Mapping[str, Any]) -> None:
    permitted = devices.whitelist(devices.parse(entries(resources, "devices")))
    if permitted is None:
        files.write("devices", "devices.allow", "a")
        return
    files.write("devices", "devices.deny", "a")
    files.write_lines("devices", "devices.allow", [rule.text() for rule in permitted])


def _memory(files: Files, resources: Mapping[str, Any]) -> None:
    memory = section(resources, "memory")
    _memory_limits(files, *memory_pair(memory))
    reservation = integer(memory, "reservation")
    if reservation:
        files.write("memory", "memory.soft_limit_in_bytes", str(reservation))
    # `kernel` is deprecated in the specification and has no effect since Linux 5.4: left alone, as by other runtimes.
    tcp = integer(memory, "kernelTCP")
    if tcp:
        files.write("memory", "memory.kmem.tcp.limit_in_bytes", str(tcp))
    swappiness = integer(memory, "swappiness")
    if swappiness is not None:
        files.write("memory", "memory.swappiness", str(swappiness))
    disable = memory.get("disableOOMKiller")
    if disable is not None:
        files.write("memory", "memory.oom_control", "1" if disable else "0")


def _memory_limits(files: Files, limit: int, total: int) -> None:
    def set_limit() -> None:
        if limit:
            files.write("memory", "memory.limit_in_bytes", str(limit))

    def set_total() -> None:
        try:
            if total:
                files.write("memory", "memory.memsw.limit_in_bytes", str(total))
        except FileNotFoundError:
            # A kernel without swap accounting limits the sum nowhere: "unlimited" is what it has.
            if total != -1:
                raise

    # The kernel holds limit <= total at any moment; which of the two must go first depends on what is set now.
    _either_order(set_limit, set_total)


def _either_order(first: Callable[[], None], second: Callable[[], None]) -> None:
    try:
        first()
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        second()
        first()
        return
    second()


def _cpu(files: Files, resources: Mapping[str, Any]) -> None:
    cpu = section(resources, "cpu")
    shares, idle = integer(cpu, "shares"), integer(cpu, "idle")
    if idle == 0:
        files.write("cpu", "cpu.idle", "0")  # an idle group refuses shares
    if shares:
        files.write("cpu", "cpu.shares", str(shares))
    if idle:
        files.write("cpu", "cpu.idle", str(idle))
    _quota(files, cpu)
    for key, name in (("realtimePeriod", "cpu.rt_period_us"), ("realtimeRuntime", "cpu.rt_runtime_us")):
        value = integer(cpu, key)
        if value:
            files.write("cpu", name, str(value))
    for key in ("cpus", "mems"):
        wanted = text(cpu, key)
        if wanted:
            files.write("cpuset", f"cpuset.{key}", wanted)


def _quota(files: Files, cpu: Mapping[str, Any]) -> None:
    period, quota, burst = integer(cpu, "period"), integer(cpu, "quota"), integer(cpu, "burst")
    if burst is not None:
        files.write("cpu", "cpu.cfs_burst_us", "0")  # burst <= quota must hold while the quota changes

    def set_period() -> None:
        if period:
            files.write("cpu", "cpu.cfs_period_us", str(period))

    def set_quota() -> None:
        if quota:
            files.write("cpu", "cpu.cfs_quota_us", str(quota))

    # The parent bounds quota/period: with both changing, one order may pass through a ratio it refuses.
    _either_order(set_period, set_quota)
    if burst:
        files.write("cpu", "cpu.cfs_burst_us", str(burst))


def _pids(files: Files, resources: Mapping[str, Any]) -> None:
    limit = integer(section(resources, "pids"), "limit")
    if limit is not None:
        files.write("pids", "pids.max", str(limit) if limit > 0 else "max")


def _block_io(files: Files, resources: Mapping[str, Any]) -> None:
    block = section(resources, "blockIO")
    for key, plain, bfq in (("weight", "blkio.weight", "blkio.bfq.weight"), ("leafWeight", "blkio.leaf_weight", "")):
        value = integer(block, key)
        if value:
            _first_of(files, (plain, bfq), str(value))
    for entry in entries(block, "weightDevice"):
        number = device_number(entry)
        weight, leaf = integer(entry, "weight"), integer(entry, "leafWeight")
        if weight:
            _first_of(files, ("blkio.weight_device", "blkio.bfq.weight_device"), f"{number} {weight}")
        if leaf:
            files.write("blkio", "blkio.leaf_weight_device", f"{number} {leaf}")
    for key, word, _ in THROTTLES:
        for entry in entries(block, key):
            rate = integer(entry, "rate") or 0
            files.write("blkio", f"blkio.throttle.{word}_device", f"{device_number(entry)} {rate}")


def _first_of(files: Files, names: tuple[str, str], value: str) -> None:
    try:
        files.write("blkio", names[0], value)
    except FileNotFoundError:
        if not names[1]:
            raise
        files.write("blkio", names[1], value)


def _hugepages(files: Files, resources: Mapping[str, Any]) -> None:
    for entry in entries(resources, "hugepageLimits"):
        size, value = page_size(entry), str(integer(entry, "limit") or 0)
        files.write("hugetlb", f"hugetlb.{size}.limit_in_bytes", value)
        try:
            files.write("hugetlb", f"hugetlb.{size}.rsvd.limit_in_bytes", value)
        except FileNotFoundError:
            pass  # before Linux 5.7 reservations are not counted apart


def _network(files: Files, resources: Mapping[str, Any]) -> None:
    network = section(resources, "network")
    class_id = integer(network, "classID")
    if class_id:
        files.write("net_cls", "net_cls.classid", str(class_id))
    for entry in entries(network, "priorities"):
        files.write("net_prio", "net_prio.ifpriomap", f"{text(entry, 'name')} {integer(entry, 'priority') or 0}")


def _rdma(files: Files, resources: Mapping[str, Any]) -> None:
    for line in rdma_lines(resources):
        files.write("rdma", "rdma.max", line)


_SECTIONS: tuple[tuple[str, Callable[[Files, Mapping[str, Any]], None]], ...] = (
    ("devices", _devices),
    ("memory", _memory),
    ("cpu", _cpu),
    ("pids", _pids),
    ("blockIO", _block_io),
    ("hugepageLimits", _hugepages),
    ("network", _network),
    ("rdma", _rdma),
)
