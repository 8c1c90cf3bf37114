"""docker commit: what changed in a container, as an image. What is mounted in it is not in its layer.

While it is paused for that, a note `thaw/<id>` says so: after a crash the container is thawed, not left frozen.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from wherry.engine import lifecycle
from wherry.engine.container import Container
from wherry.engine.core import Core
from wherry.engine.creation import inherit
from wherry.engine.files import made_by_start
from wherry.engine.threads import in_own_thread
from wherry.errors import Conflict, NotFound, WherryError
from wherry.images.changes import apply_changes
from wherry.images.commit import Commitment
from wherry.images.image import Image
from wherry.spec.docker import ContainerConfig, HealthConfig
from wherry.spec.oci_image import Healthcheck, RunConfig
from wherry.state import Delete, Put

_NOTES = "thaw/"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRequest:
    """`config`: over the container's own; None: nothing. `timestamp`, in seconds since 1970: the image's time, and the
    latest of any file in its layer; None: now, and no limit."""

    reference: str | None = None
    config: ContainerConfig | None = None
    changes: Sequence[str] = ()
    author: str = ""
    comment: str = ""
    pause: bool = True
    timestamp: int | None = None


async def commit(core: Core, reference: str, wanted: CommitRequest) -> str:
    """The new image's id."""
    container = core.index.find(reference)
    if container.state.status in ("removing", "dead"):
        raise Conflict(f"You cannot commit container {container.id} which is Dead", object=container.id)
    definition = container.definition
    config = _merged(definition.config, wanted)
    commitment = Commitment(
        config=config,
        created_ns=time.time_ns() if wanted.timestamp is None else wanted.timestamp * 1_000_000_000,
        created_by=" ".join((definition.path, *definition.args)),
        author=wanted.author,
        comment=wanted.comment,
        reference=wanted.reference,
    )
    newest = None if wanted.timestamp is None else wanted.timestamp * 1_000_000_000
    parent = core.parts.images.resolve(definition.image_id) if definition.image_id else None
    paused = wanted.pause and container.state.status == "running" and await _pause(core, container)
    try:
        image = await in_own_thread(_make, core, container, parent, commitment, newest)
        _announce(core, container, image, wanted)
    finally:
        if paused:
            await _thaw(core, container)
    return image.id


def _make(core: Core, container: Container, parent: Image | None, commitment: Commitment, newest: int | None) -> Image:
    def write(out: BinaryIO) -> None:
        hidden = made_by_start(core.parts.snapshots.changes(container.id))
        core.parts.snapshots.diff(container.id, out, leave_out=hidden, newest=newest)
        # Removed meanwhile, its files may have gone while they were read.
        if container.id not in core.index:
            raise NotFound(f"No such container: {container.id}", object=container.id)

    return core.parts.images.commit(parent, write, commitment)


def _announce(core: Core, container: Container, image: Image, wanted: CommitRequest) -> None:
    labels = image.config.config.labels
    core.events.emit("image", "create", image.id, {**labels, "name": image.id})
    name = wanted.reference or ""
    if name:
        core.events.emit("image", "tag", image.id, {**labels, "name": name})
    core.emit(container, "commit", comment=wanted.comment, imageID=image.id, imageRef=name)


def _merged(own: ContainerConfig, wanted: CommitRequest) -> RunConfig:
    run = apply_changes(_run_config(own if wanted.config is None else wanted.config), wanted.changes)
    return _run_config(inherit(_container_config(run), _run_config(own)))


def _run_config(config: ContainerConfig) -> RunConfig:
    """What of a container's configuration is an image's: not its host name, nor what its streams are attached to."""
    check = config.healthcheck
    return RunConfig(
        user=config.user,
        exposed_ports=config.exposed_ports or {},
        env=config.env or (),
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        volumes=config.volumes or {},
        working_dir=config.working_dir,
        labels=config.labels or {},
        stop_signal=config.stop_signal,
        stop_timeout=config.stop_timeout,
        healthcheck=Healthcheck(**_shared(check)) if check else None,
        on_build=config.on_build or (),
        shell=config.shell or (),
    )


def _container_config(run: RunConfig) -> ContainerConfig:
    check = run.healthcheck
    return ContainerConfig(
        user=run.user,
        exposed_ports=run.exposed_ports,
        env=run.env,
        entrypoint=run.entrypoint,
        cmd=run.cmd,
        volumes=run.volumes,
        working_dir=run.working_dir,
        labels=run.labels,
        stop_signal=run.stop_signal,
        stop_timeout=run.stop_timeout,
        healthcheck=HealthConfig(**_shared(check)) if check else None,
        on_build=run.on_build,
        shell=run.shell,
    )


def _shared(check: HealthConfig | Healthcheck) -> Mapping[str, Any]:
    found = {name: getattr(check, name) for name in Healthcheck.__slots__}
    return {**found, "test": tuple(check.test or ())}


async def _pause(core: Core, container: Container) -> bool:
    """False when it has ended, or somebody else has paused it, by now."""
    core.store.write(Put(_NOTES + container.id, b"{}"))
    try:
        await lifecycle.pause(core, container.id)
    except Conflict:
        core.store.write(Delete(_NOTES + container.id))
        return False
    return True


async def _thaw(core: Core, container: Container) -> None:
    try:
        await lifecycle.unpause(core, container.id)
    except WherryError:
        # It was unpaused, killed or removed meanwhile.
        pass
    core.store.write(Delete(_NOTES + container.id))


async def thaw_left(core: Core) -> None:
    """At the daemon's start: whatever a commit that died with the last one left paused runs on."""
    for key, _ in core.store.scan(_NOTES):
        container = core.index.get(key.removeprefix(_NOTES))
        if container is not None and container.state.status == "paused":
            await _thaw(core, container)
        core.store.write(Delete(key))
