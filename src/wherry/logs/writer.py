"""The logger process: the other end of every container's standard streams.

Single-threaded, and alone responsible for them, so that neither the daemon's nor the monitor's death loses output.
Serves requests on a SOCK_SEQPACKET socket, one JSON object a message, descriptors beside it:

    {"n": 7, "op": "open", "id": ..., "target": {...}, "streams": ["stdin", "stdout", "stderr"]} + descriptors
    {"n": 7}  or  {"n": 7, "error": {"errno": 25, "message": "..."}}
    {"event": "eof", "id": ...}                                     to every client, when the outputs have ended
"""

import _socket
import errno
import fcntl
import gc
import os
import select
import signal

from wherry.kernel import seqpacket
from wherry.logs.frame import STDERR, STDOUT
from wherry.logs.stream import Poller, Stream
from wherry.logs.target import LogTarget
from wherry.spec.fastjson import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]

_BACKLOG_MESSAGES = 4096


class Client:
    """One connection. Replies it is too slow to take wait here, up to a bound; past it, it is cut off."""

    __slots__ = ("outbox", "socket")

    def __init__(self, socket: _socket.socket) -> None:
        self.socket = socket
        self.outbox: list[tuple[bytes, list[int]]] = []


class LoggerProcess:
    """Every stream by its id, and who asks about them."""

    def __init__(self, listener: _socket.socket) -> None:
        self._poller = Poller()
        self._streams: dict[str, Stream] = {}
        self._drains: dict[str, list[tuple[Client, int]]] = {}
        self._clients: list[Client] = []
        self._listener = listener
        self._poller.add(listener.fileno(), select.EPOLLIN, lambda events: self._accept())

    def serve_forever(self) -> None:
        while True:
            self._poller.run_once()

    def _accept(self) -> None:
        try:
            client = Client(seqpacket.accept(self._listener))
        except (BlockingIOError, PermissionError, ConnectionError):
            return
        self._clients.append(client)
        self._poller.add(client.socket.fileno(), select.EPOLLIN, lambda events: self._on_client(client, events))

    def _on_client(self, client: Client, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush(client)
        if not events & ~select.EPOLLOUT:
            return
        try:
            received = seqpacket.receive(client.socket)
        except BlockingIOError:
            return
        except ConnectionError:
            received = None
        if received is None:
            self._forget(client)
            return
        message: Message = loads(received[0])
        try:
            reply, descriptors = self._handle(client, message, received[1])
        except OSError as error:
            reply, descriptors = {"error": {"errno": error.errno, "message": error.strerror}}, []
        except Exception as error:  # noqa: BLE001  a request's root: one bad request must not end every stream
            reply, descriptors = {"error": {"errno": None, "message": f"{type(error).__name__}: {error}"}}, []
        if reply is not None:
            self._reply(client, {"n": message.get("n"), **reply}, descriptors)

    def _handle(self, client: Client, message: "Message", descriptors: list[int]) -> "tuple[Message | None, list[int]]":
        operation = message["op"]
        if operation == "open":
            self._open(message, descriptors)
            return {}, []
        seqpacket.close(descriptors)
        if operation == "attach":
            return {}, [self._attach(message)]
        if operation == "resize":
            self._known(message["id"]).resize(message["height"], message["width"])
            return {}, []
        if operation == "drain":
            if message["id"] not in self._streams:
                return {}, []
            self._drains.setdefault(message["id"], []).append((client, message["n"]))
            return None, []
        if operation == "close":
            stream = self._streams.get(message["id"])
            if stream is not None:
                stream.close()
            return {}, []
        if operation == "copies":
            return self._known(message["id"]).copies()
        if operation == "streams":
            return {"streams": [name for name, stream in self._streams.items() if stream.opened]}, []
        if operation == "stop":
            raise SystemExit(0)
        raise ValueError(f"no operation {operation!r}")

    def _open(self, message: "Message", descriptors: list[int]) -> None:
        named = dict(zip(message["streams"], descriptors, strict=True))
        target = message["target"]
        stream = self._streams.get(message["id"])
        try:
            if stream is not None and stream.opened:
                raise FileExistsError(errno.EEXIST, f"the streams of {message['id']} are open")
            stream = stream or self._stream(message["id"])
            outputs = [
                (named[name], number) for name, number in (("stdout", STDOUT), ("stderr", STDERR)) if name in named
            ]
            stream.open(
                LogTarget(target["driver"], target["path"], target["options"], target["tty"], target["stdin_once"]),
                named.get("stdin", -1),
                outputs,
                named.get("console", -1),
            )
        except BaseException:
            seqpacket.close(descriptors)
            if stream is not None and not stream.opened:
                self._streams.pop(message["id"], None)
            raise

    def _attach(self, message: "Message") -> int:
        wanted = frozenset(n for n, name in ((STDOUT, "stdout"), (STDERR, "stderr")) if message[name])
        stream = self._streams.get(message["id"]) or self._stream(message["id"])
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        stream.attach(ours, message["stdin"], wanted)
        return theirs.detach()

    def _stream(self, name: str) -> Stream:
        stream = self._streams[name] = Stream(name, self._poller, self._ended)
        return stream

    def _known(self, name: str) -> Stream:
        stream = self._streams.get(name)
        if stream is None:
            raise FileNotFoundError(errno.ENOENT, f"no streams of {name} are open")
        return stream

    def _ended(self, stream: Stream) -> None:
        if self._streams.get(stream.name) is stream:
            del self._streams[stream.name]
        for client, number in self._drains.pop(stream.name, []):
            self._reply(client, {"n": number}, [])
        for client in list(self._clients):
            self._reply(client, {"event": "eof", "id": stream.name}, [])

    def _reply(self, client: Client, message: "Message", descriptors: list[int]) -> None:
        if client not in self._clients:
            seqpacket.close(descriptors)
            return
        client.outbox.append((dumps(message).encode(), descriptors))
        self._flush(client)

    def _flush(self, client: Client) -> None:
        while client.outbox:
            data, descriptors = client.outbox[0]
            try:
                seqpacket.send(client.socket, data, descriptors)
            except BlockingIOError:
                if len(client.outbox) > _BACKLOG_MESSAGES:
                    self._forget(client)
                else:
                    self._poller.change(client.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
                return
            except OSError:
                self._forget(client)
                return
            del client.outbox[0]
            seqpacket.close(descriptors)
        self._poller.change(client.socket.fileno(), select.EPOLLIN)

    def _forget(self, client: Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self._poller.remove(client.socket.fileno())
            client.socket.close()
            for _, descriptors in client.outbox:
                seqpacket.close(descriptors)
            if not self._clients and not self._streams:
                raise SystemExit(0)  # nothing to hold and nobody to serve: the next daemon starts another


def main(socket_path: str) -> None:
    """Go into the background and serve on `socket_path`, which answers when this returns (in the process that called).

    When another logger holds the lock beside the socket there is nothing to do.
    """
    lock = os.open(socket_path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    listener = seqpacket.listen(socket_path)
    child = os.fork()
    if child:
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(child).encode(), 0)
        os._exit(0)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    process = LoggerProcess(listener)
    gc.collect()
    gc.freeze()
    process.serve_forever()
