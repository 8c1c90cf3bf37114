"""Health checks: a command run in each container at its interval, and what follows from how it ends.

A task for each running container that has a check. One request to the monitor runs the probe and brings its end
(runtime/probe.py); nothing of it is stored but a change of the status, so that a daemon started anew knows it. The log
of the last results is stored when the daemon stops in order.
"""

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wherry.engine.container import Container
from wherry.engine.records import rfc3339
from wherry.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, Unavailable, WherryError
from wherry.spec.docker import ContainerConfig, HealthConfig

if TYPE_CHECKING:
    from wherry.engine.core import Core

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"
ACTIONS = ("none", "restart", "stop", "kill")
"""What may follow from "unhealthy"."""

_SECOND = 1_000_000_000
_INTERVAL = _TIMEOUT = 30 * _SECOND
_START_INTERVAL = 5 * _SECOND
_RETRIES = 3
_LEAST = 1_000_000
_KEPT = 5
_DEFAULT_SHELL = ("/bin/sh", "-c")
_EXEC_FAILED = "OCI runtime exec failed: exec failed: unable to start container process: "
# A process that SIGKILL did not end by then is stuck in the kernel: its check has failed, and is not run once more.
_GRACE = 2.0


def check_health(health: HealthConfig | None) -> None:
    """InvalidArgument in docker's words; and, unlike there, for a kind of test that would never be run."""
    if health is None:
        return
    for name, value in (
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ):
        if value and value < _LEAST:
            raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms", object=name)
    if health.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative", object="Retries")
    if health.test and health.test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise InvalidArgument(
            f"unknown kind of health check: {health.test[0]!r}", object="Healthcheck", hint="NONE, CMD or CMD-SHELL"
        )
    if health.on_failure not in ("", *ACTIONS):
        raise InvalidArgument(
            f"unknown action on failure of a health check: {health.on_failure!r}", hint=", ".join(ACTIONS)
        )


def merge_health(own: HealthConfig | None, image: Any) -> HealthConfig | None:
    """What the user said of it over what the image says (spec.oci_image.Healthcheck), field by field."""
    if image is None:
        return own
    if own is None:
        own = HealthConfig()
    return HealthConfig(
        test=own.test or tuple(image.test) or None,
        interval=own.interval or image.interval,
        timeout=own.timeout or image.timeout,
        start_period=own.start_period or image.start_period,
        start_interval=own.start_interval or image.start_interval,
        retries=own.retries or image.retries,
        on_failure=own.on_failure,
    )


@dataclass(frozen=True, slots=True)
class Check:
    """A health check with its defaults filled in; times in nanoseconds."""

    args: tuple[str, ...]
    interval: int
    timeout: int
    start_period: int
    start_interval: int
    retries: int
    on_failure: str

    def pause(self, status: str, running_ns: int) -> float:
        """Seconds until the next probe: shorter while it starts."""
        starting = status == STARTING and running_ns < self.start_period
        return (self.start_interval if starting else self.interval) / _SECOND


def check_of(config: ContainerConfig) -> Check | None:
    """What is to be run, if anything."""
    health = config.healthcheck
    if health is None or not health.test or health.test[0] not in ("CMD", "CMD-SHELL"):
        return None
    args = tuple(health.test[1:])
    if health.test[0] == "CMD-SHELL":
        args = (*(config.shell or _DEFAULT_SHELL), *args)
    return Check(
        args,
        health.interval or _INTERVAL,
        health.timeout or _TIMEOUT,
        health.start_period,
        health.start_interval or _START_INTERVAL,
        health.retries or _RETRIES,
        health.on_failure or "none",
    )


@dataclass(slots=True)
class Health:
    """How a container's checks went."""

    status: str
    streak: int
    log: list[dict[str, Any]]
    task: "asyncio.Task[None] | None" = None
    stuck: "asyncio.Task[Any] | None" = None

    def document(self) -> dict[str, Any]:
        """State.Health of docker's inspect document."""
        return {"Status": self.status, "FailingStreak": self.streak, "Log": list(self.log)}

    def note(self, result: dict[str, Any], check: Check, since_start: int) -> None:
        """One more result."""
        self.log = [*self.log, result][-_KEPT:]
        if result["ExitCode"] == 0:
            self.status, self.streak = HEALTHY, 0
        elif self.status != STARTING or since_start >= check.start_period:
            self.streak += 1
            if self.streak >= check.retries:
                self.status = UNHEALTHY


