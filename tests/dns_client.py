"""DNS for tests, written without ours: a client, sockets in a container's network namespace, and a server there."""

import contextlib
import ipaddress
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from wherry.kernel import netns

TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33, "ANY": 255}
RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
RESOLVER = "127.0.0.11"


class Reply(NamedTuple):
    """`data`: what the records of the answer hold, addresses and names as text, all else as bytes."""

    rcode: str
    flags: int
    data: tuple[str | bytes, ...]
    names: tuple[str, ...]
    ttls: tuple[int, ...]
    types: tuple[int, ...]
    size: int
    raw: bytes


def encode(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


def query(name: str, type: str = "A", *, edns: int = 0, flags: int = 0x0100, id: int = 0x4242) -> bytes:
    tail = b"\0" + struct.pack(">HHIH", 41, edns, 0, 0) if edns else b""
    counts = struct.pack(">6H", id, flags, 1, 0, 0, 1 if edns else 0)
    return counts + encode(name) + struct.pack(">HH", TYPES[type], 1) + tail


def decode(data: bytes) -> Reply:
    _, flags, questions, answers, authorities, extras = struct.unpack(">6H", data[:12])
    at = 12
    for _ in range(questions):
        at = _name(data, at)[1] + 4
    found: list[tuple[str, int, int, str | bytes]] = []
    for _ in range(answers + authorities + extras):
        name, at = _name(data, at)
        type, _, ttl, length = struct.unpack(">HHIH", data[at : at + 10])
        at += 10
        content: str | bytes = data[at : at + length]
        if type in (1, 28):
            content = str(ipaddress.ip_address(content))
        elif type in (5, 12):
            content = _name(data, at)[0]
        found.append((name, type, ttl, content))
        at += length
    assert at == len(data), "there is more behind the last record"
    own = found[:answers]
    return Reply(
        RCODES.get(flags & 15, str(flags & 15)),
        flags,
        tuple(row[3] for row in own),
        tuple(row[0] for row in own),
        tuple(row[2] for row in own),
        tuple(row[1] for row in found),
        len(data),
        data,
    )


def _name(data: bytes, at: int) -> tuple[str, int]:
    labels, end, hops = [], 0, 0
    while data[at]:
        if data[at] & 0xC0:
            end, at, hops = end or at + 2, (data[at] & 0x3F) << 8 | data[at + 1], hops + 1
            assert hops < 20
            continue
        labels.append(data[at + 1 : at + 1 + data[at]].decode())
        at += 1 + data[at]
    return ".".join(labels), end or at + 1


class Asker:
    """Asks from within the network namespace of a process."""

    def __init__(self, pid: int) -> None:
        self.path = f"/proc/{pid}/ns/net"

    def socket(self, kind: int) -> socket.socket:
        return netns.enter(self.path, lambda: socket.socket(socket.AF_INET, kind))

    def send(self, data: bytes, *, tcp: bool = False, seconds: float = 10.0) -> bytes:
        """The answer to a whole message."""
        with self.socket(socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as asking:
            asking.settimeout(seconds)
            asking.connect((RESOLVER, 53))
            if not tcp:
                asking.send(data)
                return asking.recv(65535)
            asking.sendall(struct.pack(">H", len(data)) + data)
            return read_stream(asking)

    def ask(self, name: str, type: str = "A", *, tcp: bool = False, edns: int = 0, seconds: float = 10.0) -> Reply:
        reply = self.send(query(name, type, edns=edns), tcp=tcp, seconds=seconds)
        assert reply[:2] == b"\x42\x42"
        return decode(reply)


def read_stream(stream: socket.socket) -> bytes:
    head = _exactly(stream, 2)
    return _exactly(stream, struct.unpack(">H", head)[0])


def _exactly(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            raise ConnectionError("the stream ended")
        data += more
    return data


def reply_to(data: bytes, rcode: int = 0, records: tuple[bytes, ...] = (), flags: int = 0x8180) -> bytes:
    """An answer to a query without EDNS: `records` have its type and name."""
    question = data[12:]
    type = question[-4:-2]
    body = b"".join(b"\xc0\x0c" + type + b"\0\1\0\0\0\x3c" + struct.pack(">H", len(r)) + r for r in records)
    return data[:2] + struct.pack(">5H", flags | rcode, 1, len(records), 0, 0) + question + body


class Server:
    """A name server. `answer(query, tcp)` is what it sends, each of several; none: it says nothing."""

    def __init__(
        self, udp: socket.socket, tcp: socket.socket, answer: Callable[[bytes, bool], list[bytes] | bytes | None]
    ) -> None:
        self.queries: list[bytes] = []
        self._answer = answer
        self._sockets = udp, tcp
        self._threads = [threading.Thread(target=serve, daemon=True) for serve in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    def _answers(self, data: bytes, tcp: bool) -> list[bytes]:
        self.queries.append(data)
        found = self._answer(data, tcp)
        return [] if found is None else [found] if isinstance(found, bytes) else found

    def _serve_udp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, peer = self._sockets[0].recvfrom(65535)
                if not data:
                    return
                for answer in self._answers(data, False):
                    self._sockets[0].sendto(answer, peer)

    def _serve_tcp(self) -> None:
        while True:
            try:
                stream, _ = self._sockets[1].accept()
            except OSError:
                return
            with contextlib.suppress(OSError), stream:
                for answer in self._answers(read_stream(stream), True):
                    stream.sendall(struct.pack(">H", len(answer)) + answer)

    def close(self) -> None:
        udp, tcp = self._sockets
        with contextlib.suppress(OSError):
            tcp.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            udp.shutdown(socket.SHUT_RD)
        for thread in self._threads:
            thread.join(5)
        udp.close()
        tcp.close()


@contextlib.contextmanager
def serving(
    address: str,
    answer: Callable[[bytes, bool], list[bytes] | bytes | None],
    *,
    asker: Asker | None = None,
    port: int = 53,
) -> Iterator[Server]:
    """A name server at an address, where `asker` asks from or here."""

    def make(kind: int) -> socket.socket:
        return asker.socket(kind) if asker is not None else socket.socket(socket.AF_INET, kind)

    udp, tcp = make(socket.SOCK_DGRAM), make(socket.SOCK_STREAM)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    udp.bind((address, port))
    tcp.bind((address, udp.getsockname()[1]))
    tcp.listen()
    server = Server(udp, tcp, answer)
    try:
        yield server
    finally:
        server.close()
