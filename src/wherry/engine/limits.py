"""A container's limits as asked for: what is wrong with them, what this kernel cannot do, and how an update merges.

What the kernel has no means for is taken out and said in a warning, as docker does; inspect then shows it as not set.
What is wrong is InvalidArgument in docker's words. Where docker leaves a value out without a word (a live update of
throttles, swappiness or OomKillDisable, an update of devices and ulimits), Wherry does it or refuses it by name.
"""

import functools
import os
import re
from dataclasses import fields, replace
from typing import Any

from wherry.errors import Conflict, InvalidArgument
from wherry.kernel.cgroups.support import Support, detect
from wherry.spec.docker import HostConfig, ThrottleDevice, WeightDevice

_MIN_MEMORY = 6 << 20
_CPUSET = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")
_MAX_CPU = 8192
_NOT_MOUNTED = "or the cgroup is not mounted."
_THROTTLES = (
    ("blkio_device_read_bps", "BPS Block I/O read limit", "Block I/O BPS read limit"),
    ("blkio_device_write_bps", "BPS Block I/O write limit", "Block I/O BPS write limit"),
    ("blkio_device_read_iops", "IOPS Block read limit", "Block I/O IOPS read limit"),
    ("blkio_device_write_iops", "IOPS Block write limit", "Block I/O IOPS write limit"),
)
UPDATABLE = frozenset(
    field.name
    for field in fields(HostConfig)
    if field.name.startswith(("cpu", "memory", "blkio", "pids_limit", "nano_cpus", "oom_kill", "kernel_memory"))
)
"""Fields that an update of a container's limits may change."""
_FIXED_FOR_LIFE = ("devices", "device_cgroup_rules", "device_requests", "ulimits", "cgroup_parent")


@functools.cache
def supported_limits() -> Support:
    """What this host's cgroups can limit, looked up once."""
    return detect()


def settle_limits(host: HostConfig, support: Support) -> tuple[HostConfig, list[str]]:
    """`host` without what this kernel cannot limit, and the warnings that say so. InvalidArgument for what is wrong."""
    changes: dict[str, Any] = {}
    warnings: list[str] = []
    for field, wanted, supported, value, text in _discards(host, support):
        if wanted and not supported:
            changes[field] = value
            if text:
                warnings.append(text)
    host = replace(host, **changes) if changes else host
    check_limits(host)
    if host.oom_kill_disable and not host.memory:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system "
            "running out of resources."
        )
    return host, warnings