class HealthChecks:
    """The checks of every container. `react(container, action)` carries out what follows from "unhealthy"."""

    def __init__(self, core: "Core", react: Callable[[Container, str], Coroutine[Any, Any, None]]) -> None:
        self._core = core
        self._react = react
        self.done = 0
        self.failed = 0

    def begin(self, container: Container) -> None:
        """It has started."""
        check = check_of(container.definition.config)
        if check is None:
            container.health = None
            return
        log = container.health.log if container.health is not None else []
        container.health = Health(STARTING, 0, log)
        self._watch(container, check, first=True)

    def resume(self, container: Container, *, adopted: bool = False) -> None:
        """It was thawed, or found running by a daemon started anew; what is known of it holds."""
        check = check_of(container.definition.config)
        if check is None or container.state.status != "running":
            return
        if container.health is None:
            container.health = Health(STARTING, 0, [])
        self._watch(container, check, first=not adopted)

    def suspend(self, container: Container) -> None:
        """It is frozen: no probe could end."""
        health = container.health
        if health is not None and health.task is not None:
            health.task.cancel()
            health.task = None

    def end(self, container: Container) -> None:
        """Its process has ended; docker calls such a container unhealthy."""
        if container.health is not None:
            self.suspend(container)
            container.health.status = UNHEALTHY
            container.set_state(health=container.health.document())

    def close(self) -> None:
        """The daemon stops: the next one shall know the last results."""
        for container in self._core.index:
            if container.health is not None and container.health.task is not None:
                self.suspend(container)
                container.set_state(health=container.health.document())
                self._core.save_state(container)

    def _watch(self, container: Container, check: Check, *, first: bool) -> None:
        self.suspend(container)
        assert container.health is not None
        work = self._run(container, check, container.health, first=first)
        container.health.task = asyncio.get_running_loop().create_task(work, name=f"health of {container.id[:12]}")

    async def _run(self, container: Container, check: Check, health: Health, *, first: bool) -> None:
        started = container.state.started_ns
        pause = check.pause(health.status, time.time_ns() - started)
        # Those of a crowd found running must not all be checked at the same moment.
        await asyncio.sleep(pause if first else random.uniform(0, pause))
        while True:
            result = await self._probe(container, check, health)
            if result is not None:
                self._handle(container, check, health, result, time.time_ns() - started)
            await asyncio.sleep(check.pause(health.status, time.time_ns() - started))

    async def _probe(self, container: Container, check: Check, health: Health) -> dict[str, Any] | None:
        """A result as docker's log has it; None when nothing can be said."""
        begun = time.time_ns()
        if health.stuck is not None and not health.stuck.done():
            return _result(begun, -1, "Health check of before could not be ended")
        health.stuck = None
        exec_id = secrets.token_hex(32)
        words = " ".join(check.args)
        self._core.emit(container, f"exec_create: {words}", execID=exec_id)
        self._core.emit(container, f"exec_start: {words}", execID=exec_id)
        try:
            code, output = await self._ask(container, check, health)
        except (Unavailable, FailedPrecondition):
            return None  # the monitor is being started anew, or the container's end is on its way
        except WherryError as error:
            return _result(begun, -1, _worded(error))
        self._core.emit(container, "exec_die", execID=exec_id, exitCode=str(137 if code is None else code))
        if code is None:
            said = f": {output}" if output else ""
            return _result(begun, -1, f"Health check exceeded timeout ({_go_duration(check.timeout)}){said}")
        return _result(begun, code, output)

    async def _ask(self, container: Container, check: Check, health: Health) -> tuple[int | None, str]:
        monitor = await self._core.backends.monitor()
        seconds = check.timeout / _SECOND
        asked = asyncio.ensure_future(monitor.probe(container.id, check.args, seconds))
        done, _ = await asyncio.wait((asked,), timeout=seconds + _GRACE)
        if not done:
            health.stuck = asked
            return None, ""
        probed = asked.result()
        return probed.status, probed.output

    def _handle(
        self, container: Container, check: Check, health: Health, result: dict[str, Any], since_start: int
    ) -> None:
        before = health.status
        self.done += 1
        self.failed += result.get("ExitCode") != 0
        health.note(result, check, since_start)
        if health.status == before:
            return
        container.set_state(health=health.document())
        self._core.save_state(container)
        self._core.emit(container, f"health_status: {health.status}")
        if health.status == UNHEALTHY and check.on_failure != "none":
            self._core.spawn(self._react(container, check.on_failure), f"{check.on_failure} of {container.id[:12]}")


def adopt(container: Container) -> None:
    """What was stored of it, when it is loaded."""
    known = container.state.health
    if known is not None:
        container.health = Health(known["Status"], known["FailingStreak"], list(known["Log"] or ()))


def _result(begun: int, code: int, output: str) -> dict[str, Any]:
    return {"Start": rfc3339(begun), "End": rfc3339(time.time_ns()), "ExitCode": code, "Output": output}


def _worded(error: WherryError) -> str:
    if isinstance(error, NotFound | PermissionDenied) and "exec: " in error.message:
        return _EXEC_FAILED + error.message
    return str(error)


def _go_duration(ns: int) -> str:
    """As Go prints a duration: 1m30s, 1.5s, 500ms."""
    if ns < _SECOND:
        return f"{ns / 1e6:.6f}".rstrip("0").rstrip(".") + "ms"
    minutes, rest = divmod(ns, 60 * _SECOND)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest / _SECOND:.9f}".rstrip("0").rstrip(".") + "s"
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + seconds


def shown(health: Health | None) -> str:
    """What ps adds to "Up 3 minutes"."""
    if health is None:
        return ""
    return " (health: starting)" if health.status == STARTING else f" ({health.status})"


def fits(container: Container, wanted: Sequence[str]) -> bool:
    """The filter health=."""
    return (container.health.status if container.health is not None else "none") in wanted
