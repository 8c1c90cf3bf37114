"""Questions about names that no container has: passed on to other servers, and their answers back.

Each question goes out from a socket, thus a port, and with an id of its own, and only what answers that very question
to that socket is taken. Servers a container chose are asked from its network namespace, the host's from the host's:
so a resolver that listens on the host's loopback interface serves containers too.
"""

from __future__ import annotations

import _socket
import errno
import os
import time

from wherry.dns import message
from wherry.dns.door import ADDRESS
from wherry.ipc.poller import READABLE, WRITABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wherry.dns.door import Home
    from wherry.ipc.poller import Poller, Timer

    Reply = Callable[[bytes], None]

_PORT = 53
_PATIENCE = 4.0
# With others to ask, a server that says nothing is left to itself earlier; its answer is still taken.
_NEXT_AFTER = 1.5
_SILENT_SECONDS = 30.0
_LOOKUPS = 256
_LOOKUPS_OF_ALL = 2048
_WAITERS = 64
_RESENDS = 2
_PUBLIC = ("8.8.8.8", "8.8.4.4")
_RESOLV_CONF = "/etc/resolv.conf"
_FLAGS = _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
_FAILURES = (message.SERVER_FAILURE, message.REFUSED)


class HostServers:
    """The name servers of the host's resolv.conf, as it is by now."""

    def __init__(self, path: str = _RESOLV_CONF) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._servers: tuple[str, ...] = _PUBLIC

    def servers(self) -> tuple[str, ...]:
        """Their addresses; public ones where there are none."""
        try:
            found = os.stat(self._path)
            seen = (found.st_mtime_ns, found.st_ino)
            if seen != self._seen:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    words = [line.split() for line in file]
                named = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
                self._servers, self._seen = tuple(named) or _PUBLIC, seen
        except OSError:
            return self._servers
        return self._servers


class Source:
    """Whose questions: where they are sent from, and how many are under way."""

    __slots__ = ("lookups", "netns", "servers")

    def __init__(self, netns: str, servers: tuple[str, ...] | None) -> None:
        self.netns = netns
        # None: the host's, asked from the host's namespace.
        self.servers = None if servers is None else tuple(server for server in servers if server != ADDRESS)
        self.lookups: dict[tuple[bytes, bool], Lookup] = {}


class Lookup:
    """One question under way, and everyone who has asked it since."""

    __slots__ = ("end", "key", "open", "resends", "servers", "source", "timer", "waiters")

    def __init__(self, source: Source, key: tuple[bytes, bool], end: int, servers: list[str]) -> None:
        self.source = source
        self.key = key
        self.end = end
        self.servers = servers
        self.waiters: dict[tuple[bytes, object], Reply] = {}
        self.open: list[Attempt] = []
        self.timer: Timer | None = None
        self.resends = _RESENDS


class Attempt:
    """One server asked: the question as it was sent to it, what came back of it so far."""

    __slots__ = ("query", "received", "server", "socket")

    def __init__(self, server: str, query: bytes, socket: _socket.socket) -> None:
        self.server = server
        self.query = query
        self.socket = socket
        self.received = b""


