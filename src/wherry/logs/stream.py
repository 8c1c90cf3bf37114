"""One container's standard streams inside the logger: read, written to the log, copied to whoever is attached."""

import _socket
import errno
import fcntl
import os
import select
import struct
import termios

from wherry.logs.frame import STDERR, STDOUT, frame
from wherry.logs.jsonfile import JSONFile
from wherry.logs.lines import cut, has_long_line
from wherry.logs.pages import PagedLog
from wherry.logs.target import LogTarget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wherry.ipc.poller import Poller

_CHUNK = 64 * 1024
# What the pipe of a container that fills it may grow to: each look at it then brings more.
_LARGE_CHUNK = 256 * 1024
# What an attached client may lag behind before the container is made to wait for it.
_SUBSCRIBER_LAG = 1 << 20
_NAMES = {STDOUT: "stdout", STDERR: "stderr"}
_F_SETPIPE_SZ = 1031
_WOULD_BLOCK = (errno.EAGAIN, errno.EINTR)


class Output:
    """One output of a container: what has been read of a line that has no end yet."""

    __slots__ = ("chunk", "fd", "full", "number", "partial", "watched")

    def __init__(self, fd: int, number: int) -> None:
        self.fd = fd
        self.number = number
        self.chunk = _CHUNK
        self.full = 0
        self.partial = b""
        self.watched = False

    def grow(self) -> None:
        """It was full when it was read: if that happens again, let it hold more."""
        self.full += 1
        if self.full > 2 and self.chunk < _LARGE_CHUNK:
            try:
                self.chunk = fcntl.fcntl(self.fd, _F_SETPIPE_SZ, _LARGE_CHUNK)
            except OSError:
                self.full = -(1 << 30)  # a terminal, or more than this user's share (pipe-user-pages-soft)


class Subscriber:
    """An attached client: our end of a stream socket whose other end the engine has."""

    __slots__ = ("ended", "pending", "reading", "socket", "stdin", "wanted")

    def __init__(self, socket: _socket.socket, stdin: bool, wanted: frozenset[int]) -> None:
        self.socket = socket
        self.stdin = stdin
        self.wanted = wanted
        self.pending = bytearray()
        self.reading = False
        self.ended = False


