"""One sandbox as the resolver serves it: its questions in, answers out."""

from __future__ import annotations

import _socket
import os
import time

from wherry.dns import message
from wherry.dns.door import open_door
from wherry.dns.upstream import Source
from wherry.ipc.poller import READABLE, WRITABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wherry.dns.door import Home
    from wherry.dns.message import Question
    from wherry.dns.names import Names
    from wherry.dns.upstream import Upstream
    from wherry.ipc.poller import Poller

# Datagrams of one sandbox in a row, before others get their turn.
_IN_A_ROW = 32
_QUERY_LIMIT = 4096
_KEPT_ANSWERS = 512
_KEPT_QUERY = 300
_CONNECTIONS = 64
_IDLE_SECONDS = 10.0
_OUT_LIMIT = 256 * 1024


class Sandbox:
    """Its sockets and what it is to be told. `answers`: the rest of a query after its id → the rest of the answer, or
    several that take turns; emptied whenever any of them may be another."""

    def __init__(self, id: str, poller: Poller, home: Home, names: Names, upstream: Upstream) -> None:
        self.id = id
        self.answers: dict[bytes, bytes | list[bytes]] = {}
        self._poller = poller
        self._home = home
        self._names = names
        self._upstream = upstream
        self._source = Source("", None)
        self._forward = False
        self._ndots = False
        self._sockets: tuple[_socket.socket, ...] = ()
        self._namespace: tuple[int, int] | None = None
        self._connections: set[Connection] = set()

    def configure(self, record: dict[str, Any]) -> None:
        """Serve its namespace, as the record says. OSError when that cannot be."""
        netns: str = record["netns"]
        found = os.stat(netns)
        namespace = found.st_dev, found.st_ino
        if namespace != self._namespace:
            self.close()
            udp, tcp = self._sockets = self._home.visit(netns, open_door)
            self._namespace = namespace
            self._poller.add(udp.fileno(), READABLE, lambda events: self._on_datagrams(udp))
            self._poller.add(tcp.fileno(), READABLE, lambda events: self._on_connection(tcp))
        servers = None if record["servers"] is None else tuple(record["servers"])
        if (netns, servers) != (self._source.netns, self._source.servers):
            self._upstream.forget(self._source)
            self._source = Source(netns, servers)
        self._forward, self._ndots = record["forward"], record["ndots"]
        self.answers.clear()

    def close(self) -> None:
        """Let go of its namespace."""
        self._upstream.forget(self._source)
        for connection in list(self._connections):
            connection.close()
        sockets, self._sockets = self._sockets, ()
        for socket in sockets:
            self._poller.remove(socket.fileno())
            socket.close()
        self._namespace = None

    def _on_datagrams(self, udp: _socket.socket) -> None:
        answers, receive, send = self.answers, udp.recvfrom, udp.sendto
        for _ in range(_IN_A_ROW):
            try:
                data, peer = receive(_QUERY_LIMIT)
            except OSError:
                return
            kept = answers.get(data[2:])
            if kept is None:
                self._on_query(data, peer, udp)
                continue
            if isinstance(kept, list):
                kept.append(kept.pop(0))
                kept = kept[0]
            try:
                send(data[:2] + kept, peer)
            except OSError:
                pass  # the container's own rules, or a peer that has gone

    def _on_query(self, data: bytes, peer: Any, udp: _socket.socket) -> None:
        def reply(answer: bytes) -> None:
            try:
                udp.sendto(answer, peer)
            except OSError:
                pass

        try:
            question = message.parse(data)
        except message.Malformed as error:
            if error.rcode is not None:
                reply(message.refusal(data, error.rcode))
            return
        records = self._own(question)
        if records is None:
            self._pass_on(data, question, False, peer, reply)
            return
        turns = [message.answer(data, question, message.NO_ERROR, turn, question.size) for turn in _turns(records)]
        reply(data[:2] + turns[0])
        if len(data) <= _KEPT_QUERY:
            if len(self.answers) >= _KEPT_ANSWERS:
                self.answers.clear()
            self.answers[data[2:]] = turns[0] if len(turns) == 1 else turns

    def answer_stream(self, data: bytes, connection: Connection) -> None:
        """A query that came by TCP."""
        question = message.parse(data)
        records = self._own(question)
        if records is None:
            self._pass_on(data, question, True, connection, connection.send)
        else:
            connection.send(data[:2] + message.answer(data, question, message.NO_ERROR, _turns(records)[0]))

    def _pass_on(self, data: bytes, question: Question, tcp: bool, asker: object, reply: Any) -> None:
        if not self._forward:
            reply(message.failure(data, question, message.SERVER_FAILURE))
        elif self._ndots and question.type in (message.A, message.AAAA) and b"." not in question.name:
            # Who sets ndots wants single words to be looked for in the search domains, not at the root of all names.
            reply(data[:2] + message.answer(data, question, message.NO_ERROR))
        else:
            self._upstream.ask(self._source, data, question.end, tcp, asker, reply)

    def _own(self, question: Question) -> list[bytes] | None:
        """The data of records for a name of ours, of the type asked for, perhaps none; None: it is not ours."""
        type = question.type
        if question.cls != message.IN:
            return None
        if type in (message.A, message.AAAA, message.MX):
            found = self._names.find(self.id, question.name)
            if not found:
                return None
            if type == message.MX:
                return []
            addresses = [member.ipv4 if type == message.A else member.ipv6 for member in found]
            return [address for address in addresses if address]
        if type == message.PTR:
            address = message.reverse(question.name)
            name = None if address is None else self._names.name_of(self.id, address)
            return None if name is None else [name]
        return None

    def _on_connection(self, tcp: _socket.socket) -> None:
        for _ in range(_IN_A_ROW):
            try:
                fd, _peer = tcp._accept()  # type: ignore[attr-defined]
            except OSError:
                return
            Connection(fd, self, self._poller, self._connections)


