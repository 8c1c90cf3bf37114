"""What a container becomes when it is altered: pure, and checked whole before anything is touched.

A plan is the new definition, and what of it a running container can have at once: labels, stop signal and time, restart
policy (records), limits (its cgroup) and published ports (elements of a map in the kernel). Everything else is given to
a process as it starts, so it needs the container to be started anew.
"""

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple

from wherry.engine.creation import check_details, command_line
from wherry.engine.limits import UPDATABLE
from wherry.engine.mount_specs import clean_path, parse_bind, parse_mounts
from wherry.engine.ports import parse_port
from wherry.engine.records import Definition, MountPoint
from wherry.engine.validation import check_config, check_host
from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.spec.alteration import Alteration, EnvChange, LabelChange, MountChange, PortChange
from wherry.spec.decode import json_keys
from wherry.spec.docker import ContainerConfig, HostConfig, PortBinding

_LIVE_CONFIG = frozenset(("labels", "stop_signal", "stop_timeout", "exposed_ports"))
_LIVE_HOST = frozenset(("restart_policy", "port_bindings"))
_PORT = re.compile(r"(?:(?:(?P<ip>[^:]*|\[.*\]):)?(?P<host>[0-9-]*):)?(?P<port>[0-9]+)(?:/(?P<proto>[a-z]+))?")


class Plan(NamedTuple):
    """`added`: mounts whose volumes are yet to be made. `restart_for`: the fields, as docker spells them, that a
    running container cannot be given. `limits`, `ports`: whether those change."""

    definition: Definition
    added: tuple[MountPoint, ...]
    restart_for: tuple[str, ...]
    limits: bool
    ports: bool
    warnings: tuple[str, ...]


def make_plan(before: Definition, wanted: Alteration, limited: HostConfig, exposed_by_image: Iterable[str]) -> Plan:
    """InvalidArgument, NotFound or Conflict says what cannot be.

    `limited`: the host configuration with the new limits and restart policy in it.
    """
    config = replace(
        before.config,
        **wanted.config,
        env=_change_env(before.config.env, wanted.env),
        labels=_change_labels(before.config.labels, wanted.labels),
    )
    host = replace(limited, **wanted.host_config)
    if not host.log_config.type:
        # Other options for the driver it has.
        host = replace(host, log_config=replace(host.log_config, type=before.host.log_config.type))
    config, host = _change_ports(config, host, wanted.ports, frozenset(exposed_by_image))
    config, host, kept, added = _change_mounts(config, host, before.mounts, wanted.mounts)
    check_config(config)
    check_host(config, host, before.networking)
    check_details(config, host)
    command = command_line(config)
    if not command:
        raise InvalidArgument("no command specified")
    definition = replace(
        before, config=config, host=host, mounts=(*kept, *added), path=command[0], args=tuple(command[1:])
    )
    changed_config, changed_host = _changed(before.config, config), _changed(before.host, host)
    limits = UPDATABLE.intersection(changed_host)
    later = [json_keys(ContainerConfig)[name] for name in changed_config if name not in _LIVE_CONFIG]
    later += [json_keys(HostConfig)[name] for name in changed_host if name not in _LIVE_HOST | limits]
    if definition.mounts != before.mounts:
        later.append("Mounts")
    return Plan(
        definition,
        added,
        restart_for=tuple(dict.fromkeys(later)),
        limits=bool(limits),
        ports="port_bindings" in changed_host,
        warnings=_warn(before, kept),
    )


def _changed(before: Any, after: Any) -> list[str]:
    # docker writes "nothing" in two ways, None and empty: the one is no change to the other.
    pairs = ((field.name, getattr(before, field.name), getattr(after, field.name)) for field in fields(before))
    return [name for name, old, new in pairs if old != new and (old or new or (old is None) == (new is None))]


def _warn(before: Definition, kept: Iterable[MountPoint]) -> tuple[str, ...]:
    left = set(kept)
    return tuple(
        f"The anonymous volume {mount.name}, which was at {mount.destination}, is kept; "
        f"it goes with: volume rm {mount.name}"
        for mount in before.mounts
        if mount.anonymous and mount not in left
    )


