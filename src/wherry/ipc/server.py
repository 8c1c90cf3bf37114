"""The side that is asked: requests in, answers and events out, in one thread over a Poller."""

from __future__ import annotations

import os
import sys

from wherry.errors import InvalidArgument, WherryError
from wherry.ipc import seqpacket
from wherry.ipc.poller import READABLE, WRITABLE
from wherry.spec import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Sequence
    from typing import Any

    from wherry.ipc.poller import Poller

    Serve = Callable[["Call", str, dict[str, Any], list[int]], None]

_OUTBOX_LIMIT = 10_000


class Client:
    """One connection. What it is too slow to take waits, up to a bound; past that it is cut off."""

    __slots__ = ("blocked", "outbox", "socket")

    def __init__(self, socket: _socket.socket) -> None:
        self.socket = socket
        self.outbox: list[tuple[bytes, Sequence[int]]] = []
        self.blocked = False


class Call:
    """A request, to be answered once: at once or later. Its client may have gone by then."""

    __slots__ = ("_client", "_sequence", "_server")

    def __init__(self, server: Server, client: Client, sequence: Any) -> None:
        self._server = server
        self._client = client
        self._sequence = sequence

    def answer(self, value: Any, fds: Sequence[int] = ()) -> None:
        """Send a JSON value and descriptors, which are closed here once they are on their way."""
        self._server._post(self._client, _encode({"seq": self._sequence, "ok": value}), fds)

    def fail(self, error: Exception) -> None:
        """Send an error. One that is no WherryError is a fault of ours: its trace goes to stderr."""
        if isinstance(error, WherryError):
            described = [type(error).__name__, error.message, error.hint]
        else:
            sys.excepthook(type(error), error, error.__traceback__)
            described = ["Internal", f"a fault of ours: {error!r}", None]
        self._server._post(self._client, _encode({"seq": self._sequence, "error": described}), ())


class Server:
    """Every client of a listening socket.

    `serve(call, operation, arguments, fds)` owns the descriptors; what it raises is the answer. When the last client
    leaves, someone has asked for more than a ping, and `is_idle()`, SystemExit ends the process: who needs it again
    starts another.
    """

    def __init__(self, poller: Poller, listener: _socket.socket, serve: Serve, is_idle: Callable[[], bool]) -> None:
        self._poller = poller
        self._listener = listener
        self._serve = serve
        self._is_idle = is_idle
        self._clients: dict[int, Client] = {}
        self._used = False
        poller.add(listener.fileno(), READABLE, lambda events: self._accept())

    def tell(self, name: str, *values: Any) -> None:
        """Send an event to every client."""
        message = _encode({"event": [name, *values]})
        for client in list(self._clients.values()):
            self._post(client, message, ())

    def leave_when_idle(self) -> None:
        """End the process when there is neither work nor a client; for who becomes idle without one leaving."""
        if self._used and not self._clients and self._is_idle():
            self._accept()  # a next one may be at the door
            if not self._clients:
                raise SystemExit(0)

    def _accept(self) -> None:
        try:
            client = Client(seqpacket.accept(self._listener))
        except OSError:
            return
        fd = client.socket.fileno()
        self._clients[fd] = client
        self._poller.add(fd, READABLE, lambda events: self._on_client(client, events))

    def _on_client(self, client: Client, events: int) -> None:
        if events & WRITABLE:
            self._flush(client)
        if not events & ~WRITABLE or client.socket.fileno() < 0:
            return
        try:
            received = seqpacket.receive(client.socket)
        except BlockingIOError:
            return
        except OSError:
            received = None
        if received is None:
            self._drop(client)
        else:
            self._begin(client, *received)

    def _begin(self, client: Client, data: bytes, fds: list[int]) -> None:
        call = Call(self, client, None)
        try:
            message = fastjson.loads(data)
            call = Call(self, client, message["seq"])
            operation, arguments = message["op"], message.get("args") or {}
            if not isinstance(operation, str) or not isinstance(arguments, dict):
                raise TypeError("op is a string, args is an object")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            seqpacket.close(fds)
            call.fail(InvalidArgument(f"malformed request: {error!r}"))
            return
        if operation == "ping":
            seqpacket.close(fds)
            call.answer(os.getpid())
            return
        self._used = True
        try:
            self._serve(call, operation, arguments, fds)
        except Exception as error:  # noqa: BLE001 - the root of a request: one must not end what all others depend on
            call.fail(error)

    def _post(self, client: Client, message: bytes, fds: Sequence[int]) -> None:
        if client.socket.fileno() < 0:
            seqpacket.close(fds)
            return
        client.outbox.append((message, fds))
        if len(client.outbox) > _OUTBOX_LIMIT:
            self._drop(client)
        elif not client.blocked:
            self._flush(client)

    def _flush(self, client: Client) -> None:
        while client.outbox:
            message, fds = client.outbox[0]
            try:
                seqpacket.send(client.socket, message, fds)
            except BlockingIOError:
                self._block(client, True)
                return
            except OSError:
                self._drop(client)
                return
            client.outbox.pop(0)
            seqpacket.close(fds)
        self._block(client, False)

    def _block(self, client: Client, blocked: bool) -> None:
        if client.blocked != blocked:
            client.blocked = blocked
            self._poller.change(client.socket.fileno(), READABLE | WRITABLE if blocked else READABLE)

    def _drop(self, client: Client) -> None:
        fd = client.socket.fileno()
        if fd < 0:
            return
        self._poller.remove(fd)
        del self._clients[fd]
        for _, fds in client.outbox:
            seqpacket.close(fds)
        client.outbox.clear()
        client.socket.close()
        self.leave_when_idle()


def _encode(message: dict[str, Any]) -> bytes:
    return fastjson.dumps(message).encode()
