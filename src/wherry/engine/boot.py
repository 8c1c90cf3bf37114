"""What a daemon starts at its own start: containers by their restart policies, each after those it depends on.

A container depends on those whose namespaces or volumes it uses, and on those its labels name:
`com.docker.compose.depends_on` ("db:service_healthy:false,cache:service_started:true", services of its own project) and
`io.wherry.depends-on` ("db:healthy,cache": names of containers, each with started, healthy or completed). An order is
all this asks for: what does not come within two minutes, or cannot come, is not waited for any longer.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from wherry.engine import exits, health
from wherry.engine.container import Container
from wherry.engine.core import Core
from wherry.errors import WherryError

log = logging.getLogger(__name__)

LABEL = "io.wherry.depends-on"
_COMPOSE = "com.docker.compose."
_PATIENCE = 120.0
_PAUSE = 0.1
_AT_A_TIME = 8
_CONDITIONS = {
    "": "started",
    "started": "started",
    "healthy": "healthy",
    "completed": "completed",
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
}


class Dependency(NamedTuple):
    """On which container, and what of it: started, healthy or completed."""

    container: Container
    condition: str


def wants_start(container: Container) -> bool:
    """docker's rules for a daemon's start; a container never started waits for its user."""
    state, policy = container.state, container.definition.host.restart_policy
    if container.run is not None or container.restarter is not None or not state.started_ns:
        return state.status == "restarting" and container.restarter is None
    if state.status == "restarting" or policy.name == "always":
        return True
    return not state.stopped_by_user and (
        policy.name == "unless-stopped" or exits.wants_restart(container, state.exit_code)
    )


def start_by_policy(core: Core) -> None:
    """Begin to start all that want it."""
    chosen = [container for container in core.index if wants_start(container)]
    slots = asyncio.Semaphore(_AT_A_TIME)
    order = plan(core, chosen)
    for container in chosen:
        container.set_state(status="restarting")
    for container in chosen:
        work = _start_in_turn(core, container, order[container.id], slots)
        container.restarter = core.spawn(work, f"the start of {container.id[:12]}")


def plan(core: Core, chosen: Sequence[Container]) -> dict[str, list[Dependency]]:
    """By id what each is to wait for: dependencies that run or are among the chosen; no circles."""
    coming = {container.id for container in chosen}
    found = {
        container.id: [
            dependency
            for dependency in dependencies(core, container)
            if dependency.container.id in coming or dependency.container.run is not None
        ]
        for container in chosen
    }
    done: set[str] = set()

    def visit(id: str, above: tuple[str, ...]) -> None:
        if id in done or id not in found:
            return
        for dependency in list(found[id]):
            if dependency.container.id in (*above, id):
                log.warning("containers depend on each other in a circle: %s", " ".join((*above, id)))
                found[id].remove(dependency)
            else:
                visit(dependency.container.id, (*above, id))
        done.add(id)

    for container in chosen:
        visit(container.id, ())
    return found


def dependencies(core: Core, container: Container) -> Iterator[Dependency]:
    """Whatever its definition names, as far as it is there."""
    host, labels = container.definition.host, container.definition.config.labels or {}
    named = [
        mode.removeprefix("container:")
        for mode in (host.network_mode, host.pid_mode, host.ipc_mode)
        if mode.startswith("container:")
    ]
    named += [text.partition(":")[0] for text in (*(host.volumes_from or ()), *(host.links or ()))]
    wanted = [(name, "") for name in named]
    for text in labels.get(LABEL, "").split(","):
        name, _, condition = text.strip().partition(":")
        wanted.append((name, condition))
    for name, condition in wanted:
        if not name:
            continue
        try:
            other = core.index.find(name.removeprefix("/"))
        except WherryError:
            continue
        yield Dependency(other, _CONDITIONS.get(condition, "started"))
    yield from _composed(core, labels.get(f"{_COMPOSE}project"), labels.get(f"{_COMPOSE}depends_on", ""))


def _composed(core: Core, project: str | None, text: str) -> Iterator[Dependency]:
    for entry in text.split(",") if project and text else ():
        service, _, rest = entry.partition(":")
        for other in core.index:
            labels = other.definition.config.labels or {}
            if (labels.get(f"{_COMPOSE}project"), labels.get(f"{_COMPOSE}service")) == (project, service):
                yield Dependency(other, _CONDITIONS.get(rest.partition(":")[0], "started"))


async def _start_in_turn(
    core: Core, container: Container, awaited: Sequence[Dependency], slots: asyncio.Semaphore
) -> None:
    deadline = time.monotonic() + _PATIENCE
    try:
        for dependency in awaited:
            while (come := _has_come(dependency)) is None and time.monotonic() < deadline:  # noqa: ASYNC110 - once, at a boot
                await asyncio.sleep(_PAUSE)
            if not come:
                name, condition = dependency.container.name, dependency.condition
                log.warning("%s starts although %s is not %s", container.name, name, condition)
        async with slots:
            await exits.start_again(core, container)
    finally:
        container.restarter = None


def _has_come(dependency: Dependency) -> bool | None:
    """None: not yet."""
    container, condition = dependency
    state = container.state
    if container.restarter is not None or state.status in ("starting", "restarting"):
        return None
    if condition == "completed":
        return None if state.running else state.exit_code == 0
    if not state.running:
        return False
    if condition == "started" or container.health is None:
        return True
    return {health.HEALTHY: True, health.UNHEALTHY: False}.get(container.health.status)
