"""wait, logs, attach, exec, uploads and downloads: what flows after the head."""

import asyncio
import os
import socket

import aiohttp
from fake_engine import FakeEngine, LogLine
from http_client import Client, ask
from serving import Serve

from wherry.errors import NotFound

UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}


async def make(path: str, name: str = "a", **config: object) -> None:
    client = await Client.connect(path)
    await client.post_json(f"/containers/create?name={name}", {"Image": "x", **config})
    await client.request("POST", f"/containers/{name}/start")
    client.close()


async def receive(loop_socket: socket.socket, size: int = 65536) -> bytes:
    loop_socket.setblocking(False)
    return await asyncio.get_running_loop().sock_recv(loop_socket, size)


def test_wait_sends_its_head_before_the_end(serve: Serve) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        await make(path)
        client = await Client.connect(path)
        client.send("POST", "/containers/a/wait")
        status, headers = await client.head()
        engine.containers.made["a"].exit(3)
        assert await client.body(status, headers) == b'{"StatusCode":3}\n'
        # The same connection serves on.
        assert (await client.request("POST", "/containers/a/wait")).json == {"StatusCode": 0}
        client.close()

    serve(test)


def test_logs_are_framed_and_followed(serve: Serve) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        await make(path)
        container = engine.containers.made["a"]
        container.log = [LogLine("stdout", 1_700_000_000_000_000_005, b"one\n"), LogLine("stderr", 0, b"two\n")]
        answer = await ask(path, "GET", "/containers/a/logs?stdout=1&stderr=1")
        assert answer.headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"
        assert answer.body == b"\x01\0\0\0\0\0\0\4one\n\x02\0\0\0\0\0\0\4two\n"
        old = await ask(path, "GET", "/v1.41/containers/a/logs?stdout=1&timestamps=1")
        assert old.headers["Content-Type"] == "application/vnd.docker.raw-stream"
        assert b"2023-11-14T22:13:20.000000005Z one\n" in old.body
        client = await Client.connect(path)
        client.send("GET", "/containers/a/logs?stdout=1&follow=1")
        await client.head()
        assert (await client.chunk()).count(b"\n") == 2
        container.log.append(LogLine("stdout", 0, b"three\n"))
        container.log_grows.set()
        assert await client.chunk() == b"\x01\0\0\0\0\0\0\6three\n"
        container.exit(0)
        assert await client.chunk() == b""
        client.close()

    serve(test)


def test_attach_survives_the_end_of_input(serve: Serve) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        await make(path)
        client = await Client.connect(path)
        client.send("POST", "/containers/a/attach?stream=1&stdin=1&stdout=1", headers=UPGRADE)
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
        assert b"Upgrade: tcp\r\n" in head
        client.writer.write(b"input")
        client.writer.write_eof()
        (streams,) = engine.containers.made["a"].attached
        assert await receive(streams) == b"input"
        assert await receive(streams) == b""
        # Much more than any buffer holds: nothing may be lost, and the far side must be slowed down.
        data = os.urandom(1 << 20) * 8
        sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(streams, data))
        await asyncio.sleep(0)
        assert not sending.done()
        assert await client.reader.readexactly(len(data)) == data
        await sending
        streams.close()
        assert await client.reader.read() == b""
        client.close()

    serve(test)


def test_attach_keeps_what_was_sent_with_the_request(serve: Serve) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        await make(path)
        for headers, split in (({}, 10_000), (UPGRADE, 10_000), ({}, 40), (UPGRADE, 3)):
            client = await Client.connect(path)
            fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            request = f"POST /v1.50/containers/a/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: d\r\n{fields}\r\n"
            wire = request.encode() + b"GET / HTTP/1.1\r\n\r\nearly"
            client.writer.write(wire[:split])
            if split < len(wire):
                # Let the first part arrive alone.
                await ask(path, "GET", "/_ping")
                client.writer.write(wire[split:])
            client.writer.write_eof()
            await client.reader.readuntil(b"\r\n\r\n")
            streams = engine.containers.made["a"].attached[-1]
            found = b""
            while data := await receive(streams):
                found += data
            assert found == b"GET / HTTP/1.1\r\n\r\nearly"
            streams.close()
            assert await client.reader.read() == b""
            client.close()

    serve(test)


