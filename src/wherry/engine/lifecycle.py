"""Start, stop, kill, restart, pause, rename, update, remove: each by docker's rules and in its words."""

import asyncio
import signal
import time
from collections.abc import Awaitable
from dataclasses import replace
from functools import partial
from typing import Any

from wherry.engine import exits, hearing, launch, removal
from wherry.engine.container import Container, Run
from wherry.engine.core import Core
from wherry.engine.index import check_name
from wherry.engine.limits import merge_limits, supported_limits
from wherry.engine.resources import limit_changes
from wherry.engine.signals import parse_signal
from wherry.engine.validation import check_restart_policy
from wherry.errors import (
    Conflict,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    WherryError,
)
from wherry.spec.docker import HostConfig, RestartPolicy

_STOP_SECONDS = 10
_KILL_SECONDS = 10
_YOUNG_NS = 1_000_000_000
_SIGNALS_THAT_STOP = (signal.SIGKILL, signal.SIGTERM)


def not_running(container: Container) -> Conflict:
    """docker's words."""
    return Conflict(f"container {container.id} is not running", object=container.id)


async def start(core: Core, reference: str) -> bool:
    """Run it; False when it runs already."""
    container = core.index.find(reference)
    async with container.lock:
        _check_there(core, container)
        if container.state.status == "paused":
            raise Conflict("cannot start a paused container, try unpause instead", object=container.id)
        if container.state.status == "running":
            return False
        if container.restarter is not None:
            container.restarter.cancel()
            container.restarter = None
        try:
            await launch.start(core, container)
        except WherryError:
            if container.definition.host.auto_remove:
                removal.remove_locked(core, container, volumes=True)
            raise
    return True


def _check_there(core: Core, container: Container) -> None:
    if container.id not in core.index:
        raise NotFound(f"No such container: {container.id}", object=container.id)


async def stop(
    core: Core, reference: str, timeout: int | None, signal_text: str | None, notes: list[str] | None = None
) -> bool:
    """Signal it, kill it when it has not ended in time; False when it was not running.

    Where the signal cannot reach it, it is killed at once, and `notes` says so.
    """
    container = core.index.find(reference)
    number = _stop_signal(container, signal_text)
    async with container.lock:
        waited = container.state.status == "restarting"
        await exits.stop_restarting(core, container)
        run = container.run
        if run is None or not container.state.running:
            if waited:
                core.emit(container, "stop")
            return waited
        _mark_stopped(core, container)
    await _signal(core, container, number)
    if container.state.status == "paused":
        await _quietly((await core.backends.monitor()).resume(container.id))
    if timeout is None:
        own = container.definition.config.stop_timeout
        timeout = _STOP_SECONDS if own is None else own
    if timeout and core.config.stop_at_once and await _is_deaf(core, container, run, number):
        timeout = 0
        if notes is not None:
            name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
            notes.append(f"{container.name}: its first process has no handler for {name}; killed without waiting")
    if not await _ended(run.ended, None if timeout < 0 else timeout):
        await _signal(core, container, signal.SIGKILL)
        if not await _ended(run.ended, _KILL_SECONDS):
            raise Internal(f"container {container.id} did not end after SIGKILL", object=container.id)
    core.emit(container, "stop")
    return True


async def _is_deaf(core: Core, container: Container, run: Run, number: int) -> bool:
    """Whether it is of no use to wait for the signal just sent."""
    if number == signal.SIGKILL:
        return False
    hears = partial(hearing.hears, container.state.pid, number, first=not container.definition.host.pid_mode)
    age = time.time_ns() - container.state.started_ns
    if age < _YOUNG_NS:
        # It may not have come to set its handlers; docker's signal is lost then.
        if await asyncio.to_thread(hears) or await _ended(run.ended, (_YOUNG_NS - age) / 1e9):
            return False
        if not await asyncio.to_thread(hears):
            return True
        await _quietly((await core.backends.monitor()).kill(container.id, number))
        return False
    return not (run.ended.done() or await asyncio.to_thread(hears) or run.ended.done())


def _stop_signal(container: Container, text: str | None) -> int:
    return parse_signal(text or container.definition.config.stop_signal or "SIGTERM")