def _change_env(before: tuple[str, ...] | None, change: EnvChange) -> tuple[str, ...] | None:
    found = {item.partition("=")[0]: item for item in before or ()}
    for name in change.remove:
        if found.pop(name, None) is None:
            raise NotFound(f"there is no environment variable {name} in the container's configuration", object=name)
    for item in change.set:
        found[item.partition("=")[0]] = item
    return tuple(found.values()) if found or before else before


def _change_labels(before: Mapping[str, str] | None, change: LabelChange) -> Mapping[str, str] | None:
    found = dict(before or {})
    for name in change.remove:
        if found.pop(name, None) is None:
            raise NotFound(f"there is no label {name} on the container", object=name)
    found.update(change.set)
    return found if found or before else before


def _change_ports(
    config: ContainerConfig, host: HostConfig, change: PortChange, exposed_by_image: frozenset[str]
) -> tuple[ContainerConfig, HostConfig]:
    bindings = {port: tuple(given or (PortBinding(),)) for port, given in (host.port_bindings or {}).items()}
    for text in change.unpublish:
        bindings = _unpublish(bindings, text)
    for port, given in change.publish.items():
        number, protocol = parse_port(port)
        name = f"{number}/{protocol}"
        there = bindings.get(name, ())
        bindings[name] = (*there, *(binding for binding in given or (PortBinding(),) if binding not in there))
    if bindings == dict(host.port_bindings or {}):
        return config, host
    gone = set(host.port_bindings or ()) - bindings.keys() - exposed_by_image
    exposed = {port: value for port, value in (config.exposed_ports or {}).items() if port not in gone}
    exposed.update({port: {} for port in bindings})
    return replace(config, exposed_ports=exposed or None), replace(host, port_bindings=bindings)


def _unpublish(bindings: Mapping[str, tuple[PortBinding, ...]], text: str) -> dict[str, tuple[PortBinding, ...]]:
    if text == "all":
        return {}
    match = _PORT.fullmatch(text)
    if match is None:
        raise InvalidArgument(f'invalid port specification: "{text}"', object=text)
    name = f"{match['port']}/{match['proto'] or 'tcp'}"
    there = bindings.get(name, ())
    left = tuple(
        binding
        for binding in there
        if (match["host"] and binding.host_port != match["host"])
        or (match["ip"] and binding.host_ip != match["ip"].strip("[]"))
    )
    if left == there:
        raise NotFound(f"the container does not publish {text}", object=text)
    return {port: left if port == name else given for port, given in bindings.items() if port != name or left}


def _change_mounts(
    config: ContainerConfig, host: HostConfig, before: tuple[MountPoint, ...], change: MountChange
) -> tuple[ContainerConfig, HostConfig, tuple[MountPoint, ...], tuple[MountPoint, ...]]:
    """Configuration, host configuration, the mounts that stay, those that come."""
    removed = {clean_path(destination) for destination in change.remove}
    known = {mount.destination for mount in before}
    for destination in removed - known:
        raise NotFound(f"nothing is mounted at {destination} in the container", object=destination)
    volumes: dict[str, Any] = {path: {} for path in change.volumes}
    added = parse_mounts(
        ContainerConfig(volumes=volumes),
        HostConfig(
            binds=change.binds, mounts=change.mounts, tmpfs=change.tmpfs or None, volume_driver=host.volume_driver
        ),
        (),
        lambda name: (),
    )
    for mount in added:
        if mount.destination in known - removed:
            raise Conflict(
                f"Duplicate mount point: {mount.destination}", object=mount.destination, hint="remove the old one too"
            )
    added = tuple(replace(mount, name=secrets.token_hex(32)) if mount.anonymous else mount for mount in added)
    if not removed and not added:
        return config, host, before, ()
    own = {path: value for path, value in (config.volumes or {}).items() if clean_path(path) not in removed}
    binds = [text for text in host.binds or () if parse_bind(text, "").destination not in removed]
    mounts = [spec for spec in host.mounts or () if clean_path(spec.target) not in removed]
    tmpfs = {path: value for path, value in (host.tmpfs or {}).items() if clean_path(path) not in removed}
    return (
        replace(config, volumes={**own, **volumes} or None),
        replace(
            host,
            binds=(*binds, *change.binds) or None,
            mounts=(*mounts, *change.mounts) or None,
            tmpfs={**tmpfs, **change.tmpfs} or None,
        ),
        tuple(mount for mount in before if mount.destination not in removed),
        added,
    )
