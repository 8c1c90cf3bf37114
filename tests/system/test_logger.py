"""The logger process, driven through its client."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from wherry.errors import FailedPrecondition, NotFound, Unavailable
from wherry.logs.client import Logger, Streams, spawn
from wherry.logs.frame import frame
from wherry.logs.reader import read_log
from wherry.logs.target import LogTarget


class Rig:
    def __init__(self, logger: Logger, path: Path, ended: "asyncio.Queue[str]") -> None:
        self.logger = logger
        self.path = path
        self.ended = ended

    async def open(self, id: str, *, tty: bool = False, stdin_once: bool = False, **streams: int) -> None:
        target = LogTarget("json-file", str(self.path / f"{id}.log"), {}, tty, stdin_once)
        given: dict[str, int | None] = {"stdin": None, "stdout": None, "stderr": None, "console": None, **streams}
        await self.logger.open(id, target, Streams(**given))
        for fd in streams.values():
            os.close(fd)

    async def log(self, id: str) -> list[tuple[str, bytes]]:
        return [(r.stream, r.line) async for r in read_log(self.path / f"{id}.log")]


@asynccontextmanager
async def rig(path: Path) -> AsyncIterator[Rig]:
    socket = await asyncio.to_thread(spawn, path)
    ended: asyncio.Queue[str] = asyncio.Queue()
    logger = await Logger.connect(socket, ended.put_nowait, lambda: None)
    try:
        yield Rig(logger, path, ended)
    finally:
        await logger.stop()
        logger.disconnect()


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Callable[[Rig], Coroutine[Any, Any, None]]], None]:
    def run(scene: Callable[[Rig], Coroutine[Any, Any, None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30):
                async with rig(tmp_path) as made:
                    await scene(made)

        asyncio.run(bounded())

    return run


Play = Callable[[Callable[[Rig], Coroutine[Any, Any, None]]], None]


async def read_all(sock: Any) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while piece := await loop.sock_recv(sock, 65536):
        data += piece
    return data


def test_output_is_logged_and_shown_to_who_attached_before(play: Play) -> None:
    async def scene(rig: Rig) -> None:
        early = await rig.logger.attach("c", stdin=False, stdout=True, stderr=True)
        out_r, out_w = os.pipe()
        err_r, err_w = os.pipe()
        await rig.open("c", stdout=out_r, stderr=err_r)
        assert await rig.logger.streams() == ["c"]
        os.write(err_w, b"oops")
        os.close(err_w)
        os.write(out_w, b"one\ntwo")
        os.close(out_w)
        assert await rig.logger.drain("c", 10)
        assert await rig.ended.get() == "c"
        shown = await read_all(early)
        early.close()
        assert sorted([frame(2, b"oops"), frame(1, b"one\ntwo")]) in (
            [shown[: len(frame(1, b"one\ntwo"))], shown[len(frame(1, b"one\ntwo")) :]],
            [shown[len(frame(2, b"oops")) :], shown[: len(frame(2, b"oops"))]],
        )
        assert sorted(await rig.log("c")) == [("stderr", b"oops"), ("stdout", b"one\n"), ("stdout", b"two")]
        assert await rig.logger.streams() == []

    play(scene)


def test_input_reaches_the_container_and_ends_once(play: Play) -> None:
    async def scene(rig: Rig) -> None:
        in_r, in_w = os.pipe()
        out_r, out_w = os.pipe()
        cat = subprocess.Popen(["cat"], stdin=in_r, stdout=out_w)
        os.close(in_r)
        os.close(out_w)
        await rig.open("c", stdin_once=True, stdin=in_w, stdout=out_r)
        client = await rig.logger.attach("c", stdin=True, stdout=True, stderr=True)
        loop = asyncio.get_running_loop()
        sent = os.urandom(3) + b"x" * 1_000_000

        async def feed() -> None:
            await loop.sock_sendall(client, sent)
            client.shutdown(1)

        feeding = asyncio.create_task(feed())
        framed = await read_all(client)
        await feeding
        client.close()
        got = b""
        while framed:
            length = int.from_bytes(framed[4:8], "big")
            got += framed[8 : 8 + length]
            framed = framed[8 + length :]
        assert got == sent
        assert await asyncio.to_thread(cat.wait) == 0

    play(scene)


def test_a_slow_client_makes_the_container_wait_and_no_more(play: Play) -> None:
    async def scene(rig: Rig) -> None:
        out_r, out_w = os.pipe()
        total = 16 << 20
        writer = subprocess.Popen(["head", "-c", str(total), "/dev/zero"], stdout=out_w)
        os.close(out_w)
        client = await rig.logger.attach("c", stdin=False, stdout=True, stderr=False)
        await rig.open("c", stdout=out_r)
        assert not await rig.logger.drain("c", 0.3)
        assert writer.poll() is None
        shown = await read_all(client)
        client.close()
        assert len(shown) >= total
        assert await asyncio.to_thread(writer.wait) == 0

    play(scene)


def test_terminal_resize_and_raw_output(play: Play) -> None:
    async def scene(rig: Rig) -> None:
        master, slave = os.openpty()
        await rig.open("t", tty=True, console=master)
        client = await rig.logger.attach("t", stdin=True, stdout=True, stderr=True)
        await rig.logger.resize("t", 33, 77)
        assert os.get_terminal_size(slave) == (77, 33)
        os.write(slave, b"raw\n")
        os.close(slave)
        assert await read_all(client) == b"raw\r\n"
        client.close()
        assert await rig.log("t") == [("stdout", b"raw\r\n")]

    play(scene)


def test_requests_about_nothing(play: Play) -> None:
    async def scene(rig: Rig) -> None:
        with pytest.raises(NotFound):
            await rig.logger.resize("none", 1, 1)
        await rig.logger.close("none")
        assert await rig.logger.drain("none", 1)
        out_r, out_w = os.pipe()
        await rig.open("c", stdout=out_r)
        again, _ = os.pipe()
        with pytest.raises(FailedPrecondition):
            await rig.open("c", stdout=again)
        pending = await rig.logger.attach("never", stdin=False, stdout=True, stderr=True)
        await rig.logger.close("never")
        assert await read_all(pending) == b""
        pending.close()
        await rig.logger.close("c")
        os.close(out_w)

    play(scene)


def test_loss_is_told_and_a_second_logger_takes_over(tmp_path: Path) -> None:
    async def scene() -> None:
        socket = await asyncio.to_thread(spawn, tmp_path)
        lost = asyncio.Event()
        logger = await Logger.connect(socket, lambda id: None, lost.set)
        os.kill(int((tmp_path / "logger.lock").read_text()), signal.SIGKILL)
        async with asyncio.timeout(10):
            await lost.wait()
        with pytest.raises(Unavailable):
            await logger.streams()
        async with asyncio.timeout(10), rig(tmp_path) as anew:
            assert await anew.logger.streams() == []

    asyncio.run(scene())
