"""The two processes beside the daemon: found or started at the beginning, started anew when they are lost."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from wherry.engine.parts import Exit, Logger, Monitor, Parts
from wherry.errors import Unavailable, WherryError

log = logging.getLogger(__name__)
_PATIENCE = 10.0
_PAUSE = 0.2
T = TypeVar("T")


class Backends:
    """`monitor()` and `logger()` give the living connection, waiting for one that is being made anew."""

    def __init__(
        self,
        parts: Parts,
        on_exit: Callable[[Exit], None],
        on_eof: Callable[[str], None],
        on_monitor: Callable[[], Awaitable[None]],
        on_logger: Callable[[], Awaitable[None]],
    ) -> None:
        self._on_exit = on_exit
        self._on_eof = on_eof
        self._monitor: Supervised[Monitor] = Supervised(
            "monitor", self._open_monitor, on_monitor, lambda monitor: monitor.close()
        )
        self._logger: Supervised[Logger] = Supervised(
            "logger", self._open_logger, on_logger, lambda logger: logger.disconnect()
        )
        self._parts = parts

    async def open(self) -> None:
        """Find or start both."""
        await asyncio.gather(self._monitor.open(), self._logger.open())

    async def monitor(self) -> Monitor:
        """The monitor; Unavailable when it cannot be had within seconds."""
        return self._monitor.connection or await self._monitor.wait()

    async def logger(self) -> Logger:
        """The logger; Unavailable when it cannot be had within seconds."""
        return self._logger.connection or await self._logger.wait()

    @property
    def current_logger(self) -> Logger | None:
        """The logger, unless it is lost just now."""
        return self._logger.connection

    async def complete_logger(self) -> Logger:
        """The logger, when it has every container's streams; not for those who give it them."""
        await self._logger.settled()
        return await self.logger()

    async def close(self) -> None:
        """Disconnect; both go on."""
        for supervised in (self._monitor, self._logger):
            await supervised.close()

    async def _open_monitor(self, on_lost: Callable[[], None]) -> Monitor:
        return await self._parts.open_monitor(self._on_exit, on_lost)

    async def _open_logger(self, on_lost: Callable[[], None]) -> Logger:
        return await self._parts.open_logger(self._on_eof, on_lost)


class Supervised(Generic[T]):
    """One connection that is made anew whenever it is lost."""

    def __init__(
        self,
        name: str,
        make: Callable[[Callable[[], None]], Awaitable[T]],
        on_again: Callable[[], Awaitable[None]],
        let_go: Callable[[T], None],
    ) -> None:
        self.name = name
        self._let_go = let_go
        self.connection: T | None = None
        self._make = make
        self._on_again = on_again
        self._ready = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_turn = asyncio.Lock()
        self._closed = False

    async def open(self) -> None:
        """Make it for the first time."""
        self.connection = await self._make(self._lost)
        self._ready.set()

    async def wait(self) -> T:
        """The connection as soon as there is one again."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._ready.wait()
        except TimeoutError:
            pass
        if self.connection is None:
            raise Unavailable(f"the {self.name} does not answer", hint="see the daemon's log")
        return self.connection

    async def settled(self) -> None:
        """Wait until a loss has been dealt with."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Let go."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        connection, self.connection = self.connection, None
        if connection is not None:
            self._let_go(connection)

    def _lost(self) -> None:
        if self._closed or self.connection is None:
            return  # while it is being made, whoever makes it finds out
        self.connection = None
        self._ready.clear()
        log.warning("the %s was lost; starting it again", self.name)
        task = asyncio.get_running_loop().create_task(self._again())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _again(self) -> None:
        while self.connection is None:
            try:
                await self.open()
            except (WherryError, OSError) as error:
                log.error("cannot start the %s: %s", self.name, error)
                await asyncio.sleep(_PAUSE)
        # Lost once more meanwhile, it is made again by another task, and what follows from that waits for its turn.
        async with self._in_turn:
            try:
                await self._on_again()
            except (WherryError, OSError) as error:
                log.error("after the %s was started again: %s", self.name, error)