class Upstream:
    """All lookups under way."""

    def __init__(self, poller: Poller, home: Home, host: HostServers, port: int = _PORT) -> None:
        self._poller = poller
        self._port = port
        self._home = home
        self._host = host
        self._count = 0
        self._silent: dict[tuple[str, str], float] = {}

    def ask(self, source: Source, data: bytes, end: int, tcp: bool, asker: object, reply: Reply) -> None:
        """Pass the query `data`, whose question ends at `end`, on. `reply` is called once: an answer, or a refusal.

        `asker` tells a question sent again from another one of the same words.
        """
        key = data[2:], tcp
        lookup = source.lookups.get(key)
        waiter = data[:2], asker
        if lookup is not None:
            # The same question again, be it round a loop of servers that ask each other, is not asked twice.
            if waiter in lookup.waiters:
                self._resend(lookup)
            elif len(lookup.waiters) < _WAITERS:
                lookup.waiters[waiter] = reply
            return
        if len(source.lookups) >= _LOOKUPS or self._count >= _LOOKUPS_OF_ALL:
            reply(_failed(data, end, message.REFUSED))
            return
        lookup = Lookup(source, key, end, self._servers(source))
        lookup.waiters[waiter] = reply
        source.lookups[key] = lookup
        self._count += 1
        self._next(lookup)

    def forget(self, source: Source) -> None:
        """Nobody waits for its answers any longer."""
        for lookup in list(source.lookups.values()):
            self._end(lookup)

    def _servers(self, source: Source) -> list[str]:
        chosen = self._host.servers() if source.servers is None else source.servers
        now = time.monotonic()
        place = "" if source.servers is None else source.netns
        # One that did not answer lately is asked last.
        return sorted(chosen, key=lambda server: self._silent.get((place, server), 0.0) > now)

    def _next(self, lookup: Lookup) -> None:
        """Ask the next server that can be asked; without any, the last word is with those still asked."""
        if lookup.timer is not None:
            lookup.timer.cancel()
        while lookup.servers:
            server = lookup.servers.pop(0)
            try:
                lookup.open.append(self._begin(lookup, server))
            except (OSError, ValueError):
                continue
            wait = _NEXT_AFTER if lookup.servers else _PATIENCE
            lookup.timer = self._poller.call_later(wait, lambda: self._late(lookup))
            return
        if not lookup.open:
            self._finish(lookup, None)
        else:
            lookup.timer = self._poller.call_later(_PATIENCE - _NEXT_AFTER, lambda: self._late(lookup))

    def _late(self, lookup: Lookup) -> None:
        source = lookup.source
        place = "" if source.servers is None else source.netns
        if len(self._silent) > _LOOKUPS_OF_ALL:
            self._silent.clear()
        for attempt in lookup.open:
            self._silent[place, attempt.server] = time.monotonic() + _SILENT_SECONDS
        if lookup.servers:
            self._next(lookup)
        else:
            self._finish(lookup, None)

    def _begin(self, lookup: Lookup, server: str) -> Attempt:
        tail, tcp = lookup.key
        query = os.urandom(2) + tail

        def connect() -> _socket.socket:
            return _connect(server, self._port, tcp)

        source = lookup.source
        socket = connect() if source.servers is None else self._home.visit(source.netns, connect)
        attempt = Attempt(server, query, socket)
        try:
            if not tcp:
                socket.send(query)
            read = self._on_stream if tcp else self._on_datagram
            self._poller.add(
                socket.fileno(), WRITABLE if tcp else READABLE, lambda events: read(lookup, attempt, events)
            )
        except BaseException:
            socket.close()
            raise
        return attempt

    def _resend(self, lookup: Lookup) -> None:
        if lookup.key[1] or not lookup.resends:
            return
        lookup.resends -= 1
        for attempt in lookup.open:
            try:
                attempt.socket.send(attempt.query)
            except OSError:
                pass  # its reader hears of it

    def _on_datagram(self, lookup: Lookup, attempt: Attempt, events: int) -> None:
        try:
            reply = attempt.socket.recv(0xFFFF)
        except BlockingIOError:
            return
        except OSError:
            self._close(lookup, attempt)
            if not lookup.open:
                self._next(lookup)
            return
        self._take(lookup, attempt, reply)

    def _on_stream(self, lookup: Lookup, attempt: Attempt, events: int) -> None:
        socket = attempt.socket
        try:
            if events & WRITABLE:
                # Shorter than any socket's buffer: it is taken whole or the connection has failed.
                socket.send(len(attempt.query).to_bytes(2, "big") + attempt.query)
                self._poller.change(socket.fileno(), READABLE)
                return
            data = socket.recv(0xFFFF + 2)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        attempt.received += data
        whole = int.from_bytes(attempt.received[:2], "big") + 2
        if data and (len(attempt.received) < 2 or len(attempt.received) < whole):
            return
        if not data:
            self._close(lookup, attempt)
            if not lookup.open:
                self._next(lookup)
            return
        self._take(lookup, attempt, attempt.received[2:whole])

    def _take(self, lookup: Lookup, attempt: Attempt, reply: bytes) -> None:
        if not message.is_answer(reply, attempt.query, lookup.end):
            return  # of somebody who guesses; the real one may still come
        if message.rcode(reply) in _FAILURES:
            self._close(lookup, attempt)
            if lookup.servers or not lookup.open:
                self._next(lookup)
            return
        self._finish(lookup, reply)

    def _finish(self, lookup: Lookup, reply: bytes | None) -> None:
        waiters = dict(lookup.waiters)
        self._end(lookup)
        for (id, _), answer in waiters.items():
            if reply is not None:
                answer(id + reply[2:])
            else:
                answer(_failed(id + lookup.key[0], lookup.end, message.SERVER_FAILURE))

    def _end(self, lookup: Lookup) -> None:
        for attempt in list(lookup.open):
            self._close(lookup, attempt)
        if lookup.timer is not None:
            lookup.timer.cancel()
        if lookup.source.lookups.pop(lookup.key, None) is not None:
            self._count -= 1

    def _close(self, lookup: Lookup, attempt: Attempt) -> None:
        lookup.open.remove(attempt)
        self._poller.remove(attempt.socket.fileno())
        attempt.socket.close()


def _connect(server: str, port: int, tcp: bool) -> _socket.socket:
    """A socket connected, or about to be, in the namespace this runs in."""
    address, _, scope = server.partition("%")
    kind = _socket.SOCK_STREAM if tcp else _socket.SOCK_DGRAM
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    socket = _socket.socket(family, kind | _FLAGS)
    try:
        if family == _socket.AF_INET6:
            _socket.inet_pton(family, address)
            socket.connect((address, port, 0, _socket.if_nametoindex(scope) if scope else 0))
        else:
            _socket.inet_aton(address)
            socket.connect((address, port))
    except BlockingIOError:
        pass
    except OSError as error:
        if error.errno != errno.EINPROGRESS:
            socket.close()
            raise
    return socket


def _failed(data: bytes, end: int, rcode: int) -> bytes:
    """What a query is answered with when nobody answers it."""
    flags = 0x8000 | int.from_bytes(data[2:4], "big") & 0x0110 | rcode
    return data[:2] + flags.to_bytes(2, "big") + b"\0\1\0\0\0\0\0\0" + data[12:end]
