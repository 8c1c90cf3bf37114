"""HTTP/2 and gRPC between two of our own ends, and against ends that do not behave."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.buildkit import http2
from wherry.buildkit.failures import status_of
from wherry.buildkit.grpc import UNIMPLEMENTED, Call, Handler, RpcError, Server, calling, check_end, unary
from wherry.buildkit.http2 import Channel, StreamClosed
from wherry.buildkit.messages.buildkit_pb2 import BytesMessage
from wherry.errors import NotFound


class Wire:
    """Keeps what is sent, until somebody carries it to the other end."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.closed = False
        self.stuck = False

    def send(self, data: bytes) -> None:
        self.data += data

    def close(self) -> None:
        self.closed = True

    def unsent(self) -> int:
        return len(self.data) if self.stuck else 0


class Pair:
    """A client's and a server's channel; `pump` carries bytes, cut as `cuts` says."""

    def __init__(self, handlers: dict[str, Handler], cuts: list[int] | None = None) -> None:
        self.there, self.back = Wire(), Wire()
        self.server = Server(handlers, status_of)
        self.server.channel = Channel(self.back, client=False, on_stream=self.server.on_stream)
        self.client = Channel(self.there, client=True)
        self._cuts = cuts or [1 << 20]
        self._turn = 0

    async def run(self, work: Awaitable[object]) -> object:
        self.client.begin()
        self.server.channel.begin()
        task = asyncio.ensure_future(work)
        try:
            async with asyncio.timeout(30):
                while not task.done():
                    self._carry(self.there, self.server.channel)
                    self._carry(self.back, self.client)
                    await asyncio.sleep(0)
            return task.result()
        finally:
            task.cancel()
            self.client.connection_lost()
            self.server.channel.connection_lost()
            await asyncio.gather(task, *self.server._tasks, return_exceptions=True)

    def _carry(self, wire: Wire, channel: Channel) -> None:
        self._turn += 1
        size = self._cuts[self._turn % len(self._cuts)]
        data = bytes(wire.data[:size])
        del wire.data[:size]
        if data:
            channel.receive(data)


async def _echo(call: Call) -> None:
    call.begin()
    while (message := await call.recv(BytesMessage)) is not None:
        await call.send(message)


async def _fail(call: Call) -> None:
    raise NotFound("no ünicorn % here", object="x")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=5),
    st.lists(st.binary(max_size=2000), max_size=20),
)
def test_messages_arrive_however_the_bytes_are_cut(cuts: list[int], messages: list[bytes]) -> None:
    async def talk(pair: Pair) -> list[bytes]:
        async with calling(pair.client, "/echo") as call:
            await call.stream.send([BytesMessage(data=one).SerializeToString() for one in messages], end=True)
            got = []
            while (message := await call.recv(BytesMessage)) is not None:
                got.append(message.data)
            check_end(call.stream)
            return got

    async def main() -> object:
        pair = Pair({"/echo": _echo}, cuts)
        return await pair.run(talk(pair))

    assert asyncio.run(main()) == messages


def test_more_than_all_windows_passes_both_ways() -> None:
    """40 MiB against windows of 1 and 16 MiB: what is taken is given back, parts of messages too."""
    chunk = bytes(range(256)) * (3 << 12)

    async def talk(pair: Pair) -> int:
        async with calling(pair.client, "/echo") as call:

            async def send() -> None:
                for _ in range(14):
                    await call.send(BytesMessage(data=chunk))
                await call.stream.send([], end=True)

            sending = asyncio.ensure_future(send())
            total = 0
            while (message := await call.recv(BytesMessage)) is not None:
                assert message.data == chunk
                total += len(message.data)
            await sending
            check_end(call.stream)
            return total

    async def main() -> object:
        pair = Pair({"/echo": _echo})
        return await pair.run(talk(pair))

    assert asyncio.run(main()) == 14 * len(chunk)


def test_errors_are_statuses() -> None:
    async def talk(pair: Pair) -> tuple[RpcError, RpcError]:
        with pytest.raises(RpcError) as failed:
            await unary(pair.client, "/fail", BytesMessage(), BytesMessage)
        with pytest.raises(RpcError) as unknown:
            await unary(pair.client, "/nosuch", BytesMessage(), BytesMessage)
        return failed.value, unknown.value

    async def main() -> object:
        pair = Pair({"/fail": _fail})
        return await pair.run(talk(pair))

    failed, unknown = asyncio.run(main())  # type: ignore[misc]
    assert (failed.code, str(failed)) == (5, "no ünicorn % here")
    assert unknown.code == UNIMPLEMENTED


