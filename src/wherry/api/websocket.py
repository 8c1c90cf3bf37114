"""Attaching through a websocket: for browsers. Output comes in binary messages, standard output and error as one."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

from aiohttp import WSMsgType
from aiohttp.web import Request, WebSocketResponse

from wherry.api.call import Call
from wherry.api.detach import DetachKeys
from wherry.api.reply import Answer, TakenOver
from wherry.api.router import Route
from wherry.errors import InvalidArgument

_CHUNK = 64 << 10


async def attach(call: Call) -> Answer:
    """GET /containers/{id}/attach/ws."""
    query, containers = call.query, call.engine.containers
    if call.request.headers.get("Upgrade", "").lower() != "websocket":
        raise InvalidArgument("this address is for websockets", hint="use POST /containers/{id}/attach")
    tty = containers.is_tty(call.name)
    keys = DetachKeys(query.get("detachKeys")) if tty else None
    # None of the three means all: browsers' clients often name none.
    every = not any(query.flag(name) for name in ("stdin", "stdout", "stderr"))
    streams = await containers.attach(
        call.name,
        stdin=every or query.flag("stdin"),
        stdout=every or query.flag("stdout"),
        stderr=every or query.flag("stderr"),
    )
    reader, writer = await asyncio.open_connection(sock=streams)
    socket = WebSocketResponse(compress=False, max_msg_size=1 << 20)
    output: asyncio.Task[None] | None = None
    try:
        await socket.prepare(cast(Request, call.request))
        output = asyncio.create_task(_send(socket, reader, framed=not tty))
        await _receive(socket, writer, keys)
    finally:
        writer.close()
        if output is not None:
            output.cancel()
            await asyncio.gather(output, return_exceptions=True)
    return TakenOver()


async def _send(socket: WebSocketResponse, reader: asyncio.StreamReader, *, framed: bool) -> None:
    async for data in _payloads(reader) if framed else _raw(reader):
        await socket.send_bytes(data)
    await socket.close()


async def _raw(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while data := await reader.read(_CHUNK):
        yield data


async def _payloads(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    try:
        while True:
            header = await reader.readexactly(8)
            left = int.from_bytes(header[4:], "big")
            while left:
                data = await reader.read(min(left, _CHUNK))
                if not data:
                    return
                left -= len(data)
                yield data
    except asyncio.IncompleteReadError:
        return


async def _receive(socket: WebSocketResponse, writer: asyncio.StreamWriter, keys: DetachKeys | None) -> None:
    async for message in socket:
        if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
            break
        data = message.data.encode() if message.type is WSMsgType.TEXT else message.data
        left = False
        if keys is not None:
            data, left = keys.feed(data)
        if not writer.is_closing():
            writer.write(data)
            await writer.drain()
        if left:
            await socket.close()
            return


ROUTES = [Route("GET", "/containers/{id}/attach/ws", attach)]
