"""gRPC on streams: calls answered by handlers, and calls made. Source: gRPC over HTTP/2 (PROTOCOL-HTTP2)."""

import asyncio
import base64
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from google.protobuf.message import DecodeError, Message

from wherry.buildkit.http2 import Channel, Headers, Stream, StreamClosed
from wherry.buildkit.messages.buildkit_pb2 import Status

log = logging.getLogger("wherry.buildkit")

OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS = range(7)
PERMISSION_DENIED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE, UNIMPLEMENTED = range(7, 13)
INTERNAL, UNAVAILABLE, DATA_LOSS, UNAUTHENTICATED = range(13, 17)

Kind = TypeVar("Kind", bound=Message)


class RpcError(Exception):
    """A call that ended with a status other than 0. `details`: what comes beside the message."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status
        self.code = int(status.code)


def rpc_error(code: int, message: str) -> RpcError:
    return RpcError(Status(code=code, message=message))


class Call:
    """One call, from either side: messages in both directions."""

    def __init__(self, channel: Channel, stream: Stream) -> None:
        self._channel, self.stream = channel, stream
        self._answered = False

    @property
    def metadata(self) -> Mapping[str, list[str]]:
        """The peer's headers, by name."""
        found: dict[str, list[str]] = {}
        for name, value in self.stream.headers:
            found.setdefault(name, []).append(value)
        return found

    async def recv(self, kind: type[Kind]) -> Kind | None:
        """The next message, None at the end."""
        data = await self.stream.recv()
        if data is None:
            return None
        return parse(kind, data)

    async def one(self, kind: type[Kind]) -> Kind:
        """The only message."""
        message = await self.recv(kind)
        if message is None:
            raise rpc_error(INTERNAL, "a message is missing")
        return message

    def begin(self, *extra: tuple[str, str]) -> None:
        """The server's headers."""
        if not self._answered:
            self._answered = True
            self.stream.send_headers([(":status", "200"), ("content-type", "application/grpc"), *extra])

    async def send(self, *messages: Message) -> None:
        """Messages to the peer."""
        await self.stream.send(message.SerializeToString() for message in messages)


def parse(kind: type[Kind], data: bytes) -> Kind:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise rpc_error(INVALID_ARGUMENT, "a message that cannot be read") from None


Handler = Callable[[Call], Awaitable[None]]


class Server:
    """Answers the calls of one connection. `failed` turns what a handler raises into a status."""

    def __init__(self, handlers: Mapping[str, Handler], failed: Callable[[Exception], Status]) -> None:
        self._handlers, self._failed = handlers, failed
        self._tasks: set[asyncio.Task[None]] = set()
        self.channel: Channel

    def on_stream(self, stream: Stream) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(stream), name="gRPC call")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        stream.on_reset = task.cancel

    async def _serve(self, stream: Stream) -> None:
        call = Call(self.channel, stream)
        path = next((value for name, value in stream.headers if name == ":path"), "")
        handler = self._handlers.get(path)
        status = Status()
        try:
            if handler is None:
                raise rpc_error(UNIMPLEMENTED, f"unknown method {path[:200]}")
            await handler(call)
        except StreamClosed:
            return
        except RpcError as error:
            status = error.status
        except Exception as error:  # noqa: BLE001 (a call's edge)
            status = self._failed(error)
        finally:
            stream.on_reset = None
        with contextlib.suppress(StreamClosed):
            call.begin()
            stream.send_headers(_trailers(status), end=True)
            self.channel.finish(stream)


def _trailers(status: Status) -> Headers:
    headers = [("grpc-status", str(status.code))]
    if status.message:
        headers.append(
            ("grpc-message", quote(status.message.encode()[:8192], safe=" !\"#$&'()*+,-./:;<=>?@[]^_`{|}~\\"))
        )
    if status.details:
        details = base64.b64encode(status.SerializeToString()).rstrip(b"=").decode()
        headers.append(("grpc-status-details-bin", details))
    return headers


@contextlib.asynccontextmanager
async def calling(channel: Channel, path: str, metadata: Iterable[tuple[str, str]] = ()) -> AsyncIterator[Call]:
    """Make a call; leaving early gives it up."""
    stream = channel.open(
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("user-agent", "wherry"),
            ("te", "trailers"),
            *metadata,
        ]
    )
    try:
        yield Call(channel, stream)
    finally:
        if stream.ended and not stream.closed:
            channel.finish(stream)
        else:
            stream.reset()


def check_end(stream: Stream) -> None:
    """After the last message of a call that was made: RpcError unless it ended well."""
    trailers = stream.trailers if stream.trailers is not None else stream.headers
    found = dict(trailers)
    code = found.get("grpc-status", "2")
    if code == "0":
        return
    status = Status(code=int(code) if code.isdigit() else UNKNOWN, message=unquote(found.get("grpc-message", "")))
    text = found.get("grpc-status-details-bin", "")
    if text:
        with contextlib.suppress(DecodeError, ValueError):
            status = Status.FromString(base64.b64decode(text + "=" * (-len(text) % 4)))
    raise RpcError(status)


async def unary(channel: Channel, path: str, request: Message, kind: type[Kind]) -> Kind:
    """One message there, one back."""
    async with calling(channel, path) as call:
        await call.stream.send([request.SerializeToString()], end=True)
        answer = await call.recv(kind)
        while answer is not None and await call.recv(kind) is not None:
            pass
        check_end(call.stream)
        if answer is None:
            raise rpc_error(INTERNAL, f"{path} gave no answer")
        return answer


def any_json(type_url: str, document: Any) -> tuple[str, bytes]:
    """A detail of a status, as BuildKit encodes its own."""
    import json

    return type_url, json.dumps(document, separators=(",", ":")).encode()
