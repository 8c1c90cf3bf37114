"""OCI `linux.resources`, which speaks v1's language, on cgroup v2.

Conversions are those the field has agreed on, so that a container gets the same share under any runtime:
blockIO weight 10..1000 to io.weight 1..10000 linearly, swap from "memory and swap" to swap alone, and cpu shares
2..262144 to cpu.weight 1..10000 by the curve that maps both ends and the defaults (1024 and 100) onto each other.
"""

from __future__ import annotations

import errno
import math

from wherry.kernel.cgroups import devices
from wherry.kernel.cgroups.device_program import program
from wherry.kernel.cgroups.files import number
from wherry.kernel.cgroups.resources import (
    THROTTLES,
    Files,
    device_number,
    entries,
    integer,
    invalid,
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
    from typing import Any, Protocol

    class V2Files(Files, Protocol):
        """The files of a v2 cgroup, and its device program."""

        def attach_devices(self, program: bytes) -> None:
            """Put the program in place of the one that is there."""


def apply(files: V2Files, resources: Mapping[str, Any]) -> None:
    """Write what `resources` names; `unified` last, as it has the last word."""
    rules = devices.parse(entries(resources, "devices"))
    if rules:
        files.attach_devices(program(rules))
    for name, setter in _SECTIONS:
        if resources.get(name):
            setter(files, resources)


def cpu_weight(shares: int) -> int:
    """cpu.weight for v1's cpu.shares."""
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    exponent = math.log2(shares)
    return math.ceil(10 ** ((exponent * exponent + 125 * exponent) / 612 - 7 / 34))


def io_weight(weight: int) -> int:
    """io.weight for v1's blkio.weight."""
    return 1 + (weight - 10) * 9999 // 990


def _memory(files: Files, resources: Mapping[str, Any]) -> None:
    memory = section(resources, "memory")
    if memory.get("disableOOMKiller"):
        raise unsupported("memory.disableOOMKiller", "v2")
    for key in ("swappiness", "kernelTCP"):
        if integer(memory, key) is not None:
            raise unsupported(f"memory.{key}", "v2")
    limit, total = memory_pair(memory)
    if limit > 0 and memory.get("checkBeforeUpdate"):
        usage = number(files.read("memory", "memory.current"))
        if usage > limit:
            raise OSError(errno.EBUSY, f"memory limit {limit} is below what is in use, {usage}")
    if total > 0 and limit <= 0:
        raise OSError(
            errno.EINVAL, "linux.resources: memory.swap, which includes memory, needs memory.limit on cgroup v2"
        )
    if total:
        _swap(files, "max" if total < 0 else str(total - limit))
    if limit:
        files.write("memory", "memory.max", _or_max(limit))
    reservation = integer(memory, "reservation")
    if reservation:
        files.write("memory", "memory.low", _or_max(reservation))


def _swap(files: Files, value: str) -> None:
    try:
        files.write("memory", "memory.swap.max", value)
    except FileNotFoundError:
        # Without swap accounting there is nothing to limit; and no swap to forbid when it is off.
        if value not in ("max", "0"):
            raise


def _or_max(value: int) -> str:
    return "max" if value < 0 else str(value)


def _cpu(files: Files, resources: Mapping[str, Any]) -> None:
    cpu = section(resources, "cpu")
    if integer(cpu, "realtimePeriod") or integer(cpu, "realtimeRuntime"):
        raise unsupported("a realtime share", "v2")
    shares, idle = integer(cpu, "shares"), integer(cpu, "idle")
    if idle == 0:
        files.write("cpu", "cpu.idle", "0")  # an idle group refuses a weight
    if shares:
        files.write("cpu", "cpu.weight", str(cpu_weight(shares)))
    if idle:
        files.write("cpu", "cpu.idle", str(idle))
    _quota(files, cpu)
    for key in ("cpus", "mems"):
        wanted = text(cpu, key)
        if wanted:
            files.write("cpuset", f"cpuset.{key}", wanted)


def _quota(files: Files, cpu: Mapping[str, Any]) -> None:
    period, quota, burst = integer(cpu, "period"), integer(cpu, "quota"), integer(cpu, "burst")
    if burst is not None:
        files.write("cpu", "cpu.max.burst", "0")  # burst <= quota must hold while the quota changes
    if period or quota:
        # The file takes the quota alone, but not the period alone.
        current = quota or (files.read("cpu", "cpu.max").split() or ["max"])[0]
        wanted = "max" if quota and quota < 0 else str(current)
        files.write("cpu", "cpu.max", f"{wanted} {period}" if period else wanted)
    if burst:
        files.write("cpu", "cpu.max.burst", str(burst))


def _pids(files: Files, resources: Mapping[str, Any]) -> None:
    limit = integer(section(resources, "pids"), "limit")
    if limit is not None:
        files.write("pids", "pids.max", str(limit) if limit > 0 else "max")


def _block_io(files: Files, resources: Mapping[str, Any]) -> None:
    block = section(resources, "blockIO")
    if integer(block, "leafWeight"):
        raise unsupported("blockIO.leafWeight", "v2")
    weight = integer(block, "weight")
    if weight:
        _weigh(files, "", weight)
    for entry in entries(block, "weightDevice"):
        if integer(entry, "leafWeight"):
            raise unsupported("blockIO.weightDevice.leafWeight", "v2")
        weight = integer(entry, "weight")
        if weight:
            _weigh(files, device_number(entry) + " ", weight)
    for key, _, word in THROTTLES:
        for entry in entries(block, key):
            files.write("io", "io.max", f"{device_number(entry)} {word}={integer(entry, 'rate') or 'max'}")


def _weigh(files: Files, device: str, weight: int) -> None:
    try:
        # BFQ's file is there when its scheduler is, and has v1's range.
        files.write("io", "io.bfq.weight", f"{device}{weight}")
    except FileNotFoundError:
        files.write("io", "io.weight", f"{device or 'default '}{io_weight(weight)}")


def _hugepages(files: Files, resources: Mapping[str, Any]) -> None:
    for entry in entries(resources, "hugepageLimits"):
        size, value = page_size(entry), str(integer(entry, "limit") or 0)
        files.write("hugetlb", f"hugetlb.{size}.max", value)
        try:
            files.write("hugetlb", f"hugetlb.{size}.rsvd.max", value)
        except FileNotFoundError:
            pass  # before Linux 5.7 reservations are not counted apart


def _network(files: Files, resources: Mapping[str, Any]) -> None:
    network = section(resources, "network")
    if integer(network, "classID") or network.get("priorities"):
        raise unsupported("network", "v2")


def _rdma(files: Files, resources: Mapping[str, Any]) -> None:
    for line in rdma_lines(resources):
        files.write("rdma", "rdma.max", line)


def _unified(files: Files, resources: Mapping[str, Any]) -> None:
    for name, value in section(resources, "unified").items():
        if "/" in name or "." not in name or not isinstance(value, str):
            raise invalid("unified", "strings by file name", name)
        controller = name.partition(".")[0]
        # Several devices' lines are one value here, but one write each to the kernel.
        for line in value.splitlines() or [""]:
            files.write("" if controller == "cgroup" else controller, name, line)


_SECTIONS: tuple[tuple[str, Callable[[Files, Mapping[str, Any]], None]], ...] = (
    ("memory", _memory),
    ("cpu", _cpu),
    ("pids", _pids),
    ("blockIO", _block_io),
    ("hugepageLimits", _hugepages),
    ("network", _network),
    ("rdma", _rdma),
    ("unified", _unified),
)
