"""Further processes in running containers."""

import asyncio
from typing import TYPE_CHECKING

from wherry.api.call import Call
from wherry.api.connection import Connection, connection_of
from wherry.api.containers import terminal_size
from wherry.api.detach import DetachKeys
from wherry.api.hijack import ClientEnd, stream_type, takeover_head
from wherry.api.reply import Answer, Reply, TakenOver, reply_json
from wherry.api.router import Route
from wherry.errors import InvalidArgument
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
    process = await call.engine.execs.start(call.name, detach=detach, tty=config.tty, console_size=console)
    if process is None:
        return Reply(200)
    try:
        await _relay(call, process)
    finally:
        process.close()
    return TakenOver()


class _ExecClient(ClientEnd):
    """Collects the client's bytes for the process, no more of them than it takes."""

    def __init__(self, connection: Connection, process: "ExecStream") -> None:
        super().__init__(connection)
        self._process = process
        self._detach = DetachKeys() if process.tty else None
        self._chunks: list[bytes] = []
        self._ended = False
        self._pump: asyncio.Task[None] | None = None
        self.output: asyncio.Task[None]

    def input(self, data: bytes) -> None:
        left = False
        if self._detach is not None:
            data, left = self._detach.feed(data)
        self._chunks.append(data)
        if left:
            self.output.cancel()
        elif self._pump is None:
            self._pump = asyncio.create_task(self._feed())
        elif sum(map(len, self._chunks)) > _INPUT_LIMIT:
            self.transport.pause_reading()

    def input_ended(self) -> None:
        self._ended = True
        if self._pump is None:
            self._pump = asyncio.create_task(self._feed())

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.input_ended()
        self.output.cancel()

    async def _feed(self) -> None:
        """Give the process what the client has sent, and the end of it; ends when there is nothing to give."""
        while self._chunks:
            data = b"".join(self._chunks)
            self._chunks.clear()
            await self._process.write(data)
        if self._ended:
            await self._process.close_write()
        elif not self.transport.is_closing():
            self.transport.resume_reading()
        self._pump = None

    async def stop(self) -> None:
        """Stop feeding the process."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)


async def _relay(call: Call, process: "ExecStream") -> None:
    client = _ExecClient(connection_of(call.request), process)
    client.output = asyncio.create_task(_copy_output(process, client))
    try:
        client.take_over(takeover_head(call, stream_type(call, process.tty)))
        # Cancelled when the client leaves, by closing or by its detach keys.
        await asyncio.wait((client.output,))
        await client.stop()
        process.close()
        client.finish()
        await client.closed
    finally:
        client.output.cancel()
        await client.stop()


async def _copy_output(process: "ExecStream", client: ClientEnd) -> None:
    while data := await process.read():
        await client.write(data)


async def resize(call: Call) -> Answer:
    """POST /exec/{id}/resize."""
    height, width = terminal_size(call)
    await call.engine.execs.resize(call.name, height, width)
    return Reply(200)


async def inspect(call: Call) -> Answer:
    """GET /exec/{id}/json."""
    return reply_json(await call.engine.execs.inspect(call.name))


ROUTES = [
    Route("POST", "/containers/{id}/exec", create),
    Route("POST", "/exec/{id}/start", start),
    Route("POST", "/exec/{id}/resize", resize),
    Route("GET", "/exec/{id}/json", inspect),
]
