"""The logger process: the other end of every container's standard streams.

Single-threaded, and alone responsible for them, so that neither the daemon's nor the monitor's death loses output.
Messages as wherry.ipc says:

    "open"    {"id": ..., "target": {...}, "streams": ["stdin", "stdout", "stderr"]}, and their descriptors
    event     ["eof", id]: its outputs have ended
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal imports enum
import _socket
import errno
import gc

from wherry.errors import FailedPrecondition, Internal, NotFound, Unimplemented
from wherry.ipc import background, seqpacket
from wherry.ipc.poller import Poller
from wherry.ipc.server import Server
from wherry.logs.frame import STDERR, STDOUT
from wherry.logs.stream import Stream
from wherry.logs.target import LogTarget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry.ipc.server import Call

    Arguments = dict[str, Any]


class LoggerProcess:
    """Every stream by its id, and who waits for its end."""

    def __init__(self, listener: _socket.socket) -> None:
        self._poller = Poller()
        self._streams: dict[str, Stream] = {}
        self._drains: dict[str, list[Call]] = {}
        self._server = Server(self._poller, listener, self._serve, lambda: not self._streams)

    def serve_forever(self) -> None:
        """The loop."""
        while True:
            self._poller.run_once()

    def _serve(self, call: Call, operation: str, arguments: Arguments, fds: list[int]) -> None:
        if operation != "open":
            seqpacket.close(fds)
        try:
            if operation == "drain" and arguments["id"] in self._streams:
                self._drains.setdefault(arguments["id"], []).append(call)
            else:
                call.answer(*self._answer(operation, arguments, fds))
        except FileNotFoundError as error:
            raise NotFound(error.strerror or str(error)) from error
        except OSError as error:
            if error.errno in (errno.ENOTTY, errno.EEXIST):
                raise FailedPrecondition(error.strerror or str(error)) from error
            raise Internal(f"logger: {error}") from error

    def _answer(self, operation: str, arguments: Arguments, fds: list[int]) -> tuple[Any, list[int]]:
        if operation == "open":
            self._open(arguments, fds)
        elif operation == "attach":
            return None, [self._attach(arguments)]
        elif operation == "resize":
            self._known(arguments["id"]).resize(arguments["height"], arguments["width"])
        elif operation == "close":
            stream = self._streams.get(arguments["id"])
            if stream is not None:
                stream.close()
        elif operation == "delivered":
            if arguments["id"] in self._streams:
                self._streams[arguments["id"]].delivered()
        elif operation == "copies":
            return self._known(arguments["id"]).copies()
        elif operation == "streams":
            return [name for name, stream in self._streams.items() if stream.opened], []
        elif operation == "stop":
            raise SystemExit(0)
        elif operation != "drain":
            raise Unimplemented(f"the logger knows no operation {operation!r}", hint="restart the logger")
        return None, []

    def _open(self, arguments: Arguments, fds: list[int]) -> None:
        named = dict(zip(arguments["streams"], fds, strict=True))
        target = arguments["target"]
        stream = self._streams.get(arguments["id"])
        try:
            if stream is not None and stream.opened:
                raise FileExistsError(errno.EEXIST, f"the streams of {arguments['id']} are open")
            stream = stream or self._stream(arguments["id"])
            outputs = [
                (named[name], number) for name, number in (("stdout", STDOUT), ("stderr", STDERR)) if name in named
            ]
            stream.open(
                LogTarget(**target),
                named.get("stdin", -1),
                outputs,
                named.get("console", -1),
            )
        except BaseException:
            seqpacket.close(fds)
            if stream is not None and not stream.opened:
                self._streams.pop(arguments["id"], None)
            raise

    def _attach(self, arguments: Arguments) -> int:
        wanted = frozenset(n for n, name in ((STDOUT, "stdout"), (STDERR, "stderr")) if arguments[name])
        stream = self._streams.get(arguments["id"]) or self._stream(arguments["id"])
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        stream.attach(ours, arguments["stdin"], wanted)
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
        for call in self._drains.pop(stream.name, []):
            call.answer(None)
        self._server.tell("eof", stream.name)


def main(exec_root: str) -> int:
    """Become the logger of `exec_root`; returns only in the starter, 0 once the socket listens."""
    return background.run(f"{exec_root}/logger.lock", lambda ready: _serve(f"{exec_root}/logger.sock", ready))


def _serve(path: str, ready: Callable[[], None]) -> None:
    _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)
    _signal.signal(_signal.SIGHUP, _signal.SIG_IGN)
    process = LoggerProcess(seqpacket.listen(path))
    gc.collect()
    gc.freeze()
    ready()
    process.serve_forever()
