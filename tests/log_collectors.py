"""Fake places that logs are delivered to, each a server in a thread: what they were sent, decoded."""

import contextlib
import gzip
import json
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from daemon import wait_until

SECONDS = 20.0


class Collector:
    """`received`: whatever `parse` made of each connection's bytes or each datagram."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.received: list[Any] = []
        self.connections: list[socket.socket] = []

    def wait(self, count: int) -> list[Any]:
        """The first `count` of what is received."""
        wait_until(lambda: len(self.received) >= count, SECONDS, f"{count} messages at {self.address}")
        return self.received[:count]

    def cut(self) -> None:
        """Break every connection."""
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


Parse = Callable[[bytes], tuple[list[Any], bytes]]
"""Of bytes: whole messages, and the rest."""


def lines(data: bytes) -> tuple[list[bytes], bytes]:
    *whole, rest = data.split(b"\n")
    return whole, rest


def counted(data: bytes) -> tuple[list[bytes], bytes]:
    """RFC 5425: each preceded by its length."""
    found = []
    while b" " in data:
        size, _, rest = data.partition(b" ")
        if len(rest) < int(size):
            break
        found.append(rest[: int(size)])
        data = rest[int(size) :]
    return found, data


def zeros(data: bytes) -> tuple[list[Any], bytes]:
    """GELF over TCP."""
    *whole, rest = data.split(b"\0")
    return [json.loads(text) for text in whole], rest


@contextlib.contextmanager
def stream_server(
    host: str,
    parse: Parse,
    *,
    path: str = "",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    answer: Callable[[socket.socket, Any], None] | None = None,
) -> Iterator[Collector]:
    """A listening socket at `host` or at the unix socket `path`."""
    if path:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
    else:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    listener.listen()
    made = Collector(f"unix://{path}" if path else f"tcp://{host}:{listener.getsockname()[1]}")
    threads = []

    def serve(plain: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection = tls.wrap_socket(plain, server_side=True) if tls else plain
            made.connections.append(connection)
            rest = b""
            with connection:
                while data := connection.recv(65536):
                    found, rest = parse(rest + data)
                    made.received += found
                    for message in found if answer else ():
                        assert answer is not None
                        answer(connection, message)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(connection,)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield made
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()
        made.cut()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def datagram_server(host: str, parse: Callable[[bytes], Any], *, path: str = "") -> Iterator[Collector]:
    """`parse` gives a message, or None when a datagram completes none."""
    receiver = socket.socket(socket.AF_UNIX if path else socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(path or (host, 0))
    made = Collector(f"unixgram://{path}" if path else f"udp://{host}:{receiver.getsockname()[1]}")
    ending = threading.Event()
    receiver.settimeout(0.1)

    def serve() -> None:
        while not ending.is_set():
            try:
                data, ancillary, _, _ = receiver.recvmsg(65536, 64)
            except TimeoutError:
                continue
            for _, _, fds in ancillary:
                with open(struct.unpack("i", fds)[0], "rb") as memory:
                    memory.seek(0)
                    data = memory.read()
            message = parse(data)
            if message is not None:
                made.received.append(message)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield made
    finally:
        ending.set()
        thread.join()
        receiver.close()


class Chunks:
    """GELF's datagrams, put together."""

    def __init__(self) -> None:
        self._parts: dict[bytes, dict[int, bytes]] = {}

    def __call__(self, data: bytes) -> Any:
        if data.startswith(b"\x1e\x0f"):
            parts = self._parts.setdefault(data[2:10], {})
            parts[data[10]] = data[12:]
            if len(parts) < data[11]:
                return None
            data = b"".join(parts[number] for number in range(data[11]))
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        elif data.startswith(b"\x78"):
            data = zlib.decompress(data)
        return json.loads(data)


class Splunk:
    """An HTTP event collector. `failures`: how many posts to refuse first."""

    def __init__(self, host: str, token: str, failures: int = 0) -> None:
        collector = self.collector = Collector("")
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        requests, left = self.requests, [failures]

        class Handler(BaseHTTPRequestHandler):
            def do_OPTIONS(self) -> None:
                self._answer(200)

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    data = gzip.decompress(data)
                if self.headers["Authorization"] != f"Splunk {token}":
                    self._answer(401)
                    return
                if left[0]:
                    left[0] -= 1
                    self._answer(503)
                    return
                decoder, text = json.JSONDecoder(), data.decode()
                while text:
                    document, end = decoder.raw_decode(text)
                    collector.received.append(document)
                    text = text[end:].lstrip()
                self._answer(200)

            def _answer(self, status: int) -> None:
                requests.append((self.command, self.path, dict(self.headers)))
                body = b'{"text":"","code":0}'
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self.collector.address = f"http://{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> "Splunk":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def unpack(data: bytes) -> tuple[Any, bytes]:
    """One MessagePack value and the rest; IndexError when it is not all there."""
    code, rest = data[0], data[1:]
    if code < 0x80:
        return code, rest
    if code >= 0xE0:
        return code - 256, rest
    if code < 0x90:
        return _pairs(code & 15, rest)
    if code < 0xA0:
        return _items(code & 15, rest)
    if code < 0xC0:
        return _take(rest, code & 31)
    if code in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[code], rest
    if code in (0xCC, 0xCD, 0xCE, 0xCF, 0xD0, 0xD1, 0xD2, 0xD3):
        size = 1 << (code & 3)
        raw, rest = _bytes(rest, size)
        return int.from_bytes(raw, "big", signed=code >= 0xD0), rest
    if code in (0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB):
        size = 1 << (code - 0xC4 if code < 0xD0 else code - 0xD9)
        raw, rest = _bytes(rest, size)
        return _take(rest, int.from_bytes(raw, "big"))
    if code == 0xD7:
        raw, rest = _bytes(rest, 9)
        return ("time", *struct.unpack(">II", raw[1:])), rest
    if code == 0xC7:
        size, rest = rest[0], rest[1:]
        raw, rest = _bytes(rest, size + 1)
        return ("time", *struct.unpack(">II", raw[1:])), rest
    raw, rest = _bytes(rest, 2 if code in (0xDC, 0xDE) else 4)
    count = int.from_bytes(raw, "big")
    return _items(count, rest) if code in (0xDC, 0xDD) else _pairs(count, rest)


def _bytes(data: bytes, size: int) -> tuple[bytes, bytes]:
    if len(data) < size:
        raise IndexError
    return data[:size], data[size:]


def _take(data: bytes, size: int) -> tuple[str, bytes]:
    raw, rest = _bytes(data, size)
    return raw.decode(), rest


def _items(count: int, data: bytes) -> tuple[list[Any], bytes]:
    found = []
    for _ in range(count):
        value, data = unpack(data)
        found.append(value)
    return found, data


def _pairs(count: int, data: bytes) -> tuple[dict[Any, Any], bytes]:
    values, data = _items(count * 2, data)
    return dict(zip(values[::2], values[1::2], strict=True)), data


def forwarded(data: bytes) -> tuple[list[Any], bytes]:
    """Fluentd's forward protocol: (tag, time, record, option) of each event, in message and in forward mode."""
    found: list[Any] = []
    while data:
        try:
            message, data = unpack(data)
        except IndexError:
            break
        tag, second, *more = message
        if isinstance(second, list):
            option = more[0] if more else {}
            found += [(tag, *event, option) for event in second]
        else:
            found.append((tag, second, *more, *([{}] if len(more) < 2 else [])))
    return found, data
