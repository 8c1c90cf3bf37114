"""Altering a container: at once where the kernel allows it, else by one start anew under the same id and name.

What a crash may leave is decided by one note, `alterations/<id>`, written before anything is stopped and holding the
old definition. While the note is there, either the old definition is recorded, or the new one is and nothing runs yet.
`roll_back` at the next start therefore makes it the old one again, unless the new one is recorded as running; then
`resume` starts what ran before. A start of the new definition that fails is undone the same way, at once.
"""

import asyncio
import logging
from dataclasses import replace
from typing import NamedTuple

from wherry.engine import attachments, launch, lifecycle, removal
from wherry.engine.alteration import Plan, make_plan
from wherry.engine.container import Container
from wherry.engine.core import Core
from wherry.engine.creation import resolve_volume
from wherry.engine.ports import port_requests
from wherry.engine.records import (
    Definition,
    MountPoint,
    definition_key,
    dump,
    load_definition,
    state_key,
)
from wherry.errors import Conflict, FailedPrecondition, NotFound, WherryError
from wherry.network.endpoint import Endpoint
from wherry.spec.alteration import Alteration
from wherry.state import Delete, Put

log = logging.getLogger(__name__)
_NOTES = "alterations/"
_ATTEMPTS = 5


class Altered(NamedTuple):
    """`restarted`: whether it was stopped and started for it."""

    id: str
    restarted: bool
    warnings: list[str]


async def alter(core: Core, reference: str, wanted: Alteration) -> Altered:
    """Change a container. On any failure it is what it was, and runs if it ran."""
    container = core.index.find(reference)
    async with container.lock:
        if container.id not in core.index:
            raise NotFound(f"No such container: {reference}", object=reference)
        if container.replacing:
            raise Conflict(f"container {container.id} is being changed already", object=container.id)
        limited, warnings = lifecycle.with_limits(container, wanted.limits, wanted.restart_policy)
        plan = make_plan(container.definition, wanted, limited, _exposed_by_image(core, container))
        anew = bool(plan.restart_for) and container.run is not None
        if anew:
            _check_restartable(container, plan, wanted)
        plan = plan._replace(definition=await _make_volumes(core, plan))
        try:
            if not anew:
                await _change_in_place(core, container, plan)
            else:
                await asyncio.to_thread(_try_ports, core, container, plan.definition)
                core.store.write(Put(_NOTES + container.id, dump(container.definition)))
        except BaseException:
            await asyncio.to_thread(removal.dispose, core, _volumes_key(container), _anonymous(plan))
            raise
        container.replacing = anew
    if anew:
        # A client that goes away must not leave it half done.
        failure = await asyncio.shield(
            core.spawn(_replace(core, container, plan, wanted.stop_timeout), f"the change of {container.id[:12]}")
        )
        if failure is not None:
            raise failure
    core.emit(container, "update")
    return Altered(container.id, anew, [*warnings, *plan.warnings])


def _exposed_by_image(core: Core, container: Container) -> list[str]:
    try:
        return list(core.parts.images.resolve(container.definition.image_id).config.config.exposed_ports)
    except NotFound:
        return []


def _check_restartable(container: Container, plan: Plan, wanted: Alteration) -> None:
    if wanted.live_only:
        raise Conflict(
            f"changing {', '.join(plan.restart_for)} needs a restart of the container, which the request forbids",
            object=container.id,
        )
    if container.state.status == "paused":
        raise Conflict(
            f"container {container.id} is paused, and changing {', '.join(plan.restart_for)} needs a restart",
            object=container.id,
            hint="unpause it first",
        )


def _volumes_key(container: Container) -> str:
    # Not the container's own: what is noted there goes with all the container has.
    return f"{container.id}.update"


def _anonymous(plan: Plan) -> list[str]:
    return [mount.name for mount in plan.added if mount.anonymous]


async def _make_volumes(core: Core, plan: Plan) -> Definition:
    """The new definition, with the volumes it brings made and filled."""
    definition = plan.definition
    if not plan.added:
        return definition
    names = _anonymous(plan)
    key = f"{definition.id}.update"
    if names:
        core.store.write(removal.intent(key, names))

    def make() -> dict[str, MountPoint]:
        return {mount.destination: resolve_volume(core, definition, mount) for mount in plan.added}

    try:
        made = await asyncio.to_thread(make)
    except (WherryError, OSError):
        await asyncio.to_thread(removal.dispose, core, key, names)
        raise
    return replace(definition, mounts=tuple(made.get(mount.destination, mount) for mount in definition.mounts))


def _try_ports(core: Core, container: Container, definition: Definition) -> None:
    """In a thread: Conflict when the new definition could not have its ports."""
    if container.endpoints:
        requests = port_requests(definition.config.exposed_ports, definition.host)
        core.parts.networks.change_ports(container.id, requests, try_only=True)


