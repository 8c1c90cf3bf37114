"""What a create request may say. Everything Wherry does not do is refused here by name; nothing is silently dropped."""

import ipaddress
import re

from wherry.engine.health import check_health
from wherry.engine.resources import check_mapping, check_rule
from wherry.engine.signals import parse_signal
from wherry.errors import InvalidArgument, Unimplemented
from wherry.kernel.syscalls import ARCH
from wherry.logs.options import check_options
from wherry.runtime.machine.assembly import assembler_for
from wherry.spec.docker import ContainerConfig, HostConfig, NetworkingConfig, RestartPolicy

_POLICIES = ("", "no", "always", "on-failure", "unless-stopped")
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")


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
    check_health(config.healthcheck)
    if config.mac_address:
        check_mac(config.mac_address)


def check_mac(text: str) -> None:
    """InvalidArgument when `text` is no hardware address."""
    if not _MAC.fullmatch(text):
        raise InvalidArgument(f"invalid config for network bridge: invalid MAC address {text}", object=text)


def check_host(config: ContainerConfig, host: HostConfig, networking: NetworkingConfig) -> None:
    """InvalidArgument or Unimplemented for what is wrong with a host configuration."""
    _refuse_unsupported(host)
    check_restart_policy(host.restart_policy, host.auto_remove)
    _check_modes(config, host)
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
        check_rule(rule)
    for device in host.devices or ():
        check_mapping(device)
    for path in (*(host.masked_paths or ()), *(host.readonly_paths or ())):
        if not path.startswith("/"):
            raise InvalidArgument(f"a masked or read-only path must be absolute, not {path!r}", object=path)
    if any(not name for name in host.annotations or ()):
        raise InvalidArgument("invalid Annotations: the empty string is not permitted as an annotation key")
    check_options(host.log_config.type, host.log_config.config or {})
    _check_networking(networking)


def _refuse_unsupported(host: HostConfig) -> None:
    if host.isolation not in ("", "default"):
        raise InvalidArgument(f"invalid isolation ({host.isolation}): linux only supports 'default'")
    if host.init:
        assembler_for(ARCH)
    refused = {
        "Links": host.network_mode in ("", "default", "bridge") and host.links,
        "StorageOpt": host.storage_opt,
        "Cgroup": host.cgroup,
    }
    for name, value in refused.items():
        if value:
            raise Unimplemented(f"HostConfig.{name} is not supported yet", object=name)
    if host.userns_mode not in ("", "host", "private"):
        raise InvalidArgument(f"invalid USER mode: {host.userns_mode}", object="UsernsMode")


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
    if host.uts_mode == "host" and config.domainname:
        raise InvalidArgument("conflicting options: domainname and the UTS mode")
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


def _check_networking(networking: NetworkingConfig) -> None:
    for settings in (networking.endpoints_config or {}).values():
        if settings is not None and settings.mac_address:
            check_mac(settings.mac_address)
