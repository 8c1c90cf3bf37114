"""The engine's side of the shipper: started when the first log is to be delivered, started again when it is lost."""

import asyncio
import logging
from collections.abc import Coroutine
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
        if id not in self._ids:
            return
        self._ids.discard(id)
        try:
            async with asyncio.timeout(seconds):
                await (await self._connected()).ask("finish", id=id)
        except TimeoutError:
            log.warning("%s: its log is not delivered yet", id)
        except WherryError as error:
            log.warning("%s: its log may not be delivered: %s", id, error)
        self._leave_when_idle()

    def close(self) -> None:
        """Disconnect; the shipper goes on."""
        self._closed = True
        for task in self._tasks:
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
