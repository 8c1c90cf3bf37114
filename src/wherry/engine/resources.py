"""HostConfig's limits and devices as OCI `linux.resources` and `linux.devices` (runtime-spec config-linux.md)."""

import os
import stat
from typing import Any

from wherry.errors import Internal, InvalidArgument
from wherry.spec.docker import DeviceMapping, HostConfig, ThrottleDevice

_CPU_PERIOD = 100_000
_DEFAULT_RULES: tuple[dict[str, Any], ...] = (
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
    {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
    {"allow": True, "type": "c", "major": 1, "minor": 9, "access": "rwm"},
    {"allow": True, "type": "c", "major": 1, "minor": 8, "access": "rwm"},
    {"allow": True, "type": "c", "major": 5, "minor": 0, "access": "rwm"},
    {"allow": True, "type": "c", "major": 5, "minor": 1, "access": "rwm"},
    {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
)


def limits(host: HostConfig) -> dict[str, Any]:
    """The limits alone: also what `update` sends."""
    sections = (("cpu", _cpu(host)), ("memory", _memory(host)), ("blockIO", _block_io(host)))
    found: dict[str, Any] = {name: section for name, section in sections if section}
    if host.pids_limit is not None and host.pids_limit != 0:
        found["pids"] = {"limit": host.pids_limit}
    return found


def resources(host: HostConfig, device_rules: list[dict[str, Any]]) -> dict[str, Any]:
    """Limits and device rules."""
    if host.privileged:
        rules: list[dict[str, Any]] = [{"allow": True, "access": "rwm"}]
    else:
        rules = [*_DEFAULT_RULES, *device_rules, *(_parse_rule(rule) for rule in host.device_cgroup_rules or ())]
    return {"devices": rules, **limits(host)}


def _cpu(host: HostConfig) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if host.nano_cpus:
        found |= {"period": _CPU_PERIOD, "quota": host.nano_cpus * _CPU_PERIOD // 1_000_000_000}
    for name, value in (
        ("shares", host.cpu_shares),
        ("period", host.cpu_period),
        ("quota", host.cpu_quota),
        ("realtimePeriod", host.cpu_realtime_period),
        ("realtimeRuntime", host.cpu_realtime_runtime),
        ("cpus", host.cpuset_cpus),
        ("mems", host.cpuset_mems),
    ):
        if value:
            found[name] = value
    return found


def _memory(host: HostConfig) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if host.memory:
        found["limit"] = host.memory
        # Docker's default: as much swap again as memory.
        found["swap"] = host.memory_swap or host.memory * 2
    elif host.memory_swap:
        found["swap"] = host.memory_swap
    if host.memory_reservation:
        found["reservation"] = host.memory_reservation
    if host.memory_swappiness is not None and host.memory_swappiness >= 0:
        found["swappiness"] = host.memory_swappiness
    if host.oom_kill_disable:
        found["disableOOMKiller"] = True
    if host.kernel_memory_tcp:
        found["kernelTCP"] = host.kernel_memory_tcp
    return found


def _block_io(host: HostConfig) -> dict[str, Any]:
    found: dict[str, Any] = {"weight": host.blkio_weight} if host.blkio_weight else {}
    if host.blkio_weight_device:
        found["weightDevice"] = [
            {**_block_numbers(device.path), "weight": device.weight} for device in host.blkio_weight_device
        ]
    for name, throttles in (
        ("throttleReadBpsDevice", host.blkio_device_read_bps),
        ("throttleWriteBpsDevice", host.blkio_device_write_bps),
        ("throttleReadIOPSDevice", host.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", host.blkio_device_write_iops),
    ):
        if throttles:
            found[name] = [_throttle(device) for device in throttles]
    return found


def _throttle(device: ThrottleDevice) -> dict[str, int]:
    return {**_block_numbers(device.path), "rate": device.rate}


def _block_numbers(path: str) -> dict[str, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise InvalidArgument(f"{path}: {os.strerror(error.errno or 0).lower()}", object=path) from None
    return {"major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev)}


def _parse_rule(rule: str) -> dict[str, Any]:
    kind, numbers, access = rule.split(" ")
    major, minor = numbers.split(":")
    return {
        "allow": True,
        "type": kind,
        "major": -1 if major == "*" else int(major),
        "minor": -1 if minor == "*" else int(minor),
        "access": access,
    }


def devices(host: HostConfig) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """`linux.devices` and the rules that allow them. All of the host's when privileged."""
    if host.privileged:
        return _host_devices(), []
    made: list[dict[str, Any]] = []
    rules: list[dict[str, Any]] = []
    for mapping in host.devices or ():
        for path, target in _expand(mapping):
            device = _describe(path, target)
            made.append(device)
            rules.append(
                {
                    "allow": True,
                    "type": device["type"],
                    "major": device["major"],
                    "minor": device["minor"],
                    "access": mapping.cgroup_permissions or "rwm",
                }
            )
    return made, rules


def _expand(mapping: DeviceMapping) -> list[tuple[str, str]]:
    """One device, or every device in a directory."""
    source = mapping.path_on_host
    target = mapping.path_in_container or source
    try:
        mode = os.stat(source).st_mode
    except OSError as error:
        raise Internal(
            f'error gathering device information while adding custom device "{source}": '
            f"{os.strerror(error.errno or 0).lower()}",
            object=source,
        ) from None
    if not stat.S_ISDIR(mode):
        if not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
            raise Internal(
                f'error gathering device information while adding custom device "{source}": not a device node'
            )
        return [(source, target)]
    found = []
    for directory, _, names in os.walk(source):
        for name in sorted(names):
            path = os.path.join(directory, name)
            kind = os.lstat(path).st_mode
            if stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
                found.append((path, target + path[len(source) :]))
    return found


def _describe(path: str, target: str) -> dict[str, Any]:
    status = os.stat(path)
    return {
        "path": target,
        "type": "c" if stat.S_ISCHR(status.st_mode) else "b",
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


# What the runtime makes itself, and what is a mount.
_OWN_DEVICES = frozenset(
    f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "console", "ptmx")
)


def _host_devices() -> list[dict[str, Any]]:
    found = []
    for directory, subdirectories, names in os.walk("/dev"):
        subdirectories[:] = [name for name in subdirectories if name not in ("pts", "shm", "mqueue", "fd", ".lxc")]
        for name in names:
            path = os.path.join(directory, name)
            if path in _OWN_DEVICES:
                continue
            try:
                mode = os.lstat(path).st_mode
            except FileNotFoundError:
                continue
            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                found.append(_describe(path, path))
    return found