def _discards(host: HostConfig, support: Support) -> list[tuple[str, object, bool, Any, str]]:
    """(field, whether asked for, whether possible, what it becomes, the warning)."""
    memory, limited = "Your kernel does not support ", f" capabilities {_NOT_MOUNTED} Limitation discarded."
    found: list[tuple[str, object, bool, Any, str]] = [
        ("memory", host.memory, support.memory, 0, f"{memory}memory limit{limited}"),
        ("memory_swap", host.memory and not support.memory, False, -1, ""),
        (
            "memory_swap",
            host.memory > 0 and support.memory and host.memory_swap != -1,
            support.swap,
            -1,
            f"{memory}swap limit capabilities {_NOT_MOUNTED} Memory limited without swap.",
        ),
        (
            "memory_swappiness",
            host.memory_swappiness is not None,
            support.swappiness,
            None,
            f"{memory}memory swappiness capabilities {_NOT_MOUNTED} Memory swappiness discarded.",
        ),
        (
            "memory_reservation",
            host.memory_reservation,
            support.reservation,
            0,
            f"{memory}memory soft limit{limited}",
        ),
        (
            "kernel_memory_tcp",
            host.kernel_memory_tcp,
            support.kernel_tcp,
            0,
            f"{memory}kernel memory TCP limit{limited}",
        ),
        ("oom_kill_disable", host.oom_kill_disable is False, support.oom_kill_disable, None, ""),
        (
            "oom_kill_disable",
            host.oom_kill_disable,
            support.oom_kill_disable,
            None,
            f"{memory}OomKillDisable. OomKillDisable discarded.",
        ),
        (
            "pids_limit",
            host.pids_limit is not None,
            support.pids,
            None,
            f"{memory}PIDs limit capabilities {_NOT_MOUNTED} PIDs limit discarded.",
        ),
        ("cpu_shares", host.cpu_shares, support.cpu_shares, 0, f"{memory}CPU shares {_NOT_MOUNTED} Shares discarded."),
        ("cpu_period", host.cpu_period, support.cpu_cfs, 0, f"{memory}CPU CFS scheduler. CPU period discarded."),
        ("cpu_quota", host.cpu_quota, support.cpu_cfs, 0, f"{memory}CPU CFS scheduler. CPU quota discarded."),
        (
            "cpu_realtime_period",
            host.cpu_realtime_period,
            support.cpu_realtime,
            0,
            f"{memory}CPU real-time scheduler {_NOT_MOUNTED} CPU real-time period discarded.",
        ),
        (
            "cpu_realtime_runtime",
            host.cpu_realtime_runtime,
            support.cpu_realtime,
            0,
            f"{memory}CPU real-time scheduler {_NOT_MOUNTED} CPU real-time runtime discarded.",
        ),
        ("cpuset_cpus", host.cpuset_cpus, support.cpuset, "", f"{memory}cpuset {_NOT_MOUNTED} Cpuset discarded."),
        ("cpuset_mems", host.cpuset_mems, support.cpuset, "", f"{memory}cpuset {_NOT_MOUNTED} Cpuset discarded."),
        (
            "blkio_weight",
            host.blkio_weight,
            support.blkio_weight,
            0,
            f"{memory}Block I/O weight {_NOT_MOUNTED} Weight discarded.",
        ),
        (
            "blkio_weight_device",
            host.blkio_weight_device,
            support.blkio_weight_device,
            None,
            f"{memory}Block I/O weight_device {_NOT_MOUNTED} Weight-device discarded.",
        ),
        # Windows has them; they mean nothing here.
        ("cpu_percent", host.cpu_percent, False, 0, "linux does not support CPU percent. Percent discarded."),
        ("cpu_count", host.cpu_count, False, 0, "linux does not support CPU count. Count discarded."),
    ]
    for field, name, shown in _THROTTLES:
        text = f"{memory}{name} {_NOT_MOUNTED} {shown} discarded."
        found.append((field, getattr(host, field), support.blkio_throttle, None, text))
    return found


def check_limits(host: HostConfig) -> None:
    """InvalidArgument with docker's words for limits that cannot be."""
    _check_memory(host)
    _check_cpu(host)
    if host.io_maximum_iops:
        raise InvalidArgument("invalid option: QoS maximum IOPs configuration is not supported on linux")
    if host.io_maximum_bandwidth:
        raise InvalidArgument("invalid option: QoS maximum bandwidth configuration is not supported on linux")
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000", object="BlkioWeight")
    for device in host.blkio_weight_device or ():
        _check_weight_device(device)
    for field, _, shown in _THROTTLES:
        limits: tuple[ThrottleDevice, ...] = getattr(host, field) or ()
        for limit in limits:
            if limit.rate < 0:
                raise InvalidArgument(f"the rate of a {shown} cannot be negative: {limit.path}", object=limit.path)


def _check_weight_device(device: WeightDevice) -> None:
    if not 10 <= device.weight <= 1000:
        raise InvalidArgument(f"Range of blkio weight is from 10 to 1000: {device.path}", object=device.path)


def _check_memory(host: HostConfig) -> None:
    if host.memory < 0 or 0 < host.memory < _MIN_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB", object="Memory")
    if host.memory_swap > 0 and not host.memory:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.memory and 0 < host.memory_swap < host.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if 0 < host.memory_reservation < _MIN_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB", object="MemoryReservation")
    if host.memory and host.memory_reservation > host.memory:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    swappiness = host.memory_swappiness
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")


