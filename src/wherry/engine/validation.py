"""What a create request may say. Everything Wherry does not do is refused here by name; nothing is silently dropped."""

import ipaddress
import os
import re

from wherry.engine.signals import parse_signal
from wherry.errors import InvalidArgument, Unimplemented
from wherry.logs.target import check_options
from wherry.spec.docker import ContainerConfig, HealthConfig, HostConfig, NetworkingConfig, RestartPolicy

_MIN_MEMORY = 6 << 20
_POLICIES = ("", "no", "always", "on-failure", "unless-stopped")
_CPUSET = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")
_DEVICE_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")


def check_config(config: ContainerConfig) -> None:
    """InvalidArgument or Unimplemented for what is wrong with a container's configuration."""
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path",
            object=config.working_dir,
        )
    for item in config.env or ():
        if not item or item.startswith("="):
            raise InvalidArgument(f"invalid environment variable: {item}", object=item)
        if "\0" in item:
            raise InvalidArgument("an environment variable holds a NUL byte")
    if any("\0" in word for word in (*(config.cmd or ()), *(config.entrypoint or ()))):
        raise InvalidArgument("the command holds a NUL byte")
    if config.stop_signal:
        parse_signal(config.stop_signal)
    if len(config.hostname) > 64 or len(config.domainname) > 64:
        raise InvalidArgument("the hostname and the domain name can have 64 bytes at most", object=config.hostname)
    _check_health(config.healthcheck)
    if config.mac_address:
        check_mac(config.mac_address)


def _check_health(health: HealthConfig | None) -> None:
    if health is None or not health.test or health.test[0] == "NONE":
        return
    raise Unimplemented("health checks are not supported yet", object="Healthcheck", hint="run with --no-healthcheck")


def check_mac(text: str) -> None:
    """InvalidArgument when `text` is no hardware address."""
    if not _MAC.fullmatch(text):
        raise InvalidArgument(f"invalid config for network bridge: invalid MAC address {text}", object=text)


def check_host(config: ContainerConfig, host: HostConfig, networking: NetworkingConfig) -> None:
    """InvalidArgument or Unimplemented for what is wrong with a host configuration."""
    _refuse_unsupported(host)
    check_restart_policy(host.restart_policy, host.auto_remove)
    _check_modes(config, host)
    check_resources(host)
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(
            f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]", object="OomScoreAdj"
        )
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0", object="ShmSize")
    for address in host.dns or ():
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise InvalidArgument(f"bad nameserver address {address}: not an IP address", object=address) from None
    for line in (*(host.dns_search or ()), *(host.dns_options or ())):
        if any(character.isspace() for character in line):
            raise InvalidArgument(f"a DNS search domain or option cannot hold white space: {line!r}", object=line)
    for entry in host.extra_hosts or ():
        _check_extra_host(entry)
    for rule in host.device_cgroup_rules or ():
        if not _DEVICE_RULE.fullmatch(rule):
            raise InvalidArgument(f"invalid device cgroup rule format: '{rule}'", object=rule)
    if any(not name for name in host.annotations or ()):
        raise InvalidArgument("invalid Annotations: the empty string is not permitted as an annotation key")
    check_options(host.log_config.type, host.log_config.config or {})
    _check_networking(host, networking)


def _refuse_unsupported(host: HostConfig) -> None:
    if host.isolation not in ("", "default"):
        raise InvalidArgument(f"invalid isolation ({host.isolation}): linux only supports 'default'")
    if host.runtime not in ("", "wherry", "runc", "io.containerd.runc.v2"):
        raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime}", object=host.runtime)
    refused = {
        "Links": host.links,
        "DeviceRequests": host.device_requests,
        "StorageOpt": host.storage_opt,
        "Init": host.init,
        "Cgroup": host.cgroup,
        "CpuCount": host.cpu_count,
        "CpuPercent": host.cpu_percent,
        "IOMaximumIOps": host.io_maximum_iops,
        "IOMaximumBandwidth": host.io_maximum_bandwidth,
        "VolumeDriver": host.volume_driver not in ("", "local") and host.volume_driver,
    }
    for name, value in refused.items():
        if value:
            raise Unimplemented(f"HostConfig.{name} is not supported yet", object=name)
    if host.userns_mode not in ("", "host"):
        raise Unimplemented(f"user namespace mode {host.userns_mode!r} is not supported yet", object="UsernsMode")


