"""Making a container: everything about it is decided and checked here; nothing runs yet."""

import asyncio
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from wherry.engine import attachments, mounting, removal
from wherry.engine.container import Container
from wherry.engine.core import Core
from wherry.engine.daemon_defaults import security_options
from wherry.engine.health import merge_health
from wherry.engine.index import check_name
from wherry.engine.limits import settle_limits, supported_limits
from wherry.engine.mount_specs import image_volumes, parse_mounts
from wherry.engine.names import make_name
from wherry.engine.oci_spec import is_ulimit
from wherry.engine.output import with_default_log
from wherry.engine.ports import expand_ports, port_requests
from wherry.engine.records import Definition, MountPoint, State, definition_key, dump, state_key
from wherry.engine.runtimes import check_runtime
from wherry.engine.security import capabilities, confinement_warnings, parse_security_options
from wherry.engine.userns import check_remapped
from wherry.engine.validation import check_config, check_host
from wherry.errors import InvalidArgument, NotFound, WherryError
from wherry.images.image import Image
from wherry.kernel import paths
from wherry.kernel.cgroups import layout
from wherry.spec.digest import ChainID
from wherry.spec.docker import ContainerConfig, HostConfig, NetworkingConfig, RestartPolicy
from wherry.spec.oci_image import RunConfig
from wherry.spec.platform import parse_platform, preference
from wherry.state import Delete, Put


class Created(NamedTuple):
    """A new container's full id, and what the user should know."""

    id: str
    warnings: list[str]


async def create(
    core: Core,
    name: str | None,
    config: ContainerConfig,
    host: HostConfig,
    networking: NetworkingConfig,
    platform: str | None,
) -> Created:
    """Make a container."""
    if name:
        name = check_name(name)
    host, warnings = settle_limits(with_defaults(core, host), supported_limits())
    check_config(config)
    check_host(config, host, networking)
    check_runtime(core.config, host.runtime)
    check_details(config, host)
    check_remapped(host, core.remap)
    image = _find_image(core, config, platform)
    own_volumes = image_volumes(image.config.config.volumes if image else None)
    config = merge(config, image, warnings)
    host = _join_by_id(core, host)
    networking = attachments.normalise(core, host, networking)
    try:
        points = parse_mounts(config, host, own_volumes, lambda other: core.index.find(other).definition.mounts)
    except NotFound as error:
        raise InvalidArgument(error.message, object=error.object) from None
    points = tuple(replace(point, name=secrets.token_hex(32)) if point.anonymous else point for point in points)
    warn(host, warnings)
    warnings += confinement_warnings(parse_security_options(host.security_opt))
    id = secrets.token_hex(32)
    name = name or make_name(core.index.taken)
    core.index.reserve(name, id)
    try:
        container = await _make(core, id, name, config, host, networking, image, points)
    except BaseException:
        core.index.free(name, id)
        raise
    core.index.add(container)
    core.emit(container, "create")
    return Created(id, warnings)


async def _make(
    core: Core,
    id: str,
    name: str,
    config: ContainerConfig,
    host: HostConfig,
    networking: NetworkingConfig,
    image: Image | None,
    points: tuple[MountPoint, ...],
) -> Container:
    command = command_line(config)
    if not config.hostname and host.uts_mode != "host" and not host.network_mode.startswith("container:"):
        config = replace(config, hostname=os.uname().nodename if host.network_mode == "host" else id[:12])
    definition = Definition(
        id=id,
        name=name,
        created_ns=time.time_ns(),
        image_id=image.id if image else "",
        image_size=image.size if image else 0,
        chain=image.chain if image else None,
        path=command[0],
        args=command[1:],
        config=config,
        host=host,
        networking=networking,
        mounts=points,
    )
    container = Container(definition, State())
    # All that a crash could leave is known by the container's id, and swept, but for the volumes.
    if container.anonymous_volumes:
        core.store.write(removal.intent(id, container.anonymous_volumes))
    try:
        mounts = await asyncio.to_thread(_prepare, core, definition)
    except (WherryError, OSError):
        await asyncio.to_thread(removal.dispose, core, id, container.anonymous_volumes, points)
        raise
    container.set_definition(mounts=mounts)
    core.store.write(
        Put(definition_key(id), dump(container.definition)),
        Put(state_key(id), dump(container.state)),
        *([Delete(f"garbage/{id}")] if container.anonymous_volumes else ()),
    )
    return container