def _check_cpu(host: HostConfig) -> None:
    if host.nano_cpus:
        for name, value in (("Period", host.cpu_period), ("Quota", host.cpu_quota)):
            if value:
                raise InvalidArgument(f"Conflicting options: Nano CPUs and CPU {name} cannot both be set")
        cpus = os.cpu_count() or 1
        if not 10_000_000 <= host.nano_cpus <= cpus * 1_000_000_000:
            raise InvalidArgument(
                f"range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available", object="NanoCpus"
            )
    if host.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    if host.cpu_shares == 1:
        raise InvalidArgument("the minimum allowed cpu-shares is 2", object="CpuShares")
    if host.cpu_shares > 262144:
        raise InvalidArgument("the maximum allowed cpu-shares is 262144", object="CpuShares")
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < host.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host.cpu_realtime_period and host.cpu_realtime_runtime > host.cpu_realtime_period:
        raise InvalidArgument("cpu real-time runtime cannot be higher than cpu real-time period")
    _check_cpuset("cpus", "CPUs", host.cpuset_cpus, "/sys/devices/system/cpu/online")
    _check_cpuset("mems", "memory nodes", host.cpuset_mems, "/sys/devices/system/node/online")


def _check_cpuset(kind: str, shown: str, text: str, online: str) -> None:
    if not text:
        return
    what = f"Invalid value {text} for cpuset {kind}"
    if len(text) > 1 << 16 or not _CPUSET.fullmatch(text):
        raise InvalidArgument(f"{what}: invalid format: {text}", object=text)
    for low, high in _ranges(text):
        if low > high:
            raise InvalidArgument(f"{what}: invalid format: {text}", object=text)
        if high > _MAX_CPU:
            raise InvalidArgument(f"{what}: value of out range, maximum is {_MAX_CPU}", object=text)
    try:
        with open(online) as file:
            available = file.read().strip()
    except OSError:
        return
    if any(not _covers(available, low, high) for low, high in _ranges(text)):
        raise InvalidArgument(
            f"Requested {shown} are not available - requested {text}, available: {available}", object=text
        )


def _ranges(text: str) -> list[tuple[int, int]]:
    pairs = (part.partition("-") for part in text.split(","))
    # Longer numbers than the kernel could mean are out of range whatever they are.
    return [(_bounded(low), _bounded(high or low)) for low, _, high in pairs]


def _bounded(digits: str) -> int:
    return int(digits) if len(digits) < 10 else 1 << 31


def _covers(available: str, low: int, high: int) -> bool:
    return any(first <= low and high <= last for first, last in _ranges(available))


def merge_limits(current: HostConfig, wanted: HostConfig, support: Support) -> tuple[HostConfig, list[str]]:
    """`current` with the limits that `wanted` names, and warnings. Conflict and InvalidArgument in docker's words."""
    empty = HostConfig()
    for name in _FIXED_FOR_LIFE:
        value = getattr(wanted, name)
        if value and value != getattr(current, name):
            raise InvalidArgument(
                f"{name} of a container cannot be changed by an update of its resources",
                object=name,
                hint="make the container anew",
            )
    _refuse_conflicts(current, wanted)
    if wanted.pids_limit is not None and wanted.pids_limit <= 0:
        wanted = replace(wanted, pids_limit=0)
    if wanted.memory_swap > 0 and not wanted.memory:
        # It is held against the limit that is there already.
        wanted = replace(wanted, memory=current.memory)
    wanted, warnings = settle_limits(wanted, support)
    changes = {name: getattr(wanted, name) for name in UPDATABLE if getattr(wanted, name) != getattr(empty, name)}
    host = replace(current, **changes)
    if host.memory and not host.memory_swap:
        host = replace(host, memory_swap=host.memory * 2)
    check_limits(host)
    return host, warnings


def _refuse_conflicts(current: HostConfig, wanted: HostConfig) -> None:
    if wanted.memory and not wanted.memory_swap and 0 < current.memory_swap < wanted.memory:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    if wanted.nano_cpus:
        for name, value in (("CPU Period", current.cpu_period), ("CPU Quota", current.cpu_quota)):
            if value:
                raise Conflict(f"Conflicting options: Nano CPUs cannot be updated as {name} has already been set")
    if current.nano_cpus:
        for name, value in (("CPU Period", wanted.cpu_period), ("CPU Quota", wanted.cpu_quota)):
            if value:
                raise Conflict(f"Conflicting options: {name} cannot be updated as NanoCPUs has already been set")