def test_a_call_given_up_ends_its_handler() -> None:
    begun, over = asyncio.Event(), asyncio.Event()

    async def wait_for_ever(call: Call) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            over.set()

    async def talk(pair: Pair) -> None:
        async with calling(pair.client, "/wait") as call:
            await call.stream.send([], end=True)
            await begun.wait()
        await over.wait()

    async def main() -> None:
        pair = Pair({"/wait": wait_for_ever})
        await pair.run(talk(pair))

    asyncio.run(main())
    assert over.is_set()


# -- ends that do not behave


def _attacked(attack: Callable[[H2Connection], bytes]) -> tuple[Channel, Wire]:
    """A server's channel after a client sent what `attack` makes."""
    wire = Wire()

    async def main() -> Channel:
        server = Server({"/echo": _echo}, status_of)
        channel = server.channel = Channel(wire, client=False, on_stream=server.on_stream)
        channel.begin()
        client = H2Connection(H2Configuration(client_side=True))
        client.initiate_connection()
        channel.receive(client.data_to_send() + attack(client))
        await asyncio.sleep(0)
        for task in list(server._tasks):
            task.cancel()
        await asyncio.gather(*server._tasks, return_exceptions=True)
        return channel

    return asyncio.run(main()), wire


_HEAD = [(":method", "POST"), (":scheme", "http"), (":path", "/echo"), (":authority", "x")]


def _frame(kind: int, flags: int, stream: int, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def _begun(client: H2Connection) -> bytes:
    client.send_headers(1, _HEAD)
    return client.data_to_send()


@pytest.mark.parametrize(
    "frame",
    [
        _frame(0, 0, 1, b"\0" + (http2.MESSAGE_MAX + 1).to_bytes(4, "big")),
        _frame(0, 0, 1, b"\1\0\0\0\1x"),
        _frame(0, 0, 7, b"x"),
        _frame(0, 8, 1, b"\5ab"),
        _frame(0, 0, 1, b"", length=1 << 20),
        _frame(9, 4, 1, b""),
    ],
    ids=["message too large", "compressed", "stream never opened", "padding", "frame too large", "continuation"],
)
def test_a_broken_rule_ends_the_connection(frame: bytes) -> None:
    channel, wire = _attacked(lambda client: _begun(client) + frame)
    assert channel.lost
    assert wire.closed


def test_calls_begun_and_given_up_without_end_are_cut_off() -> None:
    """CVE-2023-44487."""

    def attack(client: H2Connection) -> bytes:
        for number in range(1100):
            client.send_headers(2 * number + 1, _HEAD)
            client.reset_stream(2 * number + 1)
        return client.data_to_send()

    channel, wire = _attacked(attack)
    assert channel.lost
    assert wire.closed


def test_headers_without_end_are_cut_off() -> None:
    """CVE-2024-27316 and its kin: CONTINUATION frames that never end."""
    flood = _frame(1, 0, 1, b"") + b"".join(_frame(9, 0, 1, b"\0" * 1000) for _ in range(200))
    channel, _ = _attacked(lambda client: flood)
    assert channel.lost


def test_a_peer_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "_UNREAD_MAX", 64 << 10)

    async def main() -> Wire:
        wire = Wire()
        wire.stuck = True
        channel = Channel(wire, client=False)
        channel.begin()
        client = H2Connection(H2Configuration(client_side=True))
        client.initiate_connection()
        channel.receive(client.data_to_send())
        ping = _frame(6, 0, 0, b"12345678")
        for _ in range(1000):
            channel.receive(ping * 1000)
            if channel.lost:
                break
        return wire

    assert asyncio.run(main()).closed


def test_a_lost_connection_wakes_all_who_wait() -> None:
    async def main() -> None:
        channel = Channel(Wire(), client=True)
        channel.begin()
        async with contextlib.AsyncExitStack() as stack:
            call = await stack.enter_async_context(calling(channel, "/x"))
            waiting = asyncio.ensure_future(call.stream.recv())
            # More than a peer that says nothing lets us send.
            sending = asyncio.ensure_future(call.stream.send([b"x" * (1 << 20)]))
            await asyncio.sleep(0)
            channel.connection_lost()
            for task in (waiting, sending):
                with pytest.raises(StreamClosed):
                    await asyncio.wait_for(task, 5)
            with pytest.raises(StreamClosed):
                channel.open([])

    asyncio.run(main())
