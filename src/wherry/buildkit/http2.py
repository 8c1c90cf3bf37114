"""One HTTP/2 connection on bytes that somebody else moves, with the streams' data in the shape gRPC has it.

h2 keeps the protocol: headers, settings, states of streams, what may be sent. It takes 45 µs for a frame, and a context
of 30,000 files comes in as many frames, so the frames that carry data do not pass through it: they are counted and cut
here (1 µs), and h2 only learns of a stream's end.

What a peer can make us hold is bounded: a stream's window is given back as its messages are taken, a message has at
most `MESSAGE_MAX` bytes, there are at most `_STREAMS` streams, and a peer that does not read is cut off.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

# It logs each header's bits, and secrets may be among them.
logging.getLogger("hpack").setLevel(logging.WARNING)

Headers = Sequence[tuple[str, str]]

MESSAGE_MAX = 16 << 20
"""What BuildKit accepts, too."""
_STREAMS = 128
_STREAM_WINDOW = 1 << 20
_CONNECTION_WINDOW = 16 << 20
_FRAME_MAX = 256 << 10
_HEADERS_MAX = 64 << 10
_UNREAD_MAX = 8 << 20
_RESETS_MAX = 1000
_PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
_DATA, _WINDOW_UPDATE = 0, 8
_END_STREAM, _PADDED = 1, 8


class StreamClosed(ConnectionError):
    """The other side, or its connection, gave a stream up."""


class Wire(Protocol):
    """What bytes leave by."""

    def send(self, data: bytes) -> None: ...
    def close(self) -> None: ...
    def unsent(self) -> int: ...


class Stream:
    """One call. Made by `Channel`."""

    __slots__ = (
        "_buffer",
        "_channel",
        "_early",
        "_messages",
        "_owed",
        "_waiting",
        "closed",
        "ended",
        "headers",
        "id",
        "on_reset",
        "trailers",
    )

    def __init__(self, channel: "Channel", id: int, headers: Headers = ()) -> None:
        self._channel = channel
        self.id = id
        self.headers = headers
        self.trailers: Headers | None = None
        self.ended = False
        """The peer will send no more."""
        self.closed = False
        """Reset, by either side, or the connection is gone."""
        self.on_reset: Callable[[], object] | None = None
        self._buffer = bytearray()
        self._messages: deque[bytes] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._owed = 0
        self._early = 0

    async def recv(self) -> bytes | None:
        """The next message; None at the end. StreamClosed when the peer gave up."""
        while not self._messages:
            if self.ended:
                return None
            if self.closed:
                raise StreamClosed("the peer has gone")
            await self.wait()
        message = self._messages.popleft()
        self._credit(len(message) + 5)
        return message

    def take(self) -> list[bytes]:
        """All messages that are here."""
        taken = list(self._messages)
        self._messages.clear()
        self._credit(sum(map(len, taken)) + 5 * len(taken))
        return taken

    async def wait(self) -> None:
        """Until something about this stream is new."""
        if self._waiting is None or self._waiting.done():
            self._waiting = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._waiting)

    def send_headers(self, headers: Headers, *, end: bool = False) -> None:
        self._channel.send_headers(self, headers, end=end)

    async def send(self, messages: Iterable[bytes], *, end: bool = False) -> None:
        """Messages, each framed; returns when the peer's window has taken them."""
        data = b"".join(part for one in messages for part in (b"\0" + len(one).to_bytes(4, "big"), one))
        await self._channel.send_data(self, data, end=end)

    def reset(self) -> None:
        """Give the call up."""
        self._channel.reset(self)

    # -- the channel's

    def feed(self, data: bytes | memoryview, cost: int) -> None:
        """Bytes of a data frame; `cost` is what it took of the window."""
        buffer = self._buffer
        if not buffer and len(data) == cost >= 5 and not data[0] and int.from_bytes(data[1:5], "big") == cost - 5:
            # One message in one frame, as the many small ones of a directory come.
            self._messages.append(bytes(data[5:]))
            if self._waiting is not None:
                self.wake()
            return
        buffer += data
        start, size = 0, len(buffer)
        while size - start >= 5:
            length = int.from_bytes(buffer[start + 1 : start + 5], "big")
            if buffer[start] or length > MESSAGE_MAX:
                raise ValueError("a message that is compressed or too large")
            if size - start - 5 < length:
                break
            self._messages.append(bytes(buffer[start + 5 : start + 5 + length]))
            start += 5 + length
        credit = cost - len(data)
        if start:
            # What was paid of this message while it was a part must not be paid again as it is taken.
            credit -= self._early
            self._early = 0
            del buffer[:start]
            self.wake()
        # A message that is not whole can only become so when the peer may send on: its parts are paid for at once.
        credit += len(buffer) - self._early
        self._early = len(buffer)
        self._credit(credit)

    def _credit(self, count: int) -> None:
        self._owed += count
        if self._owed >= _STREAM_WINDOW // 4:
            owed, self._owed = self._owed, 0
            self._channel.credit(self, owed)

    def wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def close(self) -> None:
        """It is over, whatever the reason."""
        if not self.closed:
            self.closed = True
            self.wake()
            if self.on_reset is not None:
                self.on_reset()

    @property
    def held(self) -> int:
        """Bytes that were received and not paid for."""
        return self._owed + sum(map(len, self._messages)) + 5 * len(self._messages)


