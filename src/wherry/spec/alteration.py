"""What POST /containers/{id}/alter asks for: beyond docker's update, a container made otherwise that stays itself.

Everything that is given is a change, everything else stays. `Env`, `Labels`, `Ports` and `Mounts` change single
entries; what `Config` and `HostConfig` hold replaces what is there (null: back to the default). Limits and restart
policy are what docker's own update takes, so 0 leaves a limit as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from wherry.errors import InvalidArgument
from wherry.spec.decode import decode, document, json_keys, key
from wherry.spec.docker import ContainerConfig, HostConfig, MountSpec, PortBinding, RestartPolicy

CONFIG_FIELDS = (
    "hostname",
    "domainname",
    "user",
    "working_dir",
    "cmd",
    "entrypoint",
    "healthcheck",
    "stop_signal",
    "stop_timeout",
)
"""Of ContainerConfig, what can be replaced."""
HOST_FIELDS = (
    "log_config",
    "dns",
    "dns_options",
    "dns_search",
    "extra_hosts",
    "group_add",
    "cap_add",
    "cap_drop",
    "security_opt",
    "masked_paths",
    "readonly_paths",
    "readonly_rootfs",
    "oom_score_adj",
    "shm_size",
    "sysctls",
    "ulimits",
    "devices",
    "device_cgroup_rules",
    "init",
    "annotations",
)
"""Of HostConfig, what can be replaced."""


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class EnvChange:
    """`set`: "NAME=value", in the place of what has the name; `remove`: names."""

    set: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class LabelChange:
    """As EnvChange."""

    set: Mapping[str, str] = key("Set", factory=dict)
    remove: tuple[str, ...] = ()


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class PortChange:
    """`publish`: as HostConfig.PortBindings; `unpublish`: "80/tcp", "8080:80", "127.0.0.1:8080:80/udp" or "all"."""

    publish: Mapping[str, tuple[PortBinding, ...]] = key("Publish", factory=dict)
    unpublish: tuple[str, ...] = ()


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class MountChange:
    """`binds`, `mounts`, `tmpfs` as in HostConfig, `volumes` as in Config (a new anonymous one each);
    `remove`: destinations. A volume whose mount is removed is kept."""

    binds: tuple[str, ...] = ()
    mounts: tuple[MountSpec, ...] = ()
    tmpfs: Mapping[str, str] = key("Tmpfs", factory=dict)
    volumes: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class Alteration:
    """The whole. `limits` and `restart_policy`: as docker's update has them.

    `live_only`: refuse what would need the container to be started anew. `stop_timeout`: how long it may take to stop
    then, in seconds (-1: as long as it likes); None: as it is configured.
    """

    config: Mapping[str, Any] = key("Config", factory=dict)
    host_config: Mapping[str, Any] = key("HostConfig", factory=dict)
    limits: HostConfig = HostConfig()
    restart_policy: RestartPolicy | None = None
    env: EnvChange = EnvChange()
    labels: LabelChange = LabelChange()
    ports: PortChange = PortChange()
    mounts: MountChange = MountChange()
    live_only: bool = False
    stop_timeout: int | None = None


_PARTS = {"Env": EnvChange, "Labels": LabelChange, "Ports": PortChange, "Mounts": MountChange, "Limits": HostConfig}


def parse_alteration(body: Any) -> Alteration:
    """InvalidArgument for what is malformed, and for every field that is not known: none is ignored."""
    found = decode(Alteration, body)
    _refuse_unknown(Alteration, body, "")
    for name, part in _PARTS.items():
        _refuse_unknown(part, _member(body, name), f"{name}.")
    return replace(
        found,
        config=_fields(ContainerConfig, CONFIG_FIELDS, found.config, "Config"),
        host_config=_fields(HostConfig, HOST_FIELDS, found.host_config, "HostConfig"),
    )


def _member(body: Mapping[str, Any], name: str) -> Any:
    return next((value for given, value in body.items() if given.casefold() == name.casefold()), None)


def _refuse_unknown(cls: type, body: Mapping[str, Any] | None, prefix: str) -> None:
    known = {name.casefold() for name in json_keys(cls).values()}
    for name in body or ():
        if name.casefold() not in known:
            raise InvalidArgument(f"there is no field {prefix}{name}", object=name)


def _fields(cls: type, allowed: tuple[str, ...], given: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The given fields of a `cls` by their attributes' names; null is the default."""
    names = {attribute: name for attribute, name in json_keys(cls).items() if attribute in allowed}
    attributes = {name.casefold(): attribute for attribute, name in names.items()}
    whole: Any = decode(cls, given, part)
    found = {}
    for name in given:
        attribute = attributes.get(name.casefold())
        if attribute is None:
            raise InvalidArgument(
                f"{part}.{name} of a container cannot be changed",
                object=name,
                hint=f"what can be is {', '.join(sorted(names.values()))}",
            )
        found[attribute] = getattr(whole, attribute)
    return found
