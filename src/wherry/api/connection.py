"""One client connection: aiohttp's, with what Docker's protocol does beyond HTTP.

Three things plain HTTP servers get wrong for Docker's clients:

* A client may send the bytes of a stream it is about to take over (attach, exec start) together with the request.
  They are kept apart here before the HTTP parser would take them for a next request.
* A client may shut down its writing side and still wait for the answer (`docker run -i < file`): the end of input is
  not the end of the connection.
* A handler that waits for long (wait, events, logs --follow) must be told when its client has gone.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from aiohttp.web import RequestHandler, Server, StreamResponse
from aiohttp.web_request import BaseRequest

from wherry.api.reply import reply_error

log = logging.getLogger("wherry.api")

_TAKES_OVER = re.compile(rb"POST (?:/v[0-9.]+)?/(?:containers/[^/ ?]+/attach|exec/[^/ ?]+/start|grpc|session)[ ?]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,7})[ \t]*\r\n", re.IGNORECASE)
_NOT_PLAIN = re.compile(rb"\r\n(?:transfer-encoding|expect):", re.IGNORECASE)
_HEAD_LIMIT = 64 << 10
_EARLY_LIMIT = 256 << 10


class Connection(RequestHandler):
    """A connection that can be taken over by the handler of its current request."""

    __slots__ = ("_early", "_gone", "_held", "_partial", "_taken", "at_eof")

    def __init__(self, manager: Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self._partial = b""
        self._early = b""
        self._held = False
        self._taken = False
        self._gone: Callable[[], object] | None = None
        self.at_eof = False

    def data_received(self, data: bytes) -> None:
        """Bytes from the client: HTTP, unless the current request is one that takes the connection over."""
        if self._held:
            self._early += data
            if len(self._early) > _EARLY_LIMIT and self.transport is not None:
                self.transport.pause_reading()
        elif self._partial or (data[:1] == b"P" and self._idle()):
            self._receive_post(self._partial + data)
        else:
            super().data_received(data)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The client will send no more: keep the connection for the answer that is being made."""
        self.at_eof = True
        if self._idle() or self._partial:
            return None
        self.close()
        if self._current_request is not None:
            self.begin(self._current_request)
        if not self._held and self._gone is not None:
            self._gone()
        return True

    def begin(self, request: BaseRequest) -> None:
        """A handler starts with `request`: when the rest of its body will never come, its readers must know."""
        if self.at_eof and not self._held and not request.content.is_eof():
            request._cancel(ConnectionResetError("the client ended its request early"))

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> StreamResponse:
        """What cannot be read as HTTP is answered as any error; what was sent goes neither back nor into the log."""
        log.debug("a client sent what is not HTTP: %s", type(exc).__name__)
        return cast(StreamResponse, reply_error(status, "malformed HTTP request"))

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is closed."""
        gone, self._gone = self._gone, None
        if gone is not None:
            gone()
        super().connection_lost(exc)

    def take_over(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, bytes]:
        """Hand the transport to `protocol`; also what the client has sent for it already.

        `protocol.connection_lost` must call `connection_lost` of this one. Raises ConnectionResetError when the client
        has gone.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self.keep_alive(False)
        self._taken = True
        early, self._early = self._early, b""
        transport.set_protocol(protocol)
        # A paused transport stays paused over set_protocol; resuming one that is not paused does nothing.
        if not self.at_eof:
            transport.resume_reading()
        return transport, early

    def end_stream(self) -> None:
        """The daemon stops: end what would otherwise go on for as long as the client likes."""
        if self._taken and self.transport is not None:
            self.transport.close()
        elif self._gone is not None:
            self._gone()

    def release(self) -> None:
        """The request did not take the connection over: what was held back is HTTP after all."""
        if not self._held:
            return
        self._held = False
        early, self._early = self._early, b""
        if self.transport is not None and not self.at_eof:
            self.transport.resume_reading()
        if early:
            super().data_received(early)

    def _idle(self) -> bool:
        waiter = self._waiter
        return waiter is not None and not waiter.done() and not self._messages

    def _receive_post(self, data: bytes) -> None:
        self._partial = b""
        if b"\n" not in data and len(data) < _HEAD_LIMIT:
            self._partial = data
        elif not _TAKES_OVER.match(data):
            super().data_received(data)
        else:
            self._receive_takeover(data)

    def _receive_takeover(self, data: bytes) -> None:
        end = data.find(b"\r\n\r\n") + 4
        if end == 3 and len(data) < _HEAD_LIMIT:
            self._partial = data
            return
        head = data[:end] if end != 3 else data
        length = _LENGTH.search(head)
        stop = end + (int(length[1]) if length else 0)
        if end == 3 or _NOT_PLAIN.search(head) or stop - end > _EARLY_LIMIT:
            super().data_received(data)
        elif len(data) < stop:
            self._partial = data
        else:
            self._held = True
            self._early = data[stop:]
            super().data_received(data[:stop])


class ConnectionServer(Server):
    """Makes `Connection`s."""

    async def stop(self, timeout: float) -> None:
        """End all connections: idle ones and streams at once, others once answered, or after `timeout` seconds."""
        self.pre_shutdown()
        for connection in self.connections:
            cast(Connection, connection).end_stream()
        await self.shutdown(timeout)

    def __call__(self) -> RequestHandler:
        """A protocol for one more client."""
        return Connection(self, loop=self._loop, **self._kwargs)


def connection_of(request: BaseRequest) -> Connection:
    """The connection `request` came by."""
    return cast(Connection, request.protocol)


@contextmanager
def cancelled_when_gone(request: BaseRequest) -> Iterator[None]:
    """Cancel the current task when the client goes away (closes, or shuts down its writing side) meanwhile."""
    connection = connection_of(request)
    task = asyncio.current_task()
    assert task is not None
    if connection.at_eof or connection.transport is None:
        raise ConnectionResetError("the client has gone")
    connection._gone = task.cancel
    try:
        yield
    finally:
        connection._gone = None
