"""HostConfig's limits and devices as OCI `linux.resources` and `linux.devices` (runtime-spec config-linux.md)."""

import os
import re
import stat
from contextlib import suppress
from typing import Any

from wherry.errors import FailedPrecondition, Internal, InvalidArgument
from wherry.kernel.cgroups import layout
from wherry.spec.docker import DeviceMapping, HostConfig, ThrottleDevice, WeightDevice

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
    if host.pids_limit is not None:
        found["pids"] = {"limit": host.pids_limit if host.pids_limit > 0 else -1}
    return found


def limit_changes(before: HostConfig, after: HostConfig) -> dict[str, Any]:
    """What an update of a running container sends: all limits, and the end of throttles that `after` no longer has."""
    found = limits(after)
    try:
        old = _block_io(before)
    except FailedPrecondition:
        old = {}  # a device that is gone has no throttle
    new = found.get("blockIO", {})
    for name in _THROTTLES:
        kept = {(entry["major"], entry["minor"]) for entry in new.get(name, ())}
        ended = [entry | {"rate": 0} for entry in old.get(name, ()) if (entry["major"], entry["minor"]) not in kept]
        if ended:
            found["blockIO"] = new = {**new, name: [*new.get(name, ()), *ended]}
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
        found["swap"] = max(host.memory_swap or host.memory * 2, -1)
    elif host.memory_swap:
        found["swap"] = max(host.memory_swap, -1)
    if host.memory_reservation:
        found["reservation"] = max(host.memory_reservation, -1)
    if host.memory_swappiness is not None and host.memory_swappiness >= 0:
        found["swappiness"] = host.memory_swappiness
    if host.oom_kill_disable:
        found["disableOOMKiller"] = True
    if host.kernel_memory_tcp:
        found["kernelTCP"] = max(host.kernel_memory_tcp, -1)
    return found


def _block_io(host: HostConfig) -> dict[str, Any]:
    found: dict[str, Any] = {"weight": host.blkio_weight} if host.blkio_weight else {}
    if host.blkio_weight_device:
        found["weightDevice"] = [_weight(device) for device in host.blkio_weight_device]
    throttles = (
        host.blkio_device_read_bps,
        host.blkio_device_write_bps,
        host.blkio_device_read_iops,
        host.blkio_device_write_iops,
    )
    for name, devices_ in zip(_THROTTLES, throttles, strict=True):
        if devices_:
            found[name] = [_throttle(device) for device in devices_]
    return found


_THROTTLES = (
    "throttleReadBpsDevice",
    "throttleWriteBpsDevice",
    "throttleReadIOPSDevice",
    "throttleWriteIOPSDevice",
)


def _weight(device: WeightDevice) -> dict[str, int]:
    numbers = _block_numbers(device.path)
    if layout().version == 1 and not _uses_bfq("{major}:{minor}".format(**numbers)):
        raise FailedPrecondition(
            f"a weight cannot be set for {device.path}: it does not use the BFQ scheduler", object=device.path
        )
    return {**numbers, "weight": device.weight}


def _uses_bfq(number: str) -> bool:
    # A partition's queue is its disk's.
    for place in ("queue", "../queue"):
        try:
            with open(f"/sys/dev/block/{number}/{place}/scheduler") as file:
                return "[bfq]" in file.read()
        except FileNotFoundError:
            continue
    return False


def _throttle(device: ThrottleDevice) -> dict[str, int]:
    return {**_block_numbers(device.path), "rate": device.rate}


def _block_numbers(path: str) -> dict[str, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise FailedPrecondition(f"stat {path}: {os.strerror(error.errno or 0).lower()}", object=path) from None
    if not stat.S_ISBLK(status.st_mode):
        raise InvalidArgument(f"{path} is no block device, so its I/O cannot be limited: no such device", object=path)
    return {"major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev)}


def check_rule(rule: str) -> None:
    """InvalidArgument with docker's words when `rule` is none of --device-cgroup-rule's."""
    match = _DEVICE_RULE.fullmatch(rule)
    if not match:
        raise InvalidArgument(f"invalid device cgroup rule format: '{rule}'", object=rule)
    for name, digits in (("major", match[2]), ("minor", match[3])):
        if digits != "*" and (len(digits) > 10 or int(digits) > _MAX_NUMBER):
            raise InvalidArgument(f"invalid {name} value in device cgroup rule format: '{rule}'", object=rule)


_DEVICE_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")
_MAX_NUMBER = 2**31 - 1


def check_mapping(mapping: DeviceMapping) -> None:
    """InvalidArgument for permissions that are none."""
    if set(mapping.cgroup_permissions) - set("rwm"):
        raise InvalidArgument(
            f"invalid device mode: {mapping.cgroup_permissions}", object=mapping.path_on_host, hint="r, w and m"
        )


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
            device = describe_device(path, target)
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
    target = "/" + (mapping.path_in_container or source).lstrip("/")
    try:
        mode = os.stat(source).st_mode
    except OSError as error:
        raise _not_gathered(source, os.strerror(error.errno or 0).lower()) from None
    if not stat.S_ISDIR(mode):
        if not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
            raise _not_gathered(source, "not a device node")
        return [(source, target)]
    found = []
    for directory, _, names in os.walk(source):
        for name in sorted(names):
            path = os.path.join(directory, name)
            kind = os.lstat(path).st_mode
            if stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
                found.append((path, target + path[len(source) :]))
    if not found:
        raise _not_gathered(source, "no such file or directory")
    return found


def _not_gathered(source: str, reason: str) -> Internal:
    return Internal(
        f'error gathering device information while adding custom device "{source}": {reason}', object=source
    )


def describe_device(path: str, target: str) -> dict[str, Any]:
    """The device node `path` of the host as an entry of `linux.devices` at `target`."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise _not_gathered(path, os.strerror(error.errno or 0).lower()) from None
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise _not_gathered(path, "not a device node")
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
                with suppress(Internal):  # gone meanwhile
                    found.append(describe_device(path, path))
    return found
