"""Taking a connection over: after the head of the answer, bytes flow both ways as they are.

A `Relay` joins the client's transport with the socket of the streams (attach). The data is framed already by who made
it, so nothing is parsed on the way; each side is read only as fast as the other takes it.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

from wherry.api.call import Call
from wherry.api.connection import Connection, connection_of
from wherry.api.detach import DetachKeys
from wherry.api.reply import head_bytes
from wherry.errors import WherryError

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
log = logging.getLogger("wherry.api")
_LINGER = 5.0
"""Seconds a client is given to close its side once all output has been sent."""
_HIGH_WATER = 256 << 10


def frame(stream: int, data: bytes) -> bytes:
    """`data` in a frame of docker's multiplexed form; `stream`: 1 standard output, 2 standard error."""
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


def stream_type(call: Call, tty: bool) -> str:
    """The content type of a container's output; clients before API 1.42 know only one."""
    return RAW if tty or call.version < (1, 42) else MULTIPLEXED


def takeover_head(call: Call, content_type: str) -> bytes:
    """The head that ends HTTP on the connection: 101 for those who asked for an upgrade, else 200."""
    if "Upgrade" in call.request.headers:
        head = head_bytes(101, {"Content-Type": content_type, "Connection": "Upgrade", "Upgrade": "tcp"})
        # Some clients look for the word itself.
        return head.replace(b"101 Switching Protocols", b"101 UPGRADED", 1)
    # Who does not ask for an upgrade is told of the old type, whatever the streams are.
    return head_bytes(200, {"Content-Type": RAW, "Connection": "close"})


class ClientEnd(asyncio.Protocol):
    """The client's side of a connection that was taken over."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.transport: asyncio.Transport
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._ending = False

    def take_over(self, head: bytes) -> None:
        """Send `head`; from now on the connection is ours. What the client had sent already is delivered first."""
        self.transport, early = self._connection.take_over(self)
        self.transport.set_write_buffer_limits(high=_HIGH_WATER)
        self.transport.write(head)
        if early:
            self.data_received(early)
        if self._connection.at_eof:
            self.eof_received()

    def finish(self) -> None:
        """All output has been written: end it, and give the client time to take it and to close.

        Closing at once would reset the connection when the client is still sending, and it could lose output.
        """
        if self._ending:
            return
        self._ending = True
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
            if not self._connection.at_eof:
                self.transport.resume_reading()
                asyncio.get_running_loop().call_later(_LINGER, self.transport.close)
                return
        self.transport.close()

    def send(self, data: bytes) -> None:
        """Send `data` without waiting."""
        if data and not self.closed.done():
            self.transport.write(data)

    async def write(self, data: bytes) -> None:
        """Send `data`; returns when the client has taken enough of it."""
        if self.closed.done():
            raise ConnectionResetError("the client has gone")
        self.transport.write(data)
        await self._can_write.wait()

    def input(self, data: bytes) -> None:
        """The client sent `data`."""

    def input_ended(self) -> None:
        """The client will send no more."""

    def data_received(self, data: bytes) -> None:
        """asyncio's."""
        if not self._ending:
            self.input(data)

    def eof_received(self) -> bool:
        """asyncio's; True keeps our side open."""
        self._connection.at_eof = True
        if self._ending:
            return False
        self.input_ended()
        return True

    def pause_writing(self) -> None:
        """asyncio's."""
        self._can_write.clear()

    def resume_writing(self) -> None:
        """asyncio's."""
        self._can_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's."""
        self._ending = True
        self._can_write.set()
        if not self.closed.done():
            self.closed.set_result(None)
        self._connection.connection_lost(exc)


class _RelayClient(ClientEnd):
    """Passes the client's bytes on to the streams."""

    def __init__(self, connection: Connection, streams: "_StreamsEnd", detach: DetachKeys | None) -> None:
        super().__init__(connection)
        self._streams = streams
        self._detach = detach
        self.detached = False

    def input(self, data: bytes) -> None:
        if self._detach is not None:
            data, self.detached = self._detach.feed(data)
        if data and not self._streams.transport.is_closing():
            self._streams.transport.write(data)
        if self.detached:
            self._streams.transport.close()

    def input_ended(self) -> None:
        transport = self._streams.transport
        if not transport.is_closing() and transport.can_write_eof():
            transport.write_eof()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._streams.hold()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._streams.open()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._streams.transport.close()


class _StreamsEnd(asyncio.Protocol):
    """Passes what the container writes on to the client."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.client: _RelayClient
        self.ready = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        # Nothing may be read before the client's end is there.
        transport.pause_reading()

    def hold(self) -> None:
        """Read no more for now."""
        self.transport.pause_reading()

    def open(self) -> None:
        """Read on."""
        if self.ready and not self.transport.is_closing():
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if not self.client.transport.is_closing():
            self.client.transport.write(data)

    def eof_received(self) -> bool:
        self.client.finish()
        return False

    def pause_writing(self) -> None:
        self.client.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self.client.transport.is_closing() and not self.client._connection.at_eof:
            self.client.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.client.finish()


async def relay(
    call: Call,
    streams: socket.socket | None,
    content_type: str,
    *,
    detach: DetachKeys | None = None,
    before: Callable[[ClientEnd], Awaitable[None]],
) -> bool:
    """Join the client with `streams` until both are done; True when the client left by its detach keys.

    `streams` is owned from the call on; None ends after `before`, which may write first.
    """
    if streams is None:
        alone = ClientEnd(connection_of(call.request))
        alone.take_over(takeover_head(call, content_type))
        await _run_before(call, alone, before)
        alone.finish()
        await alone.closed
        return False
    streams.setblocking(False)
    far = _StreamsEnd()
    try:
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: far, sock=streams)
    except BaseException:
        streams.close()
        raise
    client = far.client = _RelayClient(connection_of(call.request), far, detach)
    try:
        client.take_over(takeover_head(call, content_type))
        await _run_before(call, client, before)
        far.ready = True
        far.open()
        await client.closed
    finally:
        transport.close()
        if not client.closed.done():
            client.transport.close()
    return client.detached


async def _run_before(call: Call, client: ClientEnd, before: Callable[[ClientEnd], Awaitable[None]]) -> None:
    """An error can no longer be answered in HTTP: it is logged, and what there is goes on."""
    try:
        await before(client)
    except WherryError as error:
        log.warning("%s: %s", call.request.raw_path, error)