def check_restart_policy(policy: RestartPolicy, auto_remove: bool) -> None:
    """InvalidArgument with docker's words."""
    if policy.name not in _POLICIES:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always', 'on-failure', or "
            "'unless-stopped'",
            object=policy.name,
        )
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidArgument("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if policy.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if auto_remove and policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def _check_modes(config: ContainerConfig, host: HostConfig) -> None:
    _check_joinable("PID", host.pid_mode, ("", "host"))
    _check_joinable("IPC", host.ipc_mode, ("", "host", "private", "shareable", "none"))
    if host.uts_mode not in ("", "host"):
        raise InvalidArgument(f"invalid UTS mode: {host.uts_mode}", object="UTSMode")
    if host.cgroupns_mode not in ("", "host", "private"):
        raise InvalidArgument(f"invalid cgroup namespace mode: {host.cgroupns_mode}", object="CgroupnsMode")
    if host.uts_mode == "host" and config.hostname:
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    joins, kind = host.network_mode.startswith("container:"), "container type"
    if joins and not host.network_mode.removeprefix("container:"):
        raise InvalidArgument("invalid network mode: invalid container format container:<name|id>")
    if joins and config.hostname:
        raise InvalidArgument("conflicting options: hostname and the network mode")
    if joins:
        for name, value in (
            ("dns", host.dns),
            ("custom host-to-IP mapping", host.extra_hosts),
            ("port publishing", host.port_bindings),
            ("port exposing", config.exposed_ports),
        ):
            if value:
                raise InvalidArgument(f"conflicting options: {name} and the {kind} network mode")


def _check_joinable(kind: str, mode: str, plain: tuple[str, ...]) -> None:
    if mode not in plain and not (mode.startswith("container:") and mode != "container:"):
        raise InvalidArgument(f"invalid {kind} mode: {mode}", object=mode)


def _check_extra_host(entry: str) -> None:
    name, separator, address = entry.partition(":")
    if not separator or not name:
        raise InvalidArgument(f'bad format for add-host: "{entry}"', object=entry)
    if address == "host-gateway":
        return
    try:
        ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        raise InvalidArgument(f'invalid IP address in add-host: "{address}"', object=entry) from None


def _check_networking(host: HostConfig, networking: NetworkingConfig) -> None:
    endpoints = networking.endpoints_config or {}
    if len(endpoints) > 1:
        raise Unimplemented("connecting a container to several networks is not supported yet", object="EndpointsConfig")
    for name, settings in endpoints.items():
        if settings is None:
            continue
        if settings.links or settings.driver_opts:
            raise Unimplemented(f"links and driver options on network {name} are not supported yet", object=name)
        if settings.aliases and name in ("bridge", "default", "host", "none"):
            raise InvalidArgument("network-scoped alias is supported only for containers in user defined networks")
        if settings.mac_address:
            check_mac(settings.mac_address)
        addresses = settings.ipam_config
        if addresses and (addresses.ipv4_address or addresses.ipv6_address or addresses.link_local_ips):
            raise InvalidArgument(
                f"invalid config for network {name}: invalid endpoint settings:\n"
                "* user specified IP address is supported on user defined networks only\n"
                "* user specified IP address is supported only when connecting to networks with user "
                "configured subnets",
                object=name,
            )


def check_resources(host: HostConfig) -> None:
    """InvalidArgument with docker's words for limits that cannot be."""
    _check_memory(host)
    cpus = os.cpu_count() or 1
    if host.nano_cpus:
        for name, value in (("Period", host.cpu_period), ("Quota", host.cpu_quota)):
            if value:
                raise InvalidArgument(f"Conflicting options: Nano CPUs and CPU {name} cannot both be set")
        if not 10_000_000 <= host.nano_cpus <= cpus * 1_000_000_000:
            raise InvalidArgument(
                f"range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available", object="NanoCpus"
            )
    if host.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < host.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000", object="BlkioWeight")
    if host.pids_limit is not None and host.pids_limit < -1:
        raise InvalidArgument("PIDs limit can not be less than -1", object="PidsLimit")
    _check_cpuset("cpus", "CPUs", host.cpuset_cpus, "/sys/devices/system/cpu/online")
    _check_cpuset("mems", "memory nodes", host.cpuset_mems, "/sys/devices/system/node/online")


def _check_memory(host: HostConfig) -> None:
    if host.memory < 0 or 0 < host.memory < _MIN_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB", object="Memory")
    if host.memory_swap > 0 and not host.memory:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.memory and 0 < host.memory_swap < host.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.memory_reservation < 0 or 0 < host.memory_reservation < _MIN_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB", object="MemoryReservation")
    if host.memory and host.memory_reservation > host.memory:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    swappiness = host.memory_swappiness
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")


def _check_cpuset(kind: str, shown: str, text: str, online: str) -> None:
    if not text:
        return
    if not _CPUSET.fullmatch(text):
        raise InvalidArgument(f"Invalid value {text} for cpuset {kind}: invalid format: {text}", object=text)
    try:
        with open(online) as file:
            available = file.read().strip()
    except OSError:
        return
    if any(not _members(available, low, high) for low, high in _ranges(text)):
        raise InvalidArgument(
            f"Requested {shown} are not available - requested {text}, available: {available}", object=text
        )


def _ranges(text: str) -> list[tuple[int, int]]:
    pairs = (part.partition("-") for part in text.split(","))
    return [(int(low), int(high or low)) for low, _, high in pairs]


def _members(available: str, low: int, high: int) -> bool:
    return low <= high and any(first <= low and high <= last for first, last in _ranges(available))
