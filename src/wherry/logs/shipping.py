"""The engine's side of the shipper: started when the first log is to be delivered, started again when it is lost."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from wherry.errors import Unavailable, WherryError
from wherry.ipc.client import Connection
from wherry.ipc.spawn import spawn
from wherry.logs.target import LogTarget

log = logging.getLogger(__name__)
_PAUSE = 0.2
# What a container's end waits for its last messages to be delivered. They are afterwards too, but `run` has returned.
FAREWELL_SECONDS = 2.0


class Shipping:
    """A connection to the shipper while any log is delivered. Use it on one event loop."""

    def __init__(self, exec_root: Path) -> None:
        self._exec_root = exec_root
        self._connection: Connection | None = None
        self._ids: set[str] = set()
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._finishing: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    def recover(self) -> None:
        """Whatever a shipper that is gone was delivering is delivered on."""
        directory = self._exec_root / "shipping"
        self._ids = {path.stem for path in directory.glob("*.json")} if directory.is_dir() else set()
        if self._ids:
            self._in_background(self._again())

    async def open(self, id: str, target: LogTarget) -> None:
        """Deliver what will be written to `target` from now on. Raises why its place cannot be reached."""
        self._ids.add(id)
        self._finishing.pop(id, None)  # of its last run: the shipper goes on with both
        document = {
            "driver": target.driver,
            "path": target.path,
            "options": target.options,
            "cursor": target.cursor,
            "info": target.info,
        }
        try:
            await (await self._connected()).ask("open", id=id, target=document)
        except BaseException:
            self._ids.discard(id)
            self._leave_when_idle()
            raise

    async def finish(self, id: str, seconds: float) -> None:
        """Its log has ended. Waits until all is delivered, `seconds` at most; the rest is delivered later."""
        if id in self._ids and id not in self._finishing:
            task = self._finishing[id] = asyncio.get_running_loop().create_task(self._finish(id))
            task.add_done_callback(lambda done: self._finished(id, done))
        if id in self._finishing:
            _, late = await asyncio.wait([self._finishing[id]], timeout=seconds)
            if late:
                log.warning("%s: the end of its log is not delivered yet", id)

    def finish_soon(self, id: str, then: Callable[[str], None]) -> None:
        """As `finish`, in the background."""

        async def work() -> None:
            await self.finish(id, FAREWELL_SECONDS)
            then(id)

        self._in_background(work())

    def delivers(self, id: str) -> bool:
        """Whether the log of `id` is delivered."""
        return id in self._ids

    async def _finish(self, id: str) -> None:
        try:
            await (await self._connected()).ask("finish", id=id)
        except (WherryError, OSError) as error:
            log.warning("%s: the end of its log may not be delivered: %s", id, error)

    def _finished(self, id: str, task: asyncio.Task[None]) -> None:
        if self._finishing.get(id) is task:
            del self._finishing[id]
            self._ids.discard(id)
            self._leave_when_idle()

    def close(self) -> None:
        """Disconnect; the shipper goes on."""
        self._closed = True
        for task in [*self._tasks, *self._finishing.values()]:
            task.cancel()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def stop(self) -> None:
        """End the shipper, if there is one: for tests."""
        if self._connection is not None:
            try:
                await self._connection.ask("stop")
            except Unavailable:
                pass

    async def _connected(self) -> Connection:
        async with self._lock:
            if self._connection is None:
                await asyncio.to_thread(spawn, "shipper", "wherry.logs.shipper", self._exec_root)
                self._connection = Connection("shipper", self._exec_root / "shipper.sock", _no_event, self._lost)
            return self._connection

    def _leave_when_idle(self) -> None:
        # It ends when nobody needs it.
        if not self._ids and self._connection is not None and not self._lock.locked():
            self._connection.close()
            self._connection = None

    def _lost(self) -> None:
        self._connection = None
        if not self._closed and self._ids:
            log.warning("the shipper was lost; starting it again")
            self._in_background(self._again())

    async def _again(self) -> None:
        while not self._closed:
            try:
                await self._connected()
                return
            except (WherryError, OSError) as error:
                log.error("cannot start the shipper: %s", error)
                await asyncio.sleep(_PAUSE)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _no_event(name: str, *values: Any) -> None:
    """It tells nothing by itself."""
