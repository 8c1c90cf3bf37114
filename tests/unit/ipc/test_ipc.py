import asyncio
import os
import select
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import wherry
from wherry.errors import Conflict, Internal, InvalidArgument, Unavailable
from wherry.ipc import seqpacket, server
from wherry.ipc.client import Connection
from wherry.ipc.poller import READABLE, Poller
from wherry.ipc.server import Call, Server


class Helper:
    """A server in a thread, which ends as its process would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.poller = Poller()
        self.server = Server(self.poller, seqpacket.listen(str(path)), self.serve, lambda: True)
        self.later: list[Call] = []
        self.ended = threading.Event()
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC)
        self.poller.add(self._wake, READABLE, self._end)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def serve(self, call: Call, operation: str, arguments: dict[str, Any], fds: list[int]) -> None:
        if operation == "echo":
            call.answer(arguments, fds)
        elif operation == "later":
            self.later.append(call)
        elif operation == "earlier":
            self.later.pop(0).answer("late", list(os.pipe2(os.O_CLOEXEC)))
            call.answer(None)
        elif operation == "tell":
            for number in range(arguments["count"]):
                self.server.tell("count", number)
            call.answer("told")
        elif operation == "refuse":
            raise Conflict("taken", hint="take another")
        elif operation == "break":
            raise ZeroDivisionError("a fault")
        elif operation == "last words":
            # It dies with a request unread: the kernel reports the reset ahead of what was said before.
            self.server.tell("said")
            call.answer("done")
            raise SystemExit(0)

    def _end(self, events: int) -> None:
        raise SystemExit(0)

    def _run(self) -> None:
        try:
            while True:
                self.poller.run_once()
        except SystemExit:
            for client in self.server._clients.values():
                client.socket.close()
            self.ended.set()

    def close(self) -> None:
        os.write(self._woken, b"x")
        self.thread.join()
        os.close(self._wake)
        os.close(self._woken)
        self.server._listener.close()
        self.poller._epoll.close()


@asynccontextmanager
async def joined(
    path: Path, on_event: Callable[..., None] = print, on_lost: Callable[[], None] = lambda: None
) -> AsyncIterator[tuple[Helper, Connection]]:
    helper = Helper(path / "socket")
    connection = Connection("helper", helper.path, on_event, on_lost)
    try:
        async with asyncio.timeout(20):
            yield helper, connection
    finally:
        connection.close()
        await asyncio.to_thread(helper.close)


def dial(helper: Helper) -> Any:
    connection = seqpacket.connect(str(helper.path))
    connection.settimeout(10)
    return connection


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_answers_find_their_calls_with_their_descriptors(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as (_, connection):
            reading, writing = os.pipe()
            big = "é" * 300_000  # beyond what the socket carries
            calls = [connection.call("echo", {"n": n, "big": big * (n % 2)}, [writing] * n) for n in range(5)]
            answers = await asyncio.gather(*calls)
            os.close(writing)
            for number, (value, fds) in enumerate(answers):
                assert (value["n"], len(value["big"]), len(fds)) == (number, 300_000 * (number % 2), number)
                for fd in fds:
                    os.write(fd, b"%d" % number)
                seqpacket.close(fds)
            assert os.read(reading, 100) == b"1223334444"
            assert os.read(reading, 1) == b""  # nobody kept a copy
            os.close(reading)

    asyncio.run(scene())


def test_errors_keep_their_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as (_, connection):
            with pytest.raises(Conflict) as refused:
                await connection.ask("refuse")
            assert (refused.value.message, refused.value.hint) == ("taken", "take another")
            with pytest.raises(Internal, match="ZeroDivisionError"):
                await connection.ask("break")
            with pytest.raises(InvalidArgument):
                await connection.ask(["refuse"])  # type: ignore[arg-type]
            assert await connection.ask("ping") == os.getpid()

    asyncio.run(scene())
    assert "a fault" in capsys.readouterr().err


@pytest.mark.parametrize("answered_first", [False, True])
def test_what_a_cancelled_call_would_have_got_is_closed(tmp_path: Path, answered_first: bool) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as (_, connection):
            await connection.ask("ping")
            before = open_files()
            call = asyncio.create_task(connection.call("later", {}, ()))
            earlier = asyncio.create_task(connection.call("earlier", {}, ()))
            await asyncio.sleep(0)
            if answered_first:
                assert select.select([connection._socket], [], [], 10)[0]
                connection._read()  # the answer is there, but the call has not run since
            call.cancel()
            await earlier
            with pytest.raises(asyncio.CancelledError):
                await call
            await connection.ask("ping")
            assert open_files() == before
            assert not connection._waiting

    asyncio.run(scene())


def test_what_was_said_before_a_reset_is_heard(tmp_path: Path) -> None:
    async def scene() -> None:
        heard: list[str] = []
        lost = asyncio.Event()
        async with joined(tmp_path, heard.append, lost.set) as (helper, connection):
            ending = asyncio.create_task(connection.call("last words", {}, ()))
            unread = asyncio.create_task(connection.call("echo", {}, ()))
            await asyncio.sleep(0)
            helper.ended.wait(10)  # the loop stands still: all of it is in the socket, the reset included
            assert await ending == ("done", [])
            with pytest.raises(Unavailable):
                await unread
            await lost.wait()
            assert heard == ["said"]
            with pytest.raises(Unavailable):
                await connection.ask("ping")

    asyncio.run(scene())


def test_what_a_slow_client_is_owed_waits_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        monkeypatch.setattr(server, "_OUTBOX_LIMIT", 2000)
        heard: list[int] = []
        async with joined(tmp_path, lambda name, number: heard.append(number)) as (_, connection):
            # Far more than the socket's queue holds, while the loop does not read.
            assert await connection.ask("tell", count=1500) == "told"
            assert heard == list(range(1500))
            slow = seqpacket.connect(str(tmp_path / "socket"))
            seqpacket.send(slow, b'{"seq":1,"op":"later"}')
            for _ in range(3):
                await connection.ask("tell", count=1500)
            received = 0
            while seqpacket.receive(slow) is not None:
                received += 1
            slow.close()
            assert received < 4500  # it has been cut off

    asyncio.run(scene())


def test_requests_queue_when_the_helper_is_slow(tmp_path: Path) -> None:
    async def scene() -> None:
        async with joined(tmp_path) as (_, connection):
            reading, writing = os.pipe()
            calls = [asyncio.create_task(connection.call("echo", {"n": n}, [writing])) for n in range(1000)]
            await asyncio.sleep(0)
            assert connection._outbox
            os.close(writing)  # queued requests have copies
            for number, call in enumerate(calls):
                value, fds = await call
                assert value == {"n": number}
                seqpacket.close(fds)
            assert not select.select([reading], [], [], 0)[0] or os.read(reading, 1) == b""
            os.close(reading)

    asyncio.run(scene())


def test_malformed_requests_are_refused_and_an_unused_helper_ends(tmp_path: Path) -> None:
    helper = Helper(tmp_path / "socket")
    try:
        first = dial(helper)
        for data in (b"{", b"[]", b"7", b'{"seq":1}', b'{"seq":1,"op":"echo","args":[1]}', b'{"seq":1,"op":{}}'):
            seqpacket.send(first, data, [0])
            answer = seqpacket.receive(first)
            assert answer is not None
            assert b"InvalidArgument" in answer[0]
        first.close()  # has asked for nothing
        second = dial(helper)
        seqpacket.send(second, b'{"seq":1,"op":"ping"}')
        assert seqpacket.receive(second) is not None
        second.close()
        third = dial(helper)
        seqpacket.send(third, b'{"seq":1,"op":"echo"}')
        assert seqpacket.receive(third) == (b'{"seq":1,"ok":{}}', [])
        assert not helper.ended.is_set()
        third.close()
        assert helper.ended.wait(10)
    finally:
        helper.close()


def test_a_number_reused_within_a_round_is_not_taken_for_the_old_one() -> None:
    poller = Poller()
    first, second = os.pipe(), os.pipe()
    called: list[str] = []

    def handle(own: tuple[int, int], other: tuple[int, int]) -> None:
        called.append("old")
        for fd in (own[0], other[0]):
            poller.remove(fd)
        os.dup2(quiet[0], other[0])
        poller.add(other[0], READABLE, lambda events: called.append("new"))

    quiet = os.pipe()
    poller.add(first[0], READABLE, lambda events: handle(first, second))
    poller.add(second[0], READABLE, lambda events: handle(second, first))
    for _, writing in (first, second):
        os.write(writing, b"x")
    poller.run_once()
    assert called == ["old"]
    os.write(quiet[1], b"x")
    poller.run_once()
    assert called == ["old", "new"]
    for fd in (*first, *second, *quiet):
        os.close(fd)
    poller._epoll.close()


def test_nobody_listens(tmp_path: Path) -> None:
    async def scene() -> None:
        with pytest.raises(Unavailable, match="the helper does not answer"):
            Connection("helper", tmp_path / "none", print, lambda: None)

    asyncio.run(scene())


@pytest.mark.parametrize("helper", ["wherry.logs.writer", "wherry.runtime.monitor_main"])
def test_helpers_stay_small(helper: str) -> None:
    source = str(Path(wherry.__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {source!r}); import {helper}; print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "wherry.ipc.server" in loaded
    assert not {"asyncio", "dataclasses", "enum", "inspect", "json", "re", "socket", "subprocess", "typing"} & {*loaded}
