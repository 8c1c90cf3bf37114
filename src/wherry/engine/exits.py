"""When a container's process has ended: the log made whole, what it held given back, those who wait told."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from wherry.engine import attachments, launch, removal
from wherry.engine.container import Container
from wherry.engine.core import Core
from wherry.engine.parts import Exit
from wherry.engine.records import State
from wherry.errors import Unavailable, WherryError
from wherry.network.endpoint import Endpoint
from wherry.spec.docker import RestartPolicy

log = logging.getLogger(__name__)
_DRAIN_SECONDS = 2.0
_BACKOFF_FIRST = 0.1
_BACKOFF_LAST = 60.0
_STABLE_SECONDS = 10


def on_exit(core: Core, exit: Exit, drop_execs: Callable[[Container], None]) -> None:
    """The monitor says that a container's process ended."""
    container = core.index.get(exit.id)
    if container is None or core.closing:
        return
    if container.execs:
        drop_execs(container)
    core.spawn(finish(core, container, exit), f"the exit of {exit.id[:12]}")


async def finish(core: Core, container: Container, exit: Exit) -> None:
    """Deal with one exit; a second report of the same is ignored."""
    async with container.lock:
        state, run = container.state, container.run
        if run is None or run.died or state.status not in ("running", "paused"):
            return
        run.died = True
        core.health.end(container)
        if container.id in core.whole_logs:
            core.whole_logs.discard(container.id)
        else:
            await _close_log(core, container.id)
        endpoints, container.endpoints = container.endpoints, ()
        code = exit.status if exit.status >= 0 else 255
        restart = not core.closing and not container.replacing and wants_restart(container, code)
        container.set_state(
            status="restarting" if restart else "exited",
            pid=0,
            process_start=0,
            exit_code=code,
            restart_count=state.restart_count + restart,
            oom_killed=exit.oom_killed,
            error="" if exit.status >= 0 else "the exit status was lost with the monitor",
            finished_ns=exit.at_ns or time.time_ns(),
            endpoints=(),
        )
        container.run = None
        run.let_go()
        removing = container.definition.host.auto_remove and not restart and not container.replacing
        if not removing:
            core.save_state(container)
        _announce(core, container, exit, endpoints, state)
        if not run.ended.done():
            run.ended.set_result(container.outcome())
        container.wake("not-running", "next-exit")
        # Last: until here a thread would only have held up those who wait.
        core.naming.withdraw(container.id)
        _release(core, container)
        await forget(core, container)
        if removing:
            removal.remove_locked(core, container, volumes=True)
    if restart and core.serving:
        container.restarter = core.spawn(restart_later(core, container), f"the restart of {container.id[:12]}")


async def forget(core: Core, container: Container) -> None:
    """The monitor's last trace of a run."""
    try:
        await (await core.backends.monitor()).delete(container.id, force=True)
    except WherryError as error:
        # Reconciliation finds it: its record says that it does not run.
        log.warning("the monitor could not delete %s: %s", container.id, error)


def _announce(core: Core, container: Container, exit: Exit, endpoints: Sequence[Endpoint], before: State) -> None:
    if exit.oom_killed:
        core.emit(container, "oom")
    duration = max(0, container.state.finished_ns - before.started_ns) // 1_000_000_000
    core.emit(container, "die", execDuration=str(duration), exitCode=str(container.state.exit_code))
    for endpoint in endpoints:
        attachments.announce(core, container, endpoint, "disconnect")


async def _close_log(core: Core, id: str) -> None:
    try:
        logger = await core.backends.complete_logger()
        if not await logger.drain(id, _DRAIN_SECONDS):
            log.warning("%s: a process outside holds its output open; its log ends here", id)
        await logger.close(id)
    except Unavailable as error:
        log.warning("%s: the end of its log is missing: %s", id, error)
    except WherryError:
        # Not found: its streams have been closed already.
        pass


def _release(core: Core, container: Container) -> None:
    """Give the network back beside everything else; a start that needs it waits for `release`."""
    future = asyncio.get_running_loop().run_in_executor(None, _release_blocking, core, container)
    container.release = future
    core.releases.add(future)

    def done(future: "asyncio.Future[None]") -> None:
        core.releases.discard(future)
        container.release = None
        if not future.cancelled() and (error := future.exception()) is not None:
            log.error("giving back the network of %s failed: %s", container.id, error)

    future.add_done_callback(done)


def _release_blocking(core: Core, container: Container) -> None:
    launch.give_back(core, container)
    _remove_bundle(str(core.bundle(container.id)))


def _remove_bundle(bundle: str) -> None:
    # Its three entries by name: this is on the path of every exit, and a walk costs three times as much.
    with contextlib.suppress(OSError):
        os.unlink(f"{bundle}/config.json")
        os.rmdir(f"{bundle}/rootfs")
        os.rmdir(bundle)


def wants_restart(container: Container, code: int) -> bool:
    """docker's restart policies."""
    policy: RestartPolicy = container.definition.host.restart_policy
    if container.state.stopped_by_user:
        return False
    if policy.name in ("always", "unless-stopped"):
        return True
    attempts = policy.maximum_retry_count
    return policy.name == "on-failure" and code != 0 and (not attempts or container.state.restart_count < attempts)


def next_delay(delay: float, state: State) -> float:
    """Seconds before the next start, after those of the last: doubled each time until a run has lasted."""
    if not delay or state.finished_ns - state.started_ns >= _STABLE_SECONDS * 1_000_000_000:
        return _BACKOFF_FIRST
    return min(2 * delay, _BACKOFF_LAST)


async def restart_later(core: Core, container: Container) -> None:
    """Start it by its policy after its back-off."""
    try:
        container.delay = next_delay(container.delay, container.state)
        await asyncio.sleep(container.delay)
        await start_again(core, container)
    finally:
        container.restarter = None


async def start_again(core: Core, container: Container) -> None:
    """Start it by its policy, unless it was stopped meanwhile; docker too gives up after a start that fails."""
    async with container.lock:
        if container.state.status != "restarting" or core.closing:
            return
        try:
            await launch.start(core, container, by_policy=True)
        except WherryError as error:
            log.warning("%s could not be started again: %s", container.id, error)


async def stop_restarting(core: Core, container: Container) -> None:
    """Under its lock: a container that waits for its next start has exited for good."""
    restarter: asyncio.Task[Any] | None = container.restarter
    if restarter is not None:
        restarter.cancel()
        container.restarter = None
    if container.state.status == "restarting":
        container.set_state(status="exited", stopped_by_user=True)
        core.save_state(container)
        container.wake("not-running", "next-exit")
