"""Stopping every container with the daemon, for those who ask for it (live-restore: false)."""

import asyncio
import logging
import signal

from wherry.engine.container import Container
from wherry.engine.core import Core
from wherry.engine.signals import parse_signal
from wherry.errors import FailedPrecondition, NotFound, WherryError

log = logging.getLogger(__name__)
_STOP_SECONDS = 10
_KILL_SECONDS = 10


async def stop_all(core: Core) -> None:
    """Stop all that run, at once. What a restart policy starts again, it starts when the daemon does."""
    # Exits from now on are dealt with, and nothing is started anew: as at the daemon's start.
    core.serving = False
    for container in core.index:
        if container.restarter is not None:
            container.restarter.cancel()
    running = [container for container in core.index if container.run is not None]
    log.info("stopping %d containers", len(running))
    for container, failure in zip(
        running, await asyncio.gather(*(_stop(core, each) for each in running), return_exceptions=True), strict=True
    ):
        if isinstance(failure, WherryError):
            log.error("%s could not be stopped: %s", container.id, failure)
        elif failure is not None:
            raise failure


def longest_stop(core: Core, at_least: float) -> float | None:
    """Seconds that those which run may take; None: for ever."""
    longest = at_least
    for container in core.index:
        seconds = container.definition.config.stop_timeout
        if container.run is not None and seconds is not None:
            if seconds < 0:
                return None
            longest = max(longest, seconds)
    return longest


async def _stop(core: Core, container: Container) -> None:
    run = container.run
    if run is None:
        return
    config = container.definition.config
    await _signal(core, container, parse_signal(config.stop_signal or "SIGTERM"))
    if container.state.status == "paused":
        try:
            await (await core.backends.monitor()).resume(container.id)
        except (FailedPrecondition, NotFound):
            pass
    seconds = _STOP_SECONDS if config.stop_timeout is None else config.stop_timeout
    done, _ = await asyncio.wait((run.ended,), timeout=None if seconds < 0 else seconds)
    if not done:
        await _signal(core, container, signal.SIGKILL)
        await asyncio.wait((run.ended,), timeout=_KILL_SECONDS)
    core.emit(container, "stop")


async def _signal(core: Core, container: Container, number: int) -> None:
    try:
        await (await core.backends.monitor()).kill(container.id, number)
    except (FailedPrecondition, NotFound):
        return
    core.emit(container, "kill", signal=str(number))
