"""Further processes in running containers."""

import asyncio
import base64
from typing import TYPE_CHECKING

from wherry.api.call import Call
from wherry.api.connection import Connection, connection_of
from wherry.api.containers import terminal_size
from wherry.api.detach import DetachKeys, parse_keys
from wherry.api.hijack import ClientEnd, frame, stream_type, takeover_head
from wherry.api.reply import Answer, Reply, TakenOver, reply_json
from wherry.api.router import Route
from wherry.errors import Conflict, InvalidArgument, WherryError
from wherry.spec.decode import decode
from wherry.spec.docker import ExecConfig

if TYPE_CHECKING:
    from wherry.engine import ExecStream

_INPUT_LIMIT = 256 << 10


async def create(call: Call) -> Answer:
    """POST /containers/{id}/exec."""
    body = await call.json(optional=True)
    config = decode(ExecConfig, {} if body is None else body)
    if not config.cmd:
        raise InvalidArgument("No exec command specified")
    DetachKeys(config.detach_keys)
    return reply_json({"Id": await call.engine.execs.create(call.name, config)}, 201)


async def start(call: Call) -> Answer:
    """POST /exec/{id}/start: run it, and unless detached take the connection over for its streams."""
    body = await call.json(optional=True)
    if body is None:
        body = {}
    if not isinstance(body, dict):
        raise InvalidArgument("invalid JSON: the document must be an object")
    config = decode(ExecConfig, {"Tty": body.get("Tty"), "ConsoleSize": body.get("ConsoleSize")})
    size = config.console_size
    if size is not None and len(size) != 2:
        raise InvalidArgument("ConsoleSize must be [height, width]")
    detach = body.get("Detach") or False
    if not isinstance(detach, bool):
        raise InvalidArgument("Detach must be true or false")
    console = (size[0], size[1]) if size and any(size) else None
    if detach:
        await call.engine.execs.start(call.name, detach=True, tty=config.tty, console_size=console)
        return Reply(200)
    found = await call.engine.execs.inspect(call.name)
    if found["Running"] or found["ExitCode"] is not None:
        raise Conflict(f"Error: Exec command {call.name} has already run", object=call.name)
    keys = DetachKeys(found.get("DetachKeys", "")) if found["ProcessConfig"]["tty"] else None
    client = _ExecClient(connection_of(call.request), keys)
    # Before the process runs, as docker does it: a client that reads the head with a buffer of its own would take the
    # first output for a part of it.
    client.take_over(takeover_head(call, stream_type(call, config.tty)))
    try:
        process = await call.engine.execs.start(call.name, tty=config.tty, console_size=console)
        if process is not None:
            await client.serve(process)
    except WherryError as error:
        text = f"{error}\r\n".encode()
        client.send(text if config.tty else frame(1, text))
    if client.detached:
        call.engine.execs.detached(call.name)
    client.finish()
    await client.closed
    return TakenOver()


class _ExecClient(ClientEnd):
    """Collects the client's bytes for the process, no more of them than it takes."""

    def __init__(self, connection: Connection, detach: DetachKeys | None) -> None:
        super().__init__(connection)
        self._detach = detach
        self.detached = False
        self._chunks: list[bytes] = []
        self._ended = False
        self._left = False
        self._process: ExecStream | None = None
        self._pump: asyncio.Task[None] | None = None
        self._output: asyncio.Task[None] | None = None

    async def serve(self, process: "ExecStream") -> None:
        """Be the process's terminal or pipes until it has written all, or the client leaves."""
        self._process = process
        self._output = asyncio.create_task(self._copy_output(process))
        try:
            if self._left:
                self._output.cancel()
            elif self._chunks or self._ended:
                self._feed()
            # Cancelled when the client leaves, by closing or by its detach keys.
            await asyncio.wait((self._output,))
        finally:
            self._output.cancel()
            if self._pump is not None:
                self._pump.cancel()
                await asyncio.gather(self._pump, return_exceptions=True)
            process.close()
        if not self._output.cancelled():
            self._output.result()

    async def _copy_output(self, process: "ExecStream") -> None:
        try:
            while data := await process.read():
                await self.write(data)
        except ConnectionError:
            # The client has gone.
            pass

    def input(self, data: bytes) -> None:
        if self._detach is not None:
            data, self.detached = self._detach.feed(data)
        self._chunks.append(data)
        if self.detached:
            self._leave()
        else:
            self._feed()

    def input_ended(self) -> None:
        self._ended = True
        self._feed()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._ended = True
        self._leave()

    def _leave(self) -> None:
        self._left = True
        if self._output is not None:
            self._output.cancel()

    def _feed(self) -> None:
        """See to it that the process gets what there is."""
        if self._process is not None and self._pump is None:
            self._pump = asyncio.create_task(self._write_input(self._process))
        elif sum(map(len, self._chunks)) > _INPUT_LIMIT:
            self.transport.pause_reading()

    async def _write_input(self, process: "ExecStream") -> None:
        while self._chunks:
            data = b"".join(self._chunks)
            self._chunks.clear()
            await process.write(data)
        if self._ended:
            await process.close_write()
        elif not self.transport.is_closing():
            self.transport.resume_reading()
        self._pump = None


async def resize(call: Call) -> Answer:
    """POST /exec/{id}/resize."""
    height, width = terminal_size(call)
    await call.engine.execs.resize(call.name, height, width)
    return Reply(200)


async def inspect(call: Call) -> Answer:
    """GET /exec/{id}/json."""
    document = await call.engine.execs.inspect(call.name)
    keys = document.get("DetachKeys", "")
    # Bytes, to docker.
    return reply_json({**document, "DetachKeys": base64.b64encode(parse_keys(keys)).decode() if keys else ""})


ROUTES = [
    Route("POST", "/containers/{id}/exec", create),
    Route("POST", "/exec/{id}/start", start),
    Route("POST", "/exec/{id}/resize", resize),
    Route("GET", "/exec/{id}/json", inspect),
]
