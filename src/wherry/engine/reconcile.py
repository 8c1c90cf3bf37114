"""What a daemon finds at its start, made whole: records against monitor, logger, networks and snapshots.

Records are the truth about what is wanted; the monitor is the truth about what runs. Whatever belongs to no record is
removed; starts and removals cut short are undone or finished; exits nobody saw are dealt with; what runs goes on.
"""

import asyncio
import json
import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence

from wherry.engine import boot, commit, exits, health, launch, mounting, removal, replacement, shared_memory, views
from wherry.engine.container import NO_STREAMS, Container, Run
from wherry.engine.core import Core
from wherry.engine.output import log_target
from wherry.engine.parts import ContainerState
from wherry.engine.records import load_definition, load_state
from wherry.errors import NotFound, WherryError
from wherry.logs.client import Streams
from wherry.network.endpoint import Endpoint
from wherry.state import Delete

log = logging.getLogger(__name__)


def load(core: Core) -> None:
    """Every record into the index; what was half made is left for `sweep`."""
    states = {key.removeprefix("states/"): data for key, data in core.store.scan("states/")}
    for _, data in core.store.scan("containers/"):
        definition = load_definition(data)
        state_data = states.pop(definition.id, None)
        if state_data is None:
            continue
        container = Container(definition, load_state(state_data))
        health.adopt(container)
        container.endpoints = tuple(Endpoint.from_json(endpoint) for endpoint in container.state.endpoints)
        core.index.reserve(definition.name, definition.id)
        core.index.add(container)
    for orphan in states:
        core.store.write(Delete(f"states/{orphan}"))


async def reconcile(core: Core) -> None:
    """Before the engine serves anyone."""
    cut_short = replacement.roll_back(core)
    monitor = await core.backends.monitor()
    seen = {found.id: found for found in await monitor.list()}
    live = [container for container in core.index if _is_live(container, seen.get(container.id))]
    endpoints = [endpoint for container in live for endpoint in container.endpoints]
    await core.naming.recover(live)
    await asyncio.to_thread(_start_rooms, core, endpoints, live)
    for container in live:
        container.run = Run()
        found = seen[container.id]
        container.set_state(
            status="paused" if found.status == "paused" else "running",
            pid=found.pid or container.state.pid,
            process_start=found.start_time or container.state.process_start,
        )
        await _recover_streams(core, container)
    await adopt_streams(core)
    await _finish_dead(core, seen, live)
    await _sweep(core, seen)
    core.serving = True
    for container in live:
        core.health.resume(container, adopted=True)
    replacement.resume(core, cut_short)
    await commit.thaw_left(core)
    boot.start_by_policy(core)


async def _recover_streams(core: Core, container: Container) -> None:
    """Copies of its streams from the monitor, or, when that is a new one, from the logger for both of us."""
    run = container.run
    assert run is not None
    monitor, logger = await core.backends.monitor(), await core.backends.logger()
    try:
        held = [fd for fd in await monitor.held(container.id) if fd >= 0]
        if held:
            run.kept = Streams.of_held(held, tty=container.definition.config.tty)
        else:
            run.kept = await logger.copies(container.id)
            await monitor.hold(container.id, run.kept.held())
    except NotFound:
        pass  # its output has ended
    except WherryError as error:
        log.warning("the streams of %s could not be recovered: %s", container.id, error)


def _start_rooms(core: Core, endpoints: Sequence[Endpoint], live: Sequence[Container]) -> None:
    core.parts.networks.start(endpoints, [container.id for container in live])
    for container in live:
        for mount in container.definition.mounts:
            if mount.type == "volume":
                try:
                    core.parts.volumes.acquire(mount.name, container.id)
                except WherryError as error:
                    # Its plugin is gone or broken; what is mounted in the container is not touched by that.
                    log.warning("the volume %s of %s: %s", mount.name, container.id, error)
    core.parts.volumes.release_unused()


def _is_live(container: Container, found: ContainerState | None) -> bool:
    """Whether its record and the monitor agree that it runs, or ran and ended unseen."""
    return (
        found is not None
        and container.state.status in ("running", "paused")
        and found.status in ("running", "paused", "stopped")
    )


