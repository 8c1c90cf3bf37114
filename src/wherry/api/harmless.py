"""Which creations and updates keep a container a container: what reaches the machine or other containers is refused.

The lists name what is harmless, so that whatever is added to the documents later is refused until it is put there.
"""

from dataclasses import fields
from typing import Any

from wherry.errors import PermissionDenied
from wherry.spec.docker import ExecConfig, HostConfig, MountSpec, NetworkingConfig

_HOST_TEXT = """
container_id_file port_bindings restart_policy auto_remove console_size cap_drop dns dns_options dns_search extra_hosts
group_add publish_all_ports readonly_rootfs storage_opt tmpfs shm_size cpu_shares memory nano_cpus blkio_weight
cpu_period cpu_quota cpuset_cpus cpuset_mems memory_reservation memory_swap memory_swappiness pids_limit ulimits init
"""
_HOST = frozenset(_HOST_TEXT.split())
_VALUES = {
    "network_mode": ("", "default", "bridge", "none"),
    "ipc_mode": ("", "none", "private", "shareable"),
    "cgroupns_mode": ("", "private"),
    "log_driver": ("", "json-file", "local", "none"),
}
_SECURITY = ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true")
_UPDATE_TEXT = """
cpushares memory cpuperiod cpuquota cpusetcpus cpusetmems memoryreservation memoryswap pidslimit nanocpus blkioweight
restartpolicy memoryswappiness ulimits
"""
_UPDATE = frozenset(_UPDATE_TEXT.split())
_ANY: tuple[str, ...] = ("*",)
_OBJECT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("name", "labels", "checkduplicate", "internal", "enableipv4", "enableipv6"), _ANY),
    "driver": ("local", "bridge", "default"),
    # Whatever they hold, it has to be empty.
    **dict.fromkeys(
        ("driveropts", "options", "ipam", "scope", "attachable", "ingress", "configonly", "configfrom"), ()
    ),
}
_DEFAULT_HOST = HostConfig()
_HINT = 'what the socket may do would have to include "privileged"'


def check_creation(host: HostConfig, networking: NetworkingConfig, *, shared: bool) -> None:
    """PermissionDenied naming the first field that reaches beyond the container itself.

    `shared`: it may use networks and volumes that others use too.
    """
    for field in fields(host):
        value = getattr(host, field.name)
        if field.name in _HOST or value == getattr(_DEFAULT_HOST, field.name):
            continue
        # Clients write [] and {} for nothing. Of masked paths, though, nothing is all of the host's.
        if not value and field.name not in ("masked_paths", "readonly_paths"):
            continue
        if not _allowed(field.name, value, shared):
            raise _denied(f"HostConfig.{_shown(field.name)}")
    for name in networking.endpoints_config or ():
        if name not in _VALUES["network_mode"] and not (shared and name != "host"):
            raise _denied(f"the network {name}")


def _allowed(name: str, value: Any, shared: bool) -> bool:
    if name == "network_mode" and shared:
        return value != "host" and ":" not in value
    if name in _VALUES:
        return value in _VALUES[name]
    if name == "log_config":
        return value.type in _VALUES["log_driver"]
    if name == "security_opt":
        return all(option in _SECURITY for option in value)
    if name == "binds":
        return shared and not any(bind.startswith(("/", ".", "~")) for bind in value)
    if name == "mounts":
        return all(_harmless_mount(mount, shared) for mount in value)
    if name == "oom_score_adj":
        return bool(value > 0)
    return False


def _harmless_mount(mount: MountSpec, shared: bool) -> bool:
    if mount.type == "tmpfs":
        return True
    options = mount.volume_options
    driven = options is not None and options.driver_config is not None
    return mount.type == "volume" and not driven and (shared or not mount.source)


def check_update(document: Any) -> None:
    """The same for the body of an update."""
    for name in document if isinstance(document, dict) else ():
        if name.casefold() not in _UPDATE:
            raise _denied(name)


def check_object(document: Any) -> None:
    """The same for the body of a volume's or network's creation: drivers' options name devices, paths and links."""
    for name, value in document.items() if isinstance(document, dict) else ():
        if name.casefold() == "ipam" and isinstance(value, dict):
            # Clients write out what is the default.
            value = [item for item in value.values() if item and item != "default"]
        allowed = _OBJECT.get(name.casefold())
        if allowed is None or (value and allowed is not _ANY and value not in allowed):
            raise _denied(name)


def check_exec(config: ExecConfig) -> None:
    """The same for an exec."""
    if config.privileged:
        raise _denied("Privileged")


def _shown(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _denied(what: str) -> PermissionDenied:
    return PermissionDenied(f"this socket may not make use of {what}", object=what, hint=_HINT)
