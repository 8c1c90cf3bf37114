"""The engine's side of the logger process (asyncio)."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import wherry
from wherry.errors import FailedPrecondition, Internal, NotFound, Unavailable
from wherry.kernel import seqpacket
from wherry.logs.target import LogTarget
from wherry.spec.fastjson import dumps, loads

_SOCKET = "logger.sock"


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

    def __init__(self, connection: socket.socket, on_eof: Callable[[str], None], on_lost: Callable[[], None]) -> None:
        self._socket = connection
        self._on_eof = on_eof
        self._on_lost = on_lost
        self._next = 0
        self._waiting: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection.fileno(), self._on_readable)

    @classmethod
    async def connect(cls, path: Path, on_eof: Callable[[str], None], on_lost: Callable[[], None]) -> "Logger":
        """Connect to the logger at `path`. `on_eof(id)`: every output of `id` has ended and is in the log."""
        try:
            raw = seqpacket.connect(str(path))
        except OSError as error:
            raise Unavailable(f"the logger does not answer: {error}", object=str(path)) from None
        connection = socket.socket(fileno=raw.detach())
        connection.setblocking(False)
        return cls(connection, on_eof, on_lost)

    async def open(self, id: str, target: LogTarget, streams: Streams) -> None:
        """Read the streams of `id` and write them to `target` from now on. The caller closes its own descriptors."""
        named = {name: fd for name, fd in streams._asdict().items() if fd is not None}
        document = {
            "driver": target.driver,
            "path": target.path,
            "options": target.options,
            "tty": target.tty,
            "stdin_once": target.stdin_once,
        }
        await self._call("open", list(named.values()), id=id, target=document, streams=list(named))

    async def attach(self, id: str, *, stdin: bool, stdout: bool, stderr: bool) -> socket.socket:
        """A stream socket joined to the streams of `id`, which may be opened later.

        Reads give docker's frames (with a terminal: raw bytes) and end when the outputs have; writes are the
        container's input, and shutdown(SHUT_WR) ends it where the container was made so.
        """
        _, descriptors = await self._call("attach", [], id=id, stdin=stdin, stdout=stdout, stderr=stderr)
        made = socket.socket(fileno=descriptors[0])
        made.setblocking(False)
        return made

    async def resize(self, id: str, height: int, width: int) -> None:
        """Set the terminal's size, in characters."""
        await self._call("resize", [], id=id, height=height, width=width)

    async def drain(self, id: str, timeout: float) -> bool:
        """Wait until all output of `id` is in its log: False when that has not happened after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._call("drain", [], id=id)
        except TimeoutError:
            return False
        return True

    async def close(self, id: str) -> None:
        """Stop reading the streams of `id` and end its attached clients; unknown is no error."""
        await self._call("close", [], id=id)

    async def streams(self) -> list[str]:
        """The ids whose streams are open."""
        reply, _ = await self._call("streams", [])
        return list(reply["streams"])

    async def copies(self, id: str) -> Streams:
        """Copies of what `open` was given for `id`, less an input that ends with its client; NotFound."""
        reply, descriptors = await self._call("copies", [], id=id)
        return Streams(None, None, None, None)._replace(**dict(zip(reply["streams"], descriptors, strict=True)))

    async def stop(self) -> None:
        """End the logger process: for tests and for `wherry daemon` when asked to take everything down."""
        try:
            await self._call("stop", [])
        except Unavailable:
            pass

    def disconnect(self) -> None:
        """Close this connection; the logger goes on."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(Unavailable("the connection to the logger was closed"))

    async def _call(self, operation: str, descriptors: list[int], **fields: Any) -> tuple[dict[str, Any], list[int]]:
        if self._socket.fileno() < 0:
            raise Unavailable("the logger is not there")
        self._next += 1
        number = self._next
        future: asyncio.Future[tuple[dict[str, Any], list[int]]] = self._loop.create_future()
        self._waiting[number] = future
        try:
            await self._send(dumps({"n": number, "op": operation, **fields}).encode(), descriptors)
            reply, received = await future
        finally:
            self._waiting.pop(number, None)
        if "error" in reply:
            raise _error(reply["error"])
        return reply, received

    async def _send(self, data: bytes, descriptors: list[int]) -> None:
        while True:
            try:
                seqpacket.send(self._socket, data, descriptors)
                return
            except BlockingIOError:
                await self._writable()
            except OSError as error:
                self._lost()
                raise Unavailable(f"the logger has gone: {error}") from None

    async def _writable(self) -> None:
        ready = self._loop.create_future()
        descriptor = os.dup(self._socket.fileno())  # others may be waiting to write too

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        self._loop.add_writer(descriptor, wake)
        try:
            await ready
        finally:
            self._loop.remove_writer(descriptor)
            os.close(descriptor)

    def _on_readable(self) -> None:
        try:
            received = seqpacket.receive(self._socket)
        except BlockingIOError:
            return
        except OSError:
            received = None
        if received is None:
            self._lost()
            return
        message, descriptors = loads(received[0]), received[1]
        if message.get("event") == "eof":
            self._on_eof(message["id"])
            return
        future = self._waiting.get(message["n"])
        if future is None or future.done():
            seqpacket.close(descriptors)
        else:
            future.set_result((message, descriptors))

    def _lost(self) -> None:
        if self._socket.fileno() >= 0:
            self.disconnect()
            self._on_lost()


def spawn(exec_root: Path) -> Path:
    """Start a logger for `exec_root` in a session of its own, unless there is one; its socket's path, which answers.

    Blocks (about 30 ms): call it in a thread.
    """
    path = exec_root / _SOCKET
    source = str(Path(wherry.__file__).parent.parent)
    program = f"import sys; sys.path.insert(0, {source!r}); from wherry.logs.writer import main; main(sys.argv[2])"
    # The interpreter finds its library by its argv[0]; the name for ps(1) is therefore an argument.
    interpreter: str = sys._base_executable  # type: ignore[attr-defined]
    started = subprocess.run(
        [interpreter, "-I", "-S", "-c", program, "wherry logger", str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        env={"LANG": "C.UTF-8"},
        check=False,
    )
    if started.returncode:
        raise Internal(f"the logger ended with status {started.returncode} as it started", object=str(path))
    return path


def _error(error: dict[str, Any]) -> Exception:
    import errno

    if error["errno"] == errno.ENOENT:
        return NotFound(error["message"])
    if error["errno"] in (errno.ENOTTY, errno.EEXIST):
        return FailedPrecondition(error["message"])
    return Internal(f"logger: {error['message']}")