async def adopt_streams(core: Core) -> None:
    """A logger started anew is given the streams of every running container."""
    logger = await core.backends.logger()
    open_streams = set(await logger.streams())
    for container in list(core.index):
        run = container.run
        if run is None or container.id in open_streams or container.state.status == "starting":
            continue
        if run.kept == NO_STREAMS:
            log.warning("the output of %s is lost: it died with all who held it", container.id)
            continue
        try:
            await logger.open(container.id, log_target(core, container), run.kept)
        except WherryError as error:
            log.warning("the output of %s is lost: %s", container.id, error)
    for id in open_streams - {container.id for container in core.index if container.run is not None}:
        await logger.close(id)


async def _finish_dead(core: Core, seen: dict[str, ContainerState], live: Sequence[Container]) -> None:
    for container in live:
        ended = seen[container.id].exit
        if ended is not None:
            await exits.finish(core, container, ended)
        elif seen[container.id].status == "stopped":
            await exits.finish(core, container, _Unknown(container.id))
    adopted = {container.id for container in live}
    for container in list(core.index):
        if container.id in adopted:
            continue
        if container.state.status in ("running", "paused", "starting", "removing"):
            # Cut short, or gone with the machine's last life.
            await launch.clean_up(core, container)
            before = container.state
            lost = before.status in ("running", "paused")
            container.set_state(
                status="exited" if before.started_ns else "created",
                pid=0,
                exit_code=255 if lost else before.exit_code,
                finished_ns=time.time_ns() if lost else before.finished_ns,
                endpoints=(),
            )
            core.save_state(container)
            container.endpoints = ()
            if container.definition.host.auto_remove and lost and not container.replacing:
                removal.remove_locked(core, container, volumes=True)


class _Unknown:
    """An exit of which nothing is known but that it happened."""

    exec_id = None
    status = -1
    oom_killed = False
    at_ns = 0

    def __init__(self, id: str) -> None:
        self.id = id


async def _sweep(core: Core, seen: dict[str, ContainerState]) -> None:
    """Whatever belongs to no record."""
    monitor = await core.backends.monitor()
    running = {container.id for container in core.index if container.run is not None}
    for id in seen.keys() - running:
        await monitor.delete(id, force=True)
    used = {mount.name for container in core.index for mount in container.definition.mounts}
    garbage = {
        key.removeprefix("garbage/"): [name for name in json.loads(value).get("volumes", ()) if name not in used]
        for key, value in core.store.scan("garbage/")
    }
    await asyncio.to_thread(_sweep_blocking, core, garbage, running)


def _sweep_blocking(core: Core, garbage: Mapping[str, Sequence[str]], running: set[str]) -> None:
    for id, volumes in garbage.items():
        removal.dispose(core, id, volumes)
        core.store.write(Delete(f"garbage/{id}"))
    shared_memory.sweep(core.config, running)
    views.sweep(core.config.exec_root / "views")
    known = {container.id for container in core.index}
    mounting.sweep(core, running)
    for key in [key for key in core.parts.snapshots.keys() if mounting.owner(key) not in known]:  # noqa: SIM118
        core.parts.snapshots.remove(key)
    for directory, kept in ((core.config.containers_dir, known), (core.config.bundles_dir, running)):
        for name in os.listdir(directory):
            if name not in kept:
                shutil.rmtree(directory / name, ignore_errors=True)


async def after_monitor(core: Core) -> None:
    """A new monitor has taken over: exits that happened between are its news now, and it needs copies of streams."""
    monitor = await core.backends.monitor()
    seen = {found.id: found for found in await monitor.list()}
    for container in list(core.index):
        if container.run is None or container.state.status == "starting":
            continue
        found = seen.get(container.id)
        if found is None or found.status == "stopped":
            ended = found.exit if found is not None else None
            await exits.finish(core, container, ended or _Unknown(container.id))
            continue
        try:
            await monitor.hold(container.id, container.run.kept.held())
        except WherryError as error:
            log.warning("the monitor does not hold the streams of %s: %s", container.id, error)