def test_a_refused_attach_leaves_the_connection_to_http(serve: Serve) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        client = await Client.connect(path)
        answer = await client.request("POST", "/containers/nope/attach?stream=1", headers=UPGRADE)
        assert (answer.status, answer.message) == (404, "No such container: nope")
        assert (await client.request("GET", "/_ping")).status == 200
        client.close()

    serve(test)


def test_detach_keys_end_the_attachment_only(serve: Serve) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        await make(path, Tty=True)
        client = await Client.connect(path)
        client.send("POST", "/containers/a/attach?stream=1&stdin=1&stdout=1&detachKeys=ctrl-x,x", headers=UPGRADE)
        await client.reader.readuntil(b"\r\n\r\n")
        client.writer.write(b"abc\x18x")
        assert await client.reader.read() == b""
        assert await receive(engine.containers.made["a"].attached[0]) == b"abc"
        client.close()
        bad = await ask(path, "POST", "/containers/a/attach?stream=1&stdin=1&detachKeys=nope")
        assert bad.status == 400
        assert ("detached", "a") in engine.containers.calls

    serve(test)


def test_exec_echoes_and_ends(serve: Serve) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        await make(path)
        client = await Client.connect(path)
        made = await client.post_json("/containers/a/exec", {"Cmd": ["cat"], "AttachStdin": True})
        id = made.json["Id"]
        body = b'{"Detach":false,"Tty":false}'
        client.send("POST", f"/exec/{id}/start", body, {"Content-Type": "application/json", **UPGRADE})
        client.writer.write(b"hello")
        client.writer.write_eof()
        await client.reader.readuntil(b"\r\n\r\n")
        assert await client.reader.read() == b"\x01\0\0\0\0\0\0\x05hello"
        client.close()
        assert engine.execs.streams[0].closed
        detached = await ask(path, "POST", f"/exec/{id}/start", b'{"Detach":true}', Content_Type="application/json")
        assert (detached.status, detached.body) == (200, b"")

    serve(test)


def test_an_exec_that_fails_says_so_in_its_stream(serve: Serve) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        await make(path)
        client = await Client.connect(path)
        made = await client.post_json("/containers/a/exec", {"Cmd": ["nosuch"]})
        engine.execs.fail = NotFound("not found in $PATH")
        client.send("POST", f"/exec/{made.json['Id']}/start", b"{}", {"Content-Type": "application/json", **UPGRADE})
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        assert await client.reader.read() == b"\x01\0\0\0\0\0\0\x14not found in $PATH\r\n"
        client.close()

    serve(test)


def test_archives_stream_both_ways(serve: Serve) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        await make(path)
        got = await ask(path, "GET", "/containers/a/archive?path=/etc")
        assert len(got.body) == 40 * 65536
        assert got.headers["X-Docker-Container-Path-Stat"].startswith("eyJuYW1lIjog")
        head = await ask(path, "HEAD", "/containers/a/archive?path=/etc")
        assert head.status == 200
        data = os.urandom(3 << 20)
        assert (await ask(path, "PUT", "/containers/a/archive?path=/", data)).status == 200
        assert engine.containers.unpacked == [data]
        client = await Client.connect(path)
        client.send("PUT", "/containers/a/archive?path=/", headers={"Expect": "100-continue", "Content-Length": "5"})
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.writer.write(b"12345")
        assert (await client.head())[0] == 200
        client.close()

    serve(test)


def test_a_broken_off_upload_is_no_upload(serve: Serve) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        await make(path)
        client = await Client.connect(path)
        client.send("PUT", "/containers/a/archive?path=/", b"short", {"Content-Length": "1000"})
        client.writer.write_eof()
        await client.reader.read()
        client.close()
        assert engine.containers.unpacked == []

    serve(test)


def test_attach_by_websocket(serve: Serve) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        await make(path)
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session,
            session.ws_connect("http://d/v1.50/containers/a/attach/ws?stream=1&stdin=1&stdout=1") as ws,
        ):
            (streams,) = engine.containers.made["a"].attached
            await ws.send_str("typed")
            assert await receive(streams) == b"typed"
            streams.send(b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x03err")
            assert await ws.receive_bytes() + await ws.receive_bytes() == b"outerr"
            streams.close()
            assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE
        assert (await ask(path, "GET", "/containers/a/attach/ws")).status == 400

    serve(test)
