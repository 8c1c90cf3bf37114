"""Between this process's standard streams and a hijacked connection: one loop, no threads.

Nothing here may block but poll and the writes to our own standard streams: an engine that waits for us to read,
while we wait for it to take our input, would never go on.
"""

from __future__ import annotations

import posix
from _socket import SHUT_WR
from select import POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, poll

from wherry.errors import Unavailable, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from wherry.client.http import Socket

_READ = 1 << 16
_GONE = POLLHUP | POLLERR | POLLNVAL


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[posix.write(fd, view) :]
        except BlockingIOError:  # somebody made our terminal non-blocking
            waiter = poll()
            waiter.register(fd, POLLOUT)
            waiter.poll()


class Demultiplexer:
    """Splits docker's multiplexed stream: frames of 8 bytes (stream, 0, 0, 0, size as 32 bits) and their data."""

    def __init__(self, targets: dict[int, int]) -> None:
        self._targets = targets
        self._rest = b""
        self._left = 0
        self._stream = 0
        self._complaint = b""

    def feed(self, data: bytes) -> None:
        data = self._rest + data
        self._rest = b""
        while data:
            if not self._left:
                if len(data) < 8:
                    self._rest = data
                    return
                self._stream, self._left = data[0], int.from_bytes(data[4:8], "big")
                data = data[8:]
                continue
            part, data = data[: self._left], data[self._left :]
            self._left -= len(part)
            if self._stream == 3:
                self._complaint += part
                if not self._left:
                    raise WherryError(f"error from daemon in stream: {self._complaint.decode('utf-8', 'replace')}")
            elif (target := self._targets.get(self._stream)) is not None:
                write_all(target, part)
            elif self._stream > 3:
                raise Unavailable(f"Unrecognized input header: {self._stream}")


class DetachKeys:
    """Finds the key sequence that detaches, in what is typed."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._matched = 0
        self.found = False

    def filter(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            if byte == self._sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self._sequence):
                    self.found = True
                    return bytes(out)
                continue
            out += self._sequence[: self._matched]
            self._matched = 0
            if byte == self._sequence[0]:
                self._matched = 1
            else:
                out.append(byte)
        return bytes(out)


class Pump:
    """Moves bytes until the engine closes the stream.

    `stdin`: descriptor to read from, or None. `keys`: with a terminal, the sequence that detaches. `wake`: a
    descriptor (signals) and what to do when it can be read.
    """

    def __init__(
        self,
        sock: Socket,
        early: bytes,
        take: Callable[[bytes], None],
        stdin: int | None = None,
        keys: DetachKeys | None = None,
        wake: tuple[int, Callable[[], None]] | None = None,
    ) -> None:
        self._sock = sock
        self._early = early
        self._take = take
        self._stdin = stdin
        self._keys = keys
        self._wake = wake
        self._pending = b""
        self._secure = hasattr(sock, "cipher")
        self._closing = False
        self._waiter = poll()

    def run(self) -> bool:
        """True when the user detached, False when the stream ended."""
        if self._early:
            self._take(self._early)
        self._sock.setblocking(False)  # type: ignore[attr-defined]
        waiter = self._waiter
        fd = self._sock.fileno()
        waiter.register(fd, POLLIN)
        if self._stdin is not None:
            waiter.register(self._stdin, POLLIN)
        if self._wake:
            waiter.register(self._wake[0], POLLIN)
        while True:
            for ready, events in waiter.poll():
                if ready == fd:
                    if events & POLLOUT:
                        self._flush()
                    if events & (POLLIN | _GONE) and not self._receive():
                        return False
                elif self._wake and ready == self._wake[0]:
                    self._wake[1]()
                elif self._read_stdin():
                    return True
            self._arm(fd)

    def _arm(self, fd: int) -> None:
        self._waiter.modify(fd, POLLIN | POLLOUT if self._pending else POLLIN)
        if self._stdin is not None:
            self._waiter.modify(self._stdin, 0 if self._pending else POLLIN)
        if self._closing and not self._pending:
            self._closing = False
            self._half_close()

    def _receive(self) -> bool:
        while True:
            try:
                data = self._sock.recv(_READ)
            except BlockingIOError:
                return True
            except ConnectionResetError:
                return False
            except OSError as error:
                if type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError"):
                    return True
                if type(error).__name__ in ("SSLZeroReturnError", "SSLEOFError"):
                    return False
                raise
            if not data:
                return False
            self._take(data)
            if not self._secure:
                return True

    def _flush(self) -> None:
        try:
            self._pending = self._pending[self._sock.send(self._pending) :]
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            self._pending = b""  # it no longer reads; what it still has to say comes
            self._drop_stdin()
        except OSError as error:
            if type(error).__name__ not in ("SSLWantReadError", "SSLWantWriteError"):
                raise

    def _read_stdin(self) -> bool:
        if self._stdin is None or self._pending:
            return False
        try:
            data = posix.read(self._stdin, _READ)
        except OSError:
            data = b""
        if not data:
            self._drop_stdin()
            self._closing = True
            return False
        if self._keys is not None:
            data = self._keys.filter(data)
            if self._keys.found:
                return True
        self._pending = data
        self._flush()
        return False

    def _drop_stdin(self) -> None:
        if self._stdin is not None:
            self._waiter.unregister(self._stdin)
        self._stdin = None

    def _half_close(self) -> None:
        """The end of our input; the engine still sends."""
        try:
            if self._secure:
                # On a non-blocking socket this sends close_notify, then says that the peer's has not come.
                self._sock.unwrap()  # type: ignore[attr-defined]
            else:
                self._sock.shutdown(SHUT_WR)
        except OSError:
            pass


def copy_raw(chunks: Iterable[bytes] | Iterator[bytes], fd: int) -> None:
    for chunk in chunks:
        write_all(fd, chunk)
