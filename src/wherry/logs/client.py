"""The engine's side of the logger process (asyncio)."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from wherry.errors import Unavailable
from wherry.ipc.client import Connection
from wherry.ipc.spawn import spawn as start
from wherry.logs.shipping import FAREWELL_SECONDS, Shipping
from wherry.logs.target import LogTarget


class Streams(NamedTuple):
    """Our ends of a container's standard streams: descriptors, or None. With a terminal only `console`."""

    stdin: int | None
    stdout: int | None
    stderr: int | None
    console: int | None

    def held(self) -> list[int]:
        """As a list for the monitor to hold: the console, or the outputs and then the input."""
        return [fd for fd in (self.console, self.stdout, self.stderr, self.stdin) if fd is not None]

    @classmethod
    def of_held(cls, fds: Sequence[int], *, tty: bool) -> "Streams":
        """What `held` was made from."""
        if tty:
            return cls(None, None, None, fds[0] if fds else None)
        stdout, stderr, stdin = [*fds, *[None] * 3][:3]
        return cls(stdin, stdout, stderr, None)


class Logger:
    """A connection to the logger. Methods raise Unavailable when it has gone; then connect anew."""

    def __init__(self, connection: Connection, shipping: Shipping) -> None:
        self._connection = connection
        self._shipping = shipping

    @classmethod
    async def connect(cls, path: Path, on_eof: Callable[[str], None], on_lost: Callable[[], None]) -> "Logger":
        """Connect to the logger at `path`. `on_eof(id)`: every output of `id` has ended and is in the log."""

        shipping = Shipping(path.parent)

        def on_event(name: str, *values: Any) -> None:
            if name == "eof" and shipping.delivers(values[0]):
                shipping.finish_soon(values[0], on_eof)
            elif name == "eof":
                on_eof(*values)

        connection = Connection("logger", path, on_event, on_lost)
        shipping.recover()
        return cls(connection, shipping)

    async def open(self, id: str, target: LogTarget, streams: Streams) -> None:
        """Read the streams of `id` and write them to `target` from now on. The caller closes its own descriptors.

        A driver that delivers to somewhere else is reached first: Internal, with the reason, when it cannot be.
        """
        if target.delivered:
            await self._shipping.open(id, target)
        named = {name: fd for name, fd in streams._asdict().items() if fd is not None}
        document = {
            "driver": target.driver,
            "path": target.path,
            "options": target.options,
            "tty": target.tty,
            "stdin_once": target.stdin_once,
            "attributes": target.attributes,
            "cursor": target.cursor,
        }
        arguments = {"id": id, "target": document, "streams": list(named)}
        try:
            await self._connection.call("open", arguments, [*named.values()])
        except BaseException:
            if target.delivered:
                await self._shipping.finish(id, FAREWELL_SECONDS)
            raise

    async def attach(self, id: str, *, stdin: bool, stdout: bool, stderr: bool) -> socket.socket:
        """A stream socket joined to the streams of `id`, which may be opened later.

        Reads give docker's frames (with a terminal: raw bytes) and end when the outputs have; writes are the
        container's input, and shutdown(SHUT_WR) ends it where the container was made so.
        """
        wanted = {"id": id, "stdin": stdin, "stdout": stdout, "stderr": stderr}
        _, descriptors = await self._connection.call("attach", wanted, ())
        made = socket.socket(fileno=descriptors[0])
        made.setblocking(False)
        return made

    async def resize(self, id: str, height: int, width: int) -> None:
        """Set the terminal's size, in characters."""
        await self._connection.ask("resize", id=id, height=height, width=width)

    async def drain(self, id: str, timeout: float) -> bool:
        """Wait until all output of `id` is in its log: False when that has not happened after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._connection.ask("drain", id=id)
        except TimeoutError:
            return False
        await self._shipping.finish(id, FAREWELL_SECONDS)
        return True

    async def close(self, id: str) -> None:
        """Stop reading the streams of `id` and end its attached clients; unknown is no error."""
        await self._connection.ask("close", id=id)
        await self._shipping.finish(id, FAREWELL_SECONDS)

    async def streams(self) -> list[str]:
        """The ids whose streams are open."""
        return list(await self._connection.ask("streams"))

    async def copies(self, id: str) -> Streams:
        """Copies of what `open` was given for `id`, less an input that ends with its client; NotFound."""
        names, descriptors = await self._connection.call("copies", {"id": id}, ())
        return Streams(None, None, None, None)._replace(**dict(zip(names, descriptors, strict=True)))

    async def stop(self) -> None:
        """End the logger process: for tests and for `wherry daemon` when asked to take everything down."""
        await self._shipping.stop()
        try:
            await self._connection.ask("stop")
        except Unavailable:
            pass

    def disconnect(self) -> None:
        """Close this connection; the logger goes on."""
        self._shipping.close()
        self._connection.close()


def spawn(exec_root: Path) -> Path:
    """Start a logger for `exec_root` in a session of its own, unless there is one; its socket's path, which answers.

    Its messages go to `<exec_root>/logger.log`. Blocks (about 30 ms): call it in a thread.
    """
    start("logger", "wherry.logs.writer", exec_root)
    return exec_root / "logger.sock"