class Connection:
    """One client by TCP: queries with their lengths before them, any number of them."""

    def __init__(self, fd: int, sandbox: Sandbox, poller: Poller, all: set[Connection]) -> None:
        self._socket = _socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._sandbox = sandbox
        self._poller = poller
        self._all = all
        self._received = b""
        self._out = b""
        if len(all) >= _CONNECTIONS:
            self._socket.close()
            return
        all.add(self)
        poller.add(fd, READABLE, self._on_events)
        self._heard = time.monotonic()
        self._timer = poller.call_later(_IDLE_SECONDS, self._check_idle)

    def close(self) -> None:
        """Hang up."""
        if self._socket.fileno() >= 0:
            self._timer.cancel()
            self._poller.remove(self._socket.fileno())
            self._all.discard(self)
            self._socket.close()

    def _check_idle(self) -> None:
        left = self._heard + _IDLE_SECONDS - time.monotonic()
        if left <= 0:
            self.close()
        else:
            self._timer = self._poller.call_later(left, self._check_idle)

    def send(self, answer: bytes) -> None:
        """Send an answer, unless the client has gone or takes none."""
        if self._socket.fileno() < 0:
            return
        idle = not self._out
        self._out += len(answer).to_bytes(2, "big") + answer
        if len(self._out) > _OUT_LIMIT:
            self.close()
        elif idle:
            self._flush()

    def _on_events(self, events: int) -> None:
        if events & WRITABLE:
            self._flush()
        if not events & ~WRITABLE or self._socket.fileno() < 0:
            return
        try:
            data = self._socket.recv(_QUERY_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._heard = time.monotonic()
        self._received += data
        self._answer_all()

    def _answer_all(self) -> None:
        while len(self._received) >= 2:
            length = int.from_bytes(self._received[:2], "big")
            if length > _QUERY_LIMIT:
                self.close()
                return
            if len(self._received) < 2 + length:
                return
            query, self._received = self._received[2 : 2 + length], self._received[2 + length :]
            try:
                self._sandbox.answer_stream(query, self)
            except message.Malformed as error:
                if error.rcode is None:
                    self.close()
                    return
                self.send(message.refusal(query, error.rcode))
            if self._socket.fileno() < 0:
                return

    def _flush(self) -> None:
        try:
            sent = self._socket.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        self._out = self._out[sent:]
        self._poller.change(self._socket.fileno(), READABLE | WRITABLE if self._out else READABLE)


def _turns(records: Sequence[bytes]) -> list[Sequence[bytes]]:
    """Each order in which another one is first."""
    if len(records) < 2:
        return [records]
    start = os.urandom(1)[0] % len(records)
    turned = [*records[start:], *records[:start]]
    return [[*turned[at:], *turned[:at]] for at in range(min(len(turned), 16))]