def _prepare(core: Core, definition: Definition) -> tuple[MountPoint, ...]:
    """In a thread: what a container needs on disk. Its mounts, the volumes among them made and named."""
    chain = ChainID(definition.chain) if definition.chain else None
    core.parts.snapshots.prepare(definition.id, chain, ephemeral=definition.host.auto_remove)
    os.mkdir(core.directory(definition.id), 0o710)
    _make_working_directory(core, definition)
    return tuple(resolve_volume(core, definition, point) for point in definition.mounts)


def resolve_volume(core: Core, definition: Definition, point: MountPoint) -> MountPoint:
    """In a thread: the volume of a mount, made and filled when there is none yet."""
    if point.type == "image":
        return mounting.prepare_image(core, definition.id, point)
    if point.type != "volume":
        return point
    if point.source:
        return point
    labels = {**(point.labels or {}), **({"com.docker.volume.anonymous": ""} if point.anonymous else {})}
    volume = core.parts.volumes.create(point.name, point.driver, point.driver_options or {}, labels)
    if point.copy_up:
        root = core.parts.snapshots.open_root(definition.id)
        try:
            core.parts.volumes.populate(volume.name, root, point.destination)
        finally:
            os.close(root)
    source = str(core.parts.volumes.path(volume.name)) if volume.driver == "local" else ""
    return replace(point, name=volume.name, driver=volume.driver, source=source)


def _make_working_directory(core: Core, definition: Definition) -> None:
    directory = definition.config.working_dir
    known = (definition.chain or "", directory)
    if directory in ("", "/") or known in core.directories:
        return
    root = core.parts.snapshots.open_root(definition.id)
    try:
        found = paths.open_in_root(root, directory)
        is_directory = paths.is_directory(found)
        os.close(found)
        if not is_directory:
            raise InvalidArgument(f"Cannot mkdir: {directory} is not a directory", object=directory)
        core.directories.add(known)
        return
    except FileNotFoundError:
        pass
    finally:
        os.close(root)
    writable = core.parts.snapshots.open_root(definition.id, writable=True)
    try:
        os.close(paths.make_directories(writable, directory))
    except (FileExistsError, NotADirectoryError):
        raise InvalidArgument(f"Cannot mkdir: {directory} is not a directory", object=directory) from None
    finally:
        os.close(writable)


def with_defaults(core: Core, host: HostConfig) -> HostConfig:
    """What docker fills in, and inspect then shows."""
    changes: dict[str, Any] = {}
    if host.network_mode in ("", "default"):
        changes["network_mode"] = "bridge" if core.config.bridge != "none" else "none"
    changes["log_config"] = with_default_log(core, host.log_config)
    if not host.restart_policy.name:
        changes["restart_policy"] = RestartPolicy(name="no")
    if not host.ipc_mode:
        changes["ipc_mode"] = core.config.default_ipc_mode
    if not host.cgroupns_mode:
        usual = core.config.default_cgroupns_mode or ("host" if layout().version == 1 else "private")
        changes["cgroupns_mode"] = "host" if host.privileged else usual
    changes["security_opt"] = security_options(core.config, host)
    if not host.shm_size and host.ipc_mode in ("", "private", "shareable"):
        changes["shm_size"] = core.config.default_shm_size
    if not host.runtime:
        changes["runtime"] = core.config.default_runtime
    if host.memory and not host.memory_swap:
        changes["memory_swap"] = host.memory * 2
    if host.oom_kill_disable is None and layout().version == 1:
        changes["oom_kill_disable"] = False
    if host.memory_swappiness == -1:
        changes["memory_swappiness"] = None
    if host.pids_limit == 0:
        changes["pids_limit"] = None
    return replace(host, **changes)


def _join_by_id(core: Core, host: HostConfig) -> HostConfig:
    """container:NAME as container:ID, so that a rename changes nothing."""
    changes: dict[str, Any] = {}
    for field in ("network_mode", "pid_mode", "ipc_mode"):
        mode: str = getattr(host, field)
        if mode.startswith("container:"):
            try:
                changes[field] = f"container:{core.index.find(mode.removeprefix('container:')).id}"
            except NotFound as error:
                raise InvalidArgument(error.message, object=mode) from None
    return replace(host, **changes) if changes else host


