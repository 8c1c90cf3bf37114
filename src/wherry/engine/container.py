"""One container in memory."""

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from wherry.engine.records import Definition, State
from wherry.logs.client import Streams
from wherry.network.endpoint import Endpoint, PublishedPort

if TYPE_CHECKING:
    from wherry.engine.health import Health


class WaitResult(NamedTuple):
    """An exit status, and the reason when there is none because something failed."""

    status: int
    error: str | None


NO_STREAMS = Streams(None, None, None, None)


class Run:
    """One run of a container's process, from its start until its exit was dealt with."""

    __slots__ = ("died", "ended", "kept", "kill_signal")

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[WaitResult] = loop.create_future()
        self.died = False
        self.kill_signal: int | None = None
        # Copies of our ends of its streams: with the monitor's and the logger's the third, so that any two may die.
        self.kept = NO_STREAMS

    def keep(self, streams: Streams) -> None:
        """Copy them."""
        self.let_go()
        self.kept = Streams(*(None if fd is None else os.dup(fd) for fd in streams))

    def let_go(self) -> None:
        """Close the copies."""
        kept, self.kept = self.kept, NO_STREAMS
        for fd in kept:
            if fd is not None:
                os.close(fd)


class Container:
    """A container's definition and state, and who waits for what. Only the loop's thread touches it.

    `lock` serialises start, exit handling, pause, rename and removal. Whoever waits for an exit does so without it.
    """

    __slots__ = (
        "_lock",
        "copies",
        "definition",
        "delay",
        "endpoints",
        "execs",
        "health",
        "pieces",
        "release",
        "replacing",
        "restarter",
        "run",
        "state",
        "waiters",
    )

    def __init__(self, definition: Definition, state: State) -> None:
        self.definition = definition
        self.state = state
        # Where it is connected while it runs, in the order of its interfaces.
        self.endpoints: tuple[Endpoint, ...] = ()
        self.run: Run | None = None
        self.execs: set[str] | None = None
        self.pieces: tuple[bytes, bytes, bytes, bytes] | None = None
        self.waiters: list[tuple[str, asyncio.Future[WaitResult]]] | None = None
        self.release: asyncio.Future[None] | None = None
        self.restarter: asyncio.Task[None] | None = None
        # What is being copied into it (engine.copies).
        self.copies: set[Any] = set()
        # It is stopped to be started with another definition: neither policy nor --rm applies to its exit.
        self.replacing = False
        self.delay = 0.0  # seconds between the last exit and the start by its policy
        self.health: Health | None = None
        self._lock: asyncio.Lock | None = None

    @property
    def id(self) -> str:
        return self.definition.id

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def ports(self) -> tuple[PublishedPort, ...]:
        """What is published of it now."""
        return tuple(port for endpoint in self.endpoints for port in endpoint.ports)

    @property
    def lock(self) -> asyncio.Lock:
        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock

    @property
    def anonymous_volumes(self) -> list[str]:
        return [mount.name for mount in self.definition.mounts if mount.anonymous]

    def set_state(self, **changes: Any) -> None:
        """Change the state in memory; what was cached of it is gone."""
        self.state = replace(self.state, **changes)
        self.pieces = None

    def set_definition(self, **changes: Any) -> None:
        """Change the definition in memory."""
        self.definition = replace(self.definition, **changes)
        self.pieces = None

    def wait_for(self, condition: str) -> asyncio.Future[WaitResult]:
        """A waiter for "not-running", "next-exit" or "removed", registered now."""
        future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        if condition == "not-running" and not (self.state.running or self.run):
            future.set_result(self.outcome())
            return future
        if self.waiters is None:
            self.waiters = []
        self.waiters.append((condition, future))
        future.add_done_callback(self._forget)
        return future

    def wake(self, *conditions: str) -> None:
        """Give those who wait for one of `conditions` the outcome."""
        due = [future for condition, future in self.waiters or () if condition in conditions]
        for future in due:
            if not future.done():
                future.set_result(self.outcome())
        if self.waiters:
            self.waiters = [waiter for waiter in self.waiters if waiter[1] not in due] or None

    def outcome(self) -> WaitResult:
        """The last run's exit. docker gives no error here, not even for a start that failed: `start` has raised it."""
        return WaitResult(self.state.exit_code, None)

    def _forget(self, future: "asyncio.Future[WaitResult]") -> None:
        if self.waiters and future.cancelled():
            self.waiters = [waiter for waiter in self.waiters if waiter[1] is not future] or None