class Channel:
    """A connection. `on_stream` hears of each call the peer begins; `on_lost` once that it is over."""

    def __init__(
        self,
        wire: Wire,
        *,
        client: bool,
        on_stream: Callable[[Stream], object] | None = None,
        on_lost: Callable[[], object] | None = None,
    ) -> None:
        self._wire, self._client = wire, client
        self._on_stream, self._on_lost = on_stream, on_lost
        self._h2 = H2Connection(
            H2Configuration(client_side=client, header_encoding="utf-8", validate_outbound_headers=False)
        )
        self._streams: dict[int, Stream] = {}
        self._buffer = bytearray()
        self._begun = client
        self._highest = 0
        self._owed = 0
        self._resets = 0
        self._may_send = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self.lost = False

    def begin(self) -> None:
        """Send our settings."""
        # Given as they are from the start: what is changed later counts only once the peer has acknowledged it.
        self._h2.local_settings = Settings(
            client=self._client,
            initial_values={
                SettingCodes.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
                SettingCodes.MAX_FRAME_SIZE: _FRAME_MAX,
                SettingCodes.MAX_CONCURRENT_STREAMS: _STREAMS,
                SettingCodes.MAX_HEADER_LIST_SIZE: _HEADERS_MAX,
                **({SettingCodes.ENABLE_PUSH: 0} if self._client else {}),
            },
        )
        self._h2.max_inbound_frame_size = _FRAME_MAX
        self._h2.initiate_connection()
        self._flush()
        self._window_update(0, _CONNECTION_WINDOW)

    def open(self, headers: Headers) -> Stream:
        """Begin a call."""
        if self.lost:
            raise StreamClosed("the client has gone")
        stream = Stream(self, self._h2.get_next_available_stream_id())
        self._streams[stream.id] = stream
        self._h2.send_headers(stream.id, headers)
        self._flush()
        return stream

    # -- receiving

    def receive(self, data: bytes) -> None:
        """Bytes from the peer."""
        if self.lost:
            return
        self._buffer += data
        try:
            self._read()
        except (H2Error, ValueError):
            self._fail(ErrorCodes.PROTOCOL_ERROR)

    def _read(self) -> None:
        buffer = self._buffer
        if not self._begun:
            if len(buffer) < _PREFACE:
                return
            self._begun = True
            self._pass(bytes(buffer[:_PREFACE]))
            del buffer[:_PREFACE]
        start, size = 0, len(buffer)
        view = bytes(buffer)
        while size - start >= 9 and not self.lost:
            length = int.from_bytes(view[start : start + 3], "big")
            if length > _FRAME_MAX:
                raise ValueError("a frame that is too large")
            end = start + 9 + length
            if end > size:
                break
            if view[start + 3] == _DATA:
                self._data(view, start, end)
            else:
                self._pass(view[start:end])
            start = end
        if not self.lost:
            del buffer[:start]
            self._flush()

    def _data(self, view: bytes, start: int, end: int) -> None:
        flags, id = view[start + 4], int.from_bytes(view[start + 5 : start + 9], "big")
        length = end - start - 9
        body = view[start + 9 : end]
        if flags & _PADDED:
            if not body or body[0] >= len(body):
                raise ValueError("padding that is longer than its frame")
            body = body[1 : len(body) - body[0]]
        stream = self._streams.get(id)
        if stream is None:
            if id > self._highest:
                raise ValueError("data for a stream that was never opened")
            self._pay(length)
        else:
            stream.feed(body, length)
        if flags & _END_STREAM:
            self._pass(b"\0\0\0\0\1" + view[start + 5 : start + 9])

    def _pass(self, frame: bytes) -> None:
        for event in self._h2.receive_data(frame):
            self._handle(event)

    def _handle(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            stream = Stream(self, event.stream_id, _text(event.headers))
            self._highest = max(self._highest, event.stream_id)
            self._streams[stream.id] = stream
            if self._on_stream is not None:
                self._on_stream(stream)
        elif isinstance(event, ResponseReceived | TrailersReceived):
            answered = self._streams.get(event.stream_id or 0)
            if answered is not None:
                if isinstance(event, ResponseReceived):
                    answered.headers = _text(event.headers)
                else:
                    answered.trailers = _text(event.headers)
                answered.wake()
        elif isinstance(event, StreamEnded):
            ended = self._streams.get(event.stream_id)
            if ended is not None:
                ended.ended = True
                ended.wake()
        elif isinstance(event, StreamReset):
            self._reset_by_peer(event.stream_id)
        elif isinstance(event, WindowUpdated | RemoteSettingsChanged):
            self._may_send.set()
        elif isinstance(event, ConnectionTerminated):
            self._over()

    def _reset_by_peer(self, id: int) -> None:
        stream = self._streams.pop(id, None)
        self._may_send.set()
        if stream is None:
            return
        self._resets += 1
        if not self._client and self._resets > _RESETS_MAX:
            # Calls begun to be given up at once cost us more than the peer.
            self._fail(ErrorCodes.ENHANCE_YOUR_CALM)
        self._pay(stream.held)
        stream.close()

    # -- sending

    def send_headers(self, stream: Stream, headers: Headers, *, end: bool) -> None:
        if stream.closed or self.lost:
            raise StreamClosed("the peer has gone")
        try:
            self._h2.send_headers(stream.id, headers, end_stream=end)
        except H2Error as error:
            raise StreamClosed(str(error)) from None
        self._flush()

    async def send_data(self, stream: Stream, data: bytes, *, end: bool) -> None:
        position = 0
        while True:
            await self._may_write.wait()
            if stream.closed or self.lost:
                raise StreamClosed("the peer has gone")
            try:
                window = min(self._h2.local_flow_control_window(stream.id), self._h2.max_outbound_frame_size)
                left = len(data) - position
                if left and window <= 0:
                    self._may_send.clear()
                    await self._may_send.wait()
                    continue
                count = min(left, window)
                last = count == left
                if count or end:
                    self._h2.send_data(stream.id, data[position : position + count], end_stream=end and last)
            except H2Error as error:
                raise StreamClosed(str(error)) from None
            self._flush()
            position += count
            if last:
                return

    def finish(self, stream: Stream) -> None:
        """A call is done on our side: forget it."""
        if self._streams.pop(stream.id, None) is not None:
            self._pay(stream.held)

    def reset(self, stream: Stream) -> None:
        if self._streams.pop(stream.id, None) is None or self.lost:
            return
        try:
            self._h2.reset_stream(stream.id, ErrorCodes.CANCEL)
        except H2Error:
            pass
        self._pay(stream.held)
        self._flush()
        stream.close()
        self._may_send.set()

    def credit(self, stream: Stream, count: int) -> None:
        """The peer may send `count` more bytes."""
        if not stream.ended and not stream.closed:
            self._window_update(stream.id, count)
        self._pay(count)

    def _pay(self, count: int) -> None:
        self._owed += count
        if self._owed >= _CONNECTION_WINDOW // 4:
            owed, self._owed = self._owed, 0
            self._window_update(0, owed)

    def _window_update(self, id: int, count: int) -> None:
        # Not by h2: it would count up a window of which it never sees anything taken.
        if not self.lost and count:
            frame = b"\0\0\4" + bytes((_WINDOW_UPDATE, 0)) + id.to_bytes(4, "big") + count.to_bytes(4, "big")
            self._wire.send(frame)

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self.lost:
            self._wire.send(data)
            if self._wire.unsent() > _UNREAD_MAX:
                self._over()

    # -- the end

    def pause(self) -> None:
        """The wire has enough for now."""
        self._may_write.clear()

    def resume(self) -> None:
        """The wire takes more."""
        self._may_write.set()

    def _fail(self, code: ErrorCodes) -> None:
        try:
            self._h2.close_connection(code)
            self._flush()
        except H2Error:
            pass
        self._over()

    def close(self) -> None:
        """End the connection."""
        if not self.lost:
            self._fail(ErrorCodes.NO_ERROR)

    def _over(self) -> None:
        if self.lost:
            return
        self.connection_lost()
        self._wire.close()

    def connection_lost(self) -> None:
        """There is no connection any more."""
        if self.lost:
            return
        self.lost = True
        self._may_send.set()
        self._may_write.set()
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            stream.close()
        if self._on_lost is not None:
            self._on_lost()


def _text(headers: Iterable[tuple[object, object]] | None) -> Headers:
    return [(str(name), str(value)) for name, value in headers or ()]
