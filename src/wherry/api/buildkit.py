"""POST /grpc and POST /session: connections taken over for HTTP/2, where the client calls us, or we the client."""

from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from wherry.api.call import Call
from wherry.api.connection import connection_of
from wherry.api.hijack import ClientEnd
from wherry.api.reply import Answer, TakenOver
from wherry.api.router import Route
from wherry.errors import InvalidArgument

if TYPE_CHECKING:
    from wherry.buildkit.http2 import Channel
    from wherry.buildkit.service import BuildKit
    from wherry.engine import Engine

_HEAD = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
_services: "WeakKeyDictionary[Engine, BuildKit]" = WeakKeyDictionary()


class _Wire(ClientEnd):
    """The client's connection, as HTTP/2 needs it."""

    channel: "Channel"

    def input(self, data: bytes) -> None:
        self.channel.receive(data)

    def input_ended(self) -> None:
        self.close()

    def close(self) -> None:
        if not self.closed.done():
            self.transport.close()

    def unsent(self) -> int:
        return 0 if self.closed.done() else self.transport.get_write_buffer_size()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.channel.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.channel.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.channel.connection_lost()


def service(engine: "Engine") -> "BuildKit":
    """BuildKit's side of an engine, loaded when the first client comes."""
    found = _services.get(engine)
    if found is None:
        from wherry.buildkit.service import BuildKit

        found = _services[engine] = BuildKit(engine)
    return found


async def grpc(call: Call) -> Answer:
    """POST /grpc: the client calls us."""
    return await _take_over(call, lambda wire: service(call.engine).serve(wire, wire.close))


async def session(call: Call) -> Answer:
    """POST /session: we call the client."""
    headers: dict[str, list[str]] = {}
    for name, value in call.request.headers.items():
        headers.setdefault(name.lower(), []).append(value)
    return await _take_over(call, lambda wire: service(call.engine).sessions.open(wire, headers, wire.close))


async def _take_over(call: Call, make: "Callable[[_Wire], Channel]") -> Answer:
    if call.request.headers.get("Upgrade", "").lower() != "h2c":
        raise InvalidArgument("the connection must be upgraded to h2c", object="Upgrade")
    wire = _Wire(connection_of(call.request))
    wire.channel = make(wire)
    wire.take_over(_HEAD)
    wire.channel.begin()
    try:
        await wire.closed
    finally:
        wire.channel.close()
    return TakenOver()


ROUTES = [Route("POST", "/grpc", grpc), Route("POST", "/session", session)]