def check_details(config: ContainerConfig, host: HostConfig) -> None:
    """Checks that other modules know how to make: each parses, and so refuses, what it will use."""
    parse_security_options(host.security_opt)
    capabilities(host.cap_add or (), host.cap_drop or (), host.privileged)
    port_requests(config.exposed_ports, host)
    for text in config.exposed_ports or ():
        expand_ports(text)
    for limit in host.ulimits or ():
        if not is_ulimit(limit.name):
            raise InvalidArgument(f"invalid ulimit type: {limit.name}", object=limit.name)
        if limit.hard >= 0 and (limit.soft > limit.hard or limit.soft < 0):
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}",
                object=limit.name,
            )
    for name in host.sysctls or ():
        _check_sysctl(name, host)


_IPC_SYSCTLS = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)


def _check_sysctl(name: str, host: HostConfig) -> None:
    plain = name.replace("/", ".")
    if plain in _IPC_SYSCTLS or plain.startswith("fs.mqueue."):
        if host.ipc_mode == "host":
            raise InvalidArgument(f'sysctl "{name}" not allowed in host ipc namespace', object=name)
    elif plain.startswith("net."):
        if host.network_mode == "host":
            raise InvalidArgument(f'sysctl "{name}" not allowed in host network namespace', object=name)
    elif plain != "kernel.domainname":
        raise InvalidArgument(f'sysctl "{name}" is not in a separate kernel namespace', object=name)


def _find_image(core: Core, config: ContainerConfig, platform: str | None) -> Image | None:
    if not config.image:
        raise InvalidArgument("no command specified" if not (config.cmd or config.entrypoint) else "no image specified")
    image = core.parts.images.resolve(config.image)
    if platform and preference(parse_platform(platform), image.config.platform) is None:
        raise NotFound(
            f"image with reference {config.image} was found but its platform ({image.config.platform}) does not match "
            f"the specified platform ({platform})",
            object=config.image,
        )
    return image


def merge(config: ContainerConfig, image: Image | None, warnings: list[str]) -> ContainerConfig:
    """The user's wishes over the image's, by docker's rules; InvalidArgument when nothing is left to run."""
    if image is not None:
        config = inherit(config, image.config.config)
    if not command_line(config):
        raise InvalidArgument("no command specified")
    return config


def inherit(config: ContainerConfig, own: RunConfig) -> ContainerConfig:
    """What `config` says, and where it says nothing what an image (or a container to be one) has."""
    given = {item.partition("=")[0] for item in config.env or ()}
    inherited = [item for item in own.env if item.partition("=")[0] not in given]
    entrypoint, command = config.entrypoint, config.cmd
    if not entrypoint:
        # An explicitly empty list keeps the image's command; [""], what `--entrypoint ""` sends, does not.
        command = command or own.cmd
        entrypoint = own.entrypoint if entrypoint is None else entrypoint
    exposed: Mapping[str, Any] = {**own.exposed_ports, **(config.exposed_ports or {})}
    return replace(
        config,
        user=config.user or own.user,
        env=(*(config.env or ()), *inherited) or config.env,
        cmd=command,
        entrypoint=entrypoint,
        working_dir=config.working_dir or own.working_dir,
        exposed_ports=exposed or None,
        labels={**own.labels, **(config.labels or {})},
        stop_signal=config.stop_signal or own.stop_signal,
        stop_timeout=own.stop_timeout if config.stop_timeout is None else config.stop_timeout,
        volumes={**own.volumes, **(config.volumes or {})} or None,
        shell=config.shell or own.shell or None,
        healthcheck=merge_health(config.healthcheck, own.healthcheck),
    )


def command_line(config: ContainerConfig) -> tuple[str, ...]:
    """What is executed, program first."""
    entrypoint = () if config.entrypoint == ("",) else config.entrypoint or ()
    return (*entrypoint, *(config.cmd or ()))


def warn(host: HostConfig, warnings: list[str]) -> None:
    """What the user should know about a configuration that is accepted."""
    if host.network_mode in ("host", "none") and host.port_bindings:
        warnings.append(f"Published ports are discarded when using {host.network_mode} network mode")
