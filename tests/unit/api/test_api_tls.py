"""TLS connections that are shut down on one side only, as Docker's clients do when their input ends."""

import asyncio
import os
import socket
import ssl
from pathlib import Path
from typing import Any, cast

from fake_engine import FakeEngine

from wherry.api import Api, over_tls

HERE = Path(__file__).parent


class HalfClosingClient:
    """TLS over a blocking socket, with a close_notify of its own choosing."""

    def __init__(self, port: int) -> None:
        context = ssl.create_default_context(cafile=str(HERE / "tls-cert.pem"))
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._in, self._out, server_hostname="localhost")
        self._until(self._ssl.do_handshake)

    def _until(self, step: Any) -> Any:
        while True:
            try:
                result = step()
                self.socket.sendall(self._out.read())
                return result
            except ssl.SSLWantReadError:
                self.socket.sendall(self._out.read())
                data = self.socket.recv(65536)
                if not data:
                    self._in.write_eof()
                self._in.write(data)

    def send(self, data: bytes) -> None:
        self._until(lambda: self._ssl.write(data))

    def end_input(self) -> None:
        try:
            self._ssl.unwrap()
        except ssl.SSLWantReadError:
            self.socket.sendall(self._out.read())

    def read(self) -> bytes:
        try:
            return cast(bytes, self._until(lambda: self._ssl.read(65536)))
        except ssl.SSLZeroReturnError:
            return b""

    def read_until(self, end: bytes) -> bytes:
        data = b""
        while not data.endswith(end):
            part = self.read()
            assert part, data
            data += part
        return data


def test_output_follows_the_end_of_input() -> None:
    data = os.urandom(1 << 20) * 4

    def client(port: int) -> bytes:
        tls = HalfClosingClient(port)
        with tls.socket:
            tls.send(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
            tls.read_until(b"OK")
            tls.send(b"POST /containers/a/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n")
            tls.read_until(b"\r\n\r\n")
            tls.send(b"input")
            tls.end_input()
            parts = []
            while part := tls.read():
                parts.append(part)
            return b"".join(parts)

    async def run() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(HERE / "tls-cert.pem", HERE / "tls-key.pem")
        engine = FakeEngine()
        loop = asyncio.get_running_loop()
        factory = Api(cast(Any, engine)).server()
        server = await loop.create_server(over_tls(context, factory), "127.0.0.1", 0)
        await engine.containers.create("a", cast(Any, _Config()), cast(Any, None), cast(Any, None), None)
        port = server.sockets[0].getsockname()[1]
        reading = loop.run_in_executor(None, client, port)
        await engine.containers.made["a"].was_attached.wait()
        streams = engine.containers.made["a"].attached[0]
        streams.setblocking(False)
        seen = b""
        while part := await loop.sock_recv(streams, 100):
            seen += part
        assert seen == b"input"
        await loop.sock_sendall(streams, data)
        streams.close()
        assert await reading == data
        server.close()
        await factory.shutdown(1)

    asyncio.run(asyncio.wait_for(run(), 30))


def test_what_is_not_tls_is_turned_away() -> None:
    async def run() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(HERE / "tls-cert.pem", HERE / "tls-key.pem")
        factory = Api(cast(Any, FakeEngine())).server()
        server = await asyncio.get_running_loop().create_server(over_tls(context, factory), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        writer.write(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        assert b"HTTP" not in await reader.read()
        writer.close()
        server.close()
        await factory.shutdown(1)

    asyncio.run(asyncio.wait_for(run(), 10))


class _Config:
    tty = False