def _mark_stopped(core: Core, container: Container) -> None:
    if not container.state.stopped_by_user:
        container.set_state(stopped_by_user=True)
        # Only a restart policy looks at it, so only then must it survive a crash.
        if container.definition.host.restart_policy.name not in ("", "no"):
            core.save_state(container)


async def _ended(future: "asyncio.Future[Any]", timeout: float | None) -> bool:
    done, _ = await asyncio.wait((future,), timeout=timeout)
    return bool(done)


async def _signal(core: Core, container: Container, number: int) -> None:
    """Send a signal; a process that is gone by now is no error."""
    try:
        await (await core.backends.monitor()).kill(container.id, number)
    except (FailedPrecondition, NotFound):
        return
    core.emit(container, "kill", signal=str(number))


async def _quietly(action: Awaitable[Any]) -> None:
    try:
        await action
    except (FailedPrecondition, NotFound):
        pass


async def restart(
    core: Core, reference: str, timeout: int | None, signal_text: str | None, notes: list[str] | None = None
) -> None:
    """Stop, then start, and never remove it in between."""
    container = core.index.find(reference)
    auto_remove = container.definition.host.auto_remove
    if auto_remove:
        # In memory only: a crash in between removes it, as its user wished.
        container.set_definition(host=replace(container.definition.host, auto_remove=False))
    try:
        await stop(core, container.id, timeout, signal_text, notes)
        await start(core, container.id)
    except WherryError as error:
        raise type(error)(
            f"Cannot restart container {reference}: {error.message}", object=error.object, hint=error.hint
        ) from None
    finally:
        if auto_remove:
            container.set_definition(host=replace(container.definition.host, auto_remove=True))
    core.emit(container, "restart")


def _known_signal(text: str) -> int:
    if text.isdigit() and int(text) > signal.NSIG - 1:
        raise InvalidArgument(f"the linux daemon does not support signal {int(text)}", object=text)
    return parse_signal(text)


async def kill(core: Core, reference: str, signal_text: str | None) -> None:
    """Send a signal; of those that end it by docker's reckoning, wait for the end a little."""
    try:
        container = core.index.find(reference)
        number = _known_signal(signal_text or "SIGKILL")
    except (InvalidArgument, NotFound) as error:
        raise type(error)(f"cannot kill container: {reference}: {error.message}", object=reference) from None
    run = container.run
    if run is None or container.state.status not in ("running", "paused"):
        async with container.lock:
            if container.state.status == "restarting":
                await exits.stop_restarting(core, container)
                return
        run = container.run
        if run is None:
            raise Conflict(f"cannot kill container: {reference}: {not_running(container)}", object=container.id)
    if number in (signal.SIGKILL, _stop_signal(container, None)):
        _mark_stopped(core, container)
    try:
        await (await core.backends.monitor()).kill(container.id, number)
    except (FailedPrecondition, NotFound):
        raise Conflict(f"cannot kill container: {reference}: {not_running(container)}", object=container.id) from None
    core.emit(container, "kill", signal=str(number))
    if number == signal.SIGKILL:
        if container.state.status == "paused":
            await _quietly((await core.backends.monitor()).resume(container.id))
        await _ended(run.ended, _KILL_SECONDS)


async def strike(core: Core, container: Container) -> None:
    """SIGKILL, not by the user's hand: its restart policy decides what follows."""
    await _signal(core, container, signal.SIGKILL)


async def pause(core: Core, reference: str) -> None:
    """Freeze it."""
    container = core.index.find(reference)
    async with container.lock:
        if container.state.status == "paused":
            raise Conflict(f"Container {container.id} is already paused", object=container.id)
        if container.state.status != "running":
            raise not_running(container)
        await (await core.backends.monitor()).pause(container.id)
        core.health.suspend(container)
        container.set_state(status="paused")
        core.save_state(container)
    core.emit(container, "pause")


async def unpause(core: Core, reference: str) -> None:
    """Thaw it."""
    container = core.index.find(reference)
    async with container.lock:
        if container.state.status != "paused":
            raise Conflict(f"Container {container.id} is not paused", object=container.id)
        await (await core.backends.monitor()).resume(container.id)
        container.set_state(status="running")
        core.save_state(container)
        core.health.resume(container)
    core.emit(container, "unpause")