async def _change_in_place(core: Core, container: Container, plan: Plan) -> None:
    """Under its lock: no process needs to be started for it. The records are the last thing that changes."""
    endpoints = changed = container.endpoints
    running = container.run is not None
    try:
        if running and plan.ports and endpoints:
            changed = await asyncio.to_thread(_change_ports, core, plan.definition)
        if running and plan.limits:
            await lifecycle.apply_limits(core, container, plan.definition.host)
        state = container.state
        if changed is not endpoints:
            state = state.but(endpoints=attachments.stored(changed))
        core.store.write(
            Put(definition_key(container.id), dump(plan.definition)),
            *([Put(state_key(container.id), dump(state))] if state is not container.state else ()),
            Delete(f"garbage/{_volumes_key(container)}"),
        )
    except (WherryError, OSError):
        if changed is not endpoints:
            await asyncio.to_thread(_change_ports, core, container.definition)
        raise
    container.definition = plan.definition
    container.set_state(endpoints=state.endpoints)
    container.endpoints = changed


def _change_ports(core: Core, definition: Definition) -> tuple[Endpoint, ...]:
    requests = port_requests(definition.config.exposed_ports, definition.host)
    core.parts.networks.change_ports(definition.id, requests)
    return tuple(core.parts.networks.endpoints(definition.id))


async def _replace(core: Core, container: Container, plan: Plan, timeout: int | None) -> WherryError | None:
    """Stop it, record the new definition, start it; the failure, after which it is what it was."""
    try:
        for _ in range(_ATTEMPTS):
            await lifecycle.stop(core, container.id, timeout, None)
            async with container.lock:
                if container.id not in core.index:
                    core.store.write(Delete(_NOTES + container.id))
                    return NotFound(f"No such container: {container.id}", object=container.id)
                if container.run is None:
                    return await _swap(core, container, plan)
        # Somebody starts it as often as it is stopped.
        core.store.write(Delete(_NOTES + container.id))
        return Conflict(f"container {container.id} was started by somebody else meanwhile", object=container.id)
    except WherryError as error:
        if not core.closing:
            core.store.write(Delete(_NOTES + container.id))
        return error
    finally:
        container.replacing = False


async def _swap(core: Core, container: Container, plan: Plan) -> WherryError | None:
    """Under its lock, when it does not run."""
    if container.release is not None:
        # It gives back what the old definition has.
        await container.release
    before = container.definition
    failure: WherryError | None = None
    container.set_definition(**_all(plan.definition, container.name))
    core.save_definition(container)
    try:
        await launch.start(core, container)
    except WherryError as error:
        failure = error
        container.set_definition(**_all(before, container.name))
        core.save_definition(container)
        failure = await _start_again(core, container, error)
    core.store.write(Delete(_NOTES + container.id), Delete(f"garbage/{_volumes_key(container)}"))
    if failure is not None and _anonymous(plan):
        await asyncio.to_thread(removal.dispose, core, _volumes_key(container), _anonymous(plan))
    return failure


def _all(definition: Definition, name: str) -> dict[str, object]:
    # It may have been renamed since the plan was made.
    return {**{field: getattr(definition, field) for field in Definition.__slots__}, "name": name}


async def _start_again(core: Core, container: Container, error: WherryError) -> WherryError:
    try:
        await launch.start(core, container)
    except WherryError as second:
        return FailedPrecondition(
            f"the container could not be started with the changes ({error}), and as it was neither: {second}",
            object=container.id,
        )
    return FailedPrecondition(
        f"the container could not be started with the changes, so it runs as it was: {error}", object=container.id
    )


def roll_back(core: Core) -> list[Container]:
    """At the daemon's start, before anything else is decided: containers whose change was cut short, as they were.

    They are marked as being replaced: whatever is found of them, they neither go with their exit nor by their policy.
    """
    found = []
    for key, data in core.store.scan(_NOTES):
        container = core.index.get(key.removeprefix(_NOTES))
        before = load_definition(data)
        if container is None:
            core.store.write(Delete(key))
            continue
        is_new = replace(before, name=container.name) != container.definition
        if is_new and container.state.status in ("running", "paused"):
            core.store.write(Delete(key))
            continue
        if is_new:
            container.set_definition(**_all(before, container.name))
            core.save_definition(container)
        container.replacing = True
        found.append(container)
    return found


def resume(core: Core, containers: list[Container]) -> None:
    """When all that was found has been dealt with: run again those that ran before their change."""
    for container in containers:
        if container.run is not None:
            container.replacing = False
            core.store.write(Delete(_NOTES + container.id))
        elif container.id in core.index:
            container.restarter = core.spawn(_resume(core, container), f"the start of {container.id[:12]}")


async def _resume(core: Core, container: Container) -> None:
    try:
        async with container.lock:
            if core.closing:
                return
            if container.run is None and container.id in core.index:
                try:
                    await launch.start(core, container)
                except WherryError as error:
                    log.warning("%s, whose change was cut short, could not be started: %s", container.id, error)
            core.store.write(Delete(_NOTES + container.id))
    finally:
        container.replacing = False
        container.restarter = None
