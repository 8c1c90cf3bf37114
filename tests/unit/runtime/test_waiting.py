"""The monitor serves others while a request waits: for descriptors, for time, for whatever comes first."""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wherry.errors import Internal
from wherry.ipc import seqpacket
from wherry.ipc.client import Connection
from wherry.ipc.poller import READABLE, Poller
from wherry.runtime.monitor import Monitor
from wherry.runtime.waiting import Wait, drive


class Slow:
    """Stands for the Runtime: pausing takes until `released`."""

    root = "/nonexistent"

    def __init__(self) -> None:
        self.released = False
        self.steps = 0

    def pause(self, identifier: str) -> Iterator[Any]:
        while not self.released:
            self.steps += 1
            yield 0.001

    def processes(self, identifier: str) -> list[int]:
        return [1]


def test_requests_go_on_while_one_waits(tmp_path: Path) -> None:
    runtime, path = Slow(), tmp_path / "monitor.sock"
    listener = seqpacket.listen(str(path))
    monitor = Monitor(runtime, listener)  # type: ignore[arg-type]

    def serve() -> None:
        try:
            monitor.serve_forever()
        except SystemExit:
            pass  # its last client has left

    thread = threading.Thread(target=serve)

    async def talk() -> None:
        connection = Connection("monitor", path, lambda *_: None, lambda: None)
        try:
            paused = asyncio.ensure_future(connection.ask("pause", id="x"))
            while runtime.steps < 3:
                assert await connection.ask("processes", id="x") == [1]
            assert not paused.done()
            runtime.released = True
            assert await paused is None
        finally:
            connection.close()

    thread.start()
    asyncio.run(asyncio.wait_for(talk(), 20))
    thread.join(20)
    assert not thread.is_alive()
    listener.close()


def test_a_wait_ends_with_what_comes_first() -> None:
    reading, writing = os.pipe()

    def work() -> Iterator[Any]:
        yield Wait((reading,), 0.0)
        os.write(writing, b"x")
        yield Wait((reading,), 600.0)
        yield reading
        yield 0.0
        return os.read(reading, 1)

    try:
        assert drive(work()) == b"x"  # type: ignore[arg-type]
    finally:
        os.close(reading)
        os.close(writing)


def test_timers_run_in_their_order_and_cancelled_ones_not() -> None:
    poller, said = Poller(), []
    reading, writing = os.pipe()
    try:
        poller.add(reading, READABLE, lambda events: said.append("read"))
        poller.call_later(0.02, lambda: said.append("second"))
        poller.call_later(0.01, lambda: said.append("first"))
        poller.call_later(0.015, lambda: said.append("never")).cancel()
        while "second" not in said:
            poller.run_once()
        assert said == ["first", "second"]
        os.write(writing, b"x")
        poller.run_once()
        assert said[-1] == "read"
    finally:
        os.close(reading)
        os.close(writing)


def test_what_a_waiting_request_raises_is_its_answer(tmp_path: Path) -> None:
    class Broken(Slow):
        def pause(self, identifier: str) -> Iterator[Any]:
            yield 0.0
            raise TimeoutError("cgroup does not freeze")

    path = tmp_path / "monitor.sock"
    listener = seqpacket.listen(str(path))
    monitor = Monitor(Broken(), listener)  # type: ignore[arg-type]
    answered = threading.Event()

    async def talk() -> None:
        connection = Connection("monitor", path, lambda *_: None, lambda: None)
        with pytest.raises(Internal, match="does not freeze"):
            await connection.ask("pause", id="x")
        answered.set()
        connection.close()

    thread = threading.Thread(target=lambda: asyncio.run(talk()))
    thread.start()
    with pytest.raises(SystemExit):
        monitor.serve_forever()
    thread.join(20)
    listener.close()
    assert answered.is_set()