class Stream:
    """Streams of one container, from `attach` or `open`, whichever comes first, until every output has ended."""

    def __init__(self, name: str, poller: "Poller", on_eof: "Callable[[Stream], None]") -> None:
        self.name = name
        self.opened = False
        self._poller = poller
        self._on_eof = on_eof
        self._subscribers: list[Subscriber] = []
        self._outputs: list[Output] = []
        self._stdin = -1
        self._stdin_pending = b""
        self._console = -1
        self._log: JSONFile | PagedLog | None = None
        self._waits = False
        self._tty = False
        self._stdin_once = False
        self._stdin_once_ended = False

    def open(self, target: LogTarget, stdin: int, outputs: "list[tuple[int, int]]", console: int) -> None:
        """Take over the descriptors and start reading. `outputs`: (descriptor, stream number)."""
        if target.driver == "json-file":
            self._log = JSONFile(target.path, target.rotation(), target.attributes)
        elif target.driver != "none":
            waits = target.options.get("mode") != "non-blocking"
            cursor = target.cursor if waits else ""
            self._log = PagedLog(target.path, target.rotation(), target.attributes, cursor)
        self._tty = target.tty
        self._stdin_once = target.stdin_once
        self._console = console
        if console >= 0:
            stdin = os.dup(console)  # a descriptor of its own: epoll holds one registration for each
            outputs = [(console, STDOUT)]
        self._stdin = stdin
        if stdin >= 0:
            os.set_blocking(stdin, False)
        for fd, number in outputs:
            os.set_blocking(fd, False)
            self._outputs.append(Output(fd, number))
        self.opened = True
        self._watch_outputs(True)
        for subscriber in self._subscribers:
            self._watch(subscriber)
        if not self._outputs:
            self.close()

    def attach(self, socket: _socket.socket, stdin: bool, wanted: frozenset[int]) -> None:
        """Copy to and from `socket`, which becomes ours, from now on."""
        socket.setblocking(False)
        subscriber = Subscriber(socket, stdin, wanted)
        self._subscribers.append(subscriber)
        self._poller.add(socket.fileno(), 0, lambda events: self._on_subscriber(subscriber, events))
        subscriber.reading = True
        if self.opened:
            self._watch(subscriber)

    def resize(self, height: int, width: int) -> None:
        """Set the terminal's size; OSError ENOTTY when there is none."""
        if self._console < 0:
            raise OSError(errno.ENOTTY, "the container has no terminal")
        fcntl.ioctl(self._console, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def copies(self) -> "tuple[list[str], list[int]]":
        """The descriptors that another logger would need, and their names. Input that ends with a client is not one."""
        if self._console >= 0:
            found = {"console": self._console}
        else:
            found = {_NAMES[output.number]: output.fd for output in self._outputs}
            if self._stdin >= 0 and not self._stdin_once:
                found["stdin"] = self._stdin
        return list(found), [os.dup(fd) for fd in found.values()]

    def close(self) -> None:
        """End: write what is left, let every client have what it is owed, release everything, say so."""
        for output in list(self._outputs):
            self._end_output(output)
        self._close_stdin()
        if self._log is not None:
            self._log.close()
        for subscriber in list(self._subscribers):
            subscriber.ended = True
            if not subscriber.pending:
                self._drop(subscriber)
            else:
                self._watch(subscriber)
        self._on_eof(self)

    # Outputs

    def _watch_outputs(self, wanted: bool) -> None:
        for output in self._outputs:
            if wanted and not output.watched:
                self._poller.add(output.fd, select.EPOLLIN, lambda events, output=output: self._on_output(output))  # type: ignore[misc]
            elif output.watched and not wanted:
                self._poller.remove(output.fd)
            output.watched = wanted

    def _on_output(self, output: Output) -> None:
        try:
            data = os.read(output.fd, output.chunk)
        except OSError as error:
            if error.errno in _WOULD_BLOCK:
                return
            data = b""  # EIO: the last process has closed the terminal
        if not data:
            self._end_output(output)
            if not self._outputs:
                self.close()
            return
        if len(data) == output.chunk:
            output.grow()
        if self._log is not None:
            self._record(self._log, output, data)
        for subscriber in list(self._subscribers):
            if output.number in subscriber.wanted:
                self._send(subscriber, data if self._tty else frame(output.number, data))

    def _record(self, log: JSONFile | PagedLog, output: Output, data: bytes) -> None:
        if output.partial:
            data = output.partial + data
        end = data.rfind(b"\n") + 1
        whole = data if end == len(data) else data[:end]
        rest = data[end:]
        if has_long_line(whole):
            for piece in cut(whole):
                log.write(output.number, piece)
        elif whole:
            log.write(output.number, whole)
        if has_long_line(rest):
            *pieces, rest = cut(rest)
            for piece in pieces:
                log.write(output.number, piece)
        output.partial = rest
        if not log.ready():
            self._waits = True
            self._watch_outputs(False)

    def delivered(self) -> None:
        """What was written before has been taken elsewhere: there may be room again."""
        if self._waits and self._log is not None and self._log.ready():
            self._waits = False
            self._resume_outputs()

    def _end_output(self, output: Output) -> None:
        self._poller.remove(output.fd)
        os.close(output.fd)
        self._outputs.remove(output)
        if self._log is not None and output.partial:
            self._log.write(output.number, output.partial)
        if output.fd == self._console:
            self._console = -1

    # Attached clients

    def _send(self, subscriber: Subscriber, data: bytes) -> None:
        if not subscriber.pending:
            try:
                sent = subscriber.socket.send(data)
            except OSError as error:
                if error.errno not in _WOULD_BLOCK:
                    self._drop(subscriber)
                    return
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        subscriber.pending += data
        self._watch(subscriber)
        if len(subscriber.pending) > _SUBSCRIBER_LAG:
            self._watch_outputs(False)

    def _on_subscriber(self, subscriber: Subscriber, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush(subscriber)
        if events & select.EPOLLIN:
            self._take_input(subscriber)
        elif events & (select.EPOLLHUP | select.EPOLLERR):
            self._drop(subscriber)
            if subscriber.stdin:
                self._input_ended()

    def _flush(self, subscriber: Subscriber) -> None:
        try:
            sent = subscriber.socket.send(subscriber.pending)
        except OSError as error:
            if error.errno not in _WOULD_BLOCK:
                self._drop(subscriber)
            return
        del subscriber.pending[:sent]
        if subscriber.pending:
            return
        if subscriber.ended:
            self._drop(subscriber)
        else:
            self._watch(subscriber)
            self._resume_outputs()

    def _watch(self, subscriber: Subscriber) -> None:
        events = select.EPOLLOUT if subscriber.pending else 0
        # Input waits in the socket until there is somewhere to put it.
        if subscriber.reading and self.opened and not self._stdin_pending and not subscriber.ended:
            events |= select.EPOLLIN
        self._poller.change(subscriber.socket.fileno(), events)

    def _drop(self, subscriber: Subscriber) -> None:
        if subscriber in self._subscribers:
            self._subscribers.remove(subscriber)
            self._poller.remove(subscriber.socket.fileno())
            subscriber.socket.close()
            self._resume_outputs()

    def _resume_outputs(self) -> None:
        if not self._waits and all(len(subscriber.pending) <= _SUBSCRIBER_LAG for subscriber in self._subscribers):
            self._watch_outputs(True)

    # Input

    def _take_input(self, subscriber: Subscriber) -> None:
        try:
            data = subscriber.socket.recv(_CHUNK)
        except OSError as error:
            if error.errno in _WOULD_BLOCK:
                return
            self._drop(subscriber)
            data = b""
        if not data:
            subscriber.reading = False
            if subscriber in self._subscribers:
                self._watch(subscriber)
            if subscriber.stdin:
                self._input_ended()
        elif subscriber.stdin and self._stdin >= 0:
            self._write_stdin(data)

    def _input_ended(self) -> None:
        if self._stdin_once and not self._tty and not self._stdin_pending:
            self._close_stdin()
        elif self._stdin_once and not self._tty:
            self._stdin_once_ended = True

    def _write_stdin(self, data: bytes) -> None:
        try:
            written = os.write(self._stdin, data)
        except OSError as error:
            if error.errno not in _WOULD_BLOCK:
                self._close_stdin()
                return
            written = 0
        if written == len(data):
            return
        self._stdin_pending = data[written:]
        self._poller.add(self._stdin, select.EPOLLOUT, lambda events: self._flush_stdin())
        self._watch_subscribers()

    def _flush_stdin(self) -> None:
        try:
            written = os.write(self._stdin, self._stdin_pending)
        except OSError as error:
            if error.errno in _WOULD_BLOCK:
                return
            self._close_stdin()
            return
        self._stdin_pending = self._stdin_pending[written:]
        if self._stdin_pending:
            return
        self._poller.remove(self._stdin)
        if self._stdin_once_ended:
            self._close_stdin()
        self._watch_subscribers()

    def _watch_subscribers(self) -> None:
        for subscriber in self._subscribers:
            self._watch(subscriber)

    def _close_stdin(self) -> None:
        if self._stdin >= 0:
            self._poller.remove(self._stdin)
            os.close(self._stdin)
            self._stdin = -1
            self._stdin_pending = b""