async def rename(core: Core, reference: str, name: str) -> None:
    """Give it a new name."""
    container = core.index.find(reference)
    try:
        new = check_name("/" + name.removeprefix("/"))
    except InvalidArgument as error:
        raise InvalidArgument(f"Error when allocating new name: {error.message}", object=name) from None
    old = container.name
    if new == old:
        raise InvalidArgument("Renaming a container with the same name as its current name", object=name)
    async with container.lock:
        _check_there(core, container)
        try:
            core.index.reserve(new, container.id)
        except Conflict as error:
            raise Conflict(f"Error when allocating new name: {error.message}", object=name) from None
        container.set_definition(name=new)
        core.save_definition(container)
        core.index.free(old, container.id)
        await core.naming.publish(container)
    core.emit(container, "rename", oldName=f"/{old}")


async def update(core: Core, reference: str, wanted: HostConfig, policy: RestartPolicy | None) -> list[str]:
    """Change limits, running or not; the warnings."""
    container = core.index.find(reference)
    async with container.lock:
        _check_there(core, container)
        host, warnings = with_limits(container, wanted, policy)
        await apply_limits(core, container, host)
        container.set_definition(host=host)
        core.save_definition(container)
    core.emit(container, "update")
    return warnings


def with_limits(container: Container, wanted: HostConfig, policy: RestartPolicy | None) -> tuple[HostConfig, list[str]]:
    """Its host configuration with other limits and another restart policy, checked as docker does; the warnings."""
    before = container.definition.host
    prefix = _update_prefix(container)
    try:
        host, warnings = merge_limits(before, wanted, supported_limits())
    except Conflict as error:
        raise Conflict(prefix + error.message, object=container.id) from None
    if policy is not None and policy.name:
        if before.auto_remove:
            raise Conflict(
                prefix + "Restart policy cannot be updated because AutoRemove is enabled for the container",
                object=container.id,
            )
        check_restart_policy(policy, host.auto_remove)
        host = replace(host, restart_policy=policy)
    return host, warnings


def _update_prefix(container: Container) -> str:
    return f"Cannot update container {container.id}: "


async def apply_limits(core: Core, container: Container, host: HostConfig) -> None:
    """Under its lock: give its processes, if it has any, the limits of `host` in place of its own."""
    before = container.definition.host
    if container.state.status not in ("running", "paused") or host == before:
        return
    changes = await asyncio.to_thread(limit_changes, before, host)
    try:
        await (await core.backends.monitor()).update(container.id, changes)
    except Internal as error:
        # A value the kernel refuses: nothing of the record is changed.
        raise Internal(_update_prefix(container) + error.message, object=container.id, hint=error.hint) from None


async def remove(core: Core, reference: str, *, force: bool, volumes: bool, link: bool) -> None:
    """Remove it; what it had on disk goes in the background."""
    container = core.index.find(reference)
    if link:
        raise InvalidArgument(
            "links between containers are not supported, so there is none to remove", object=reference
        )
    while True:
        if force:
            await _kill_for_removal(core, container)
        async with container.lock:
            if container.id not in core.index:
                # It went with its own exit (--rm) while this waited: what was asked for is done.
                if force:
                    return
                raise NotFound(f"No such container: {reference}", object=reference)
            if force:
                await exits.stop_restarting(core, container)
                if container.state.status in ("running", "paused"):
                    continue
            _check_removable(container, reference)
            removal.remove_locked(core, container, volumes=volumes)
            return


def _check_removable(container: Container, reference: str) -> None:
    status = container.state.status
    if status == "paused":
        raise Conflict(
            f'cannot remove container "{reference}": container is paused and must be unpaused first',
            object=container.id,
        )
    if status in ("running", "restarting"):
        raise Conflict(
            f'cannot remove container "{reference}": container is {status}: stop the container before removing or '
            "force remove",
            object=container.id,
        )


async def _kill_for_removal(core: Core, container: Container) -> None:
    run = container.run
    if run is None or container.state.status not in ("running", "paused"):
        return
    _mark_stopped(core, container)
    await _signal(core, container, signal.SIGKILL)
    if container.state.status == "paused":
        await _quietly((await core.backends.monitor()).resume(container.id))
    if not await _ended(run.ended, _KILL_SECONDS):
        raise Internal(f"container {container.id} did not end after SIGKILL", object=container.id)
