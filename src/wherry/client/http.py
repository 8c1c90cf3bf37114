"""HTTP/1.1 as a client needs it against an engine: keep-alive, chunked bodies, upgrade to a raw stream.

Own code because http.client imports the email package, ssl and re: more than the whole of a short command.
"""

from __future__ import annotations

from wherry.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Protocol

    class Socket(Protocol):
        """What this module needs of a socket: `_socket.socket` and `ssl.SSLSocket` both have it."""

        def send(self, data: bytes, /) -> int: ...
        def sendall(self, data: bytes, /) -> None: ...
        def recv(self, size: int, /) -> bytes: ...
        def fileno(self) -> int: ...
        def shutdown(self, how: int, /) -> None: ...
        def close(self) -> None: ...


_READ = 1 << 16
_LINE_LIMIT = 1 << 16


class Connection:
    """One connection; one request at a time, its response read to the end before the next."""

    __slots__ = ("_buffer", "host", "sock", "used")

    def __init__(self, sock: Socket, host: str) -> None:
        self.sock = sock
        self.host = host
        self.used = False
        self._buffer = b""

    def send(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | Iterable[bytes] | None = None,
    ) -> None:
        """Sends one request. An iterable body goes out in chunks."""
        self.used = True
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.host}", "User-Agent: Wherry-Client/0.1 (linux)"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body is None:
            if method == "POST" or method == "PUT":
                lines.append("Content-Length: 0")
        elif isinstance(body, bytes):
            lines.append(f"Content-Length: {len(body)}")
        else:
            lines.append("Transfer-Encoding: chunked")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode()
        if body is None or isinstance(body, bytes):
            self.sock.sendall(head + (body or b""))
            return
        self.sock.sendall(head)
        with _Refusable():
            for chunk in body:
                if chunk:
                    self.sock.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            self.sock.sendall(b"0\r\n\r\n")

    def receive(self, method: str = "GET") -> Response:
        """The head of the response to the request just sent."""
        line = self._line()
        parts = line.split(" ", 2)
        if len(parts) < 2 or not line.startswith("HTTP/1.") or not parts[1].isdigit():
            raise Unavailable(f"the engine at {self.host} does not speak HTTP: it answered {line[:60]!r}")
        status = int(parts[1])
        headers: dict[str, str] = {}
        while line := self._line():
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if 100 <= status < 200 and status != 101:
            return self.receive(method)
        return Response(self, status, headers, method)

    def _line(self) -> str:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _LINE_LIMIT:
                raise Unavailable("the engine's answer has a line that is too long")
            self._buffer += self._more()
        line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
        return line.rstrip(b"\r").decode("latin-1")

    def _more(self) -> bytes:
        data = self.sock.recv(_READ)
        if not data:
            raise Unavailable("the engine closed the connection before it answered in full")
        return data

    def take(self, limit: int) -> bytes:
        """Between 1 and `limit` bytes of the response."""
        if not self._buffer:
            self._buffer = self._more()
        data, self._buffer = self._buffer[:limit], self._buffer[limit:]
        return data

    def remainder(self) -> bytes:
        """What was read beyond what was asked for; belongs to whoever takes the socket over."""
        data, self._buffer = self._buffer, b""
        return data

    def close(self) -> None:
        self.sock.close()


class _Refusable:
    """While a body is sent that the engine may refuse before its end: its answer says why, not a signal."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        import _signal  # type: ignore[import-not-found]  # `signal` would import enum

        self._before = _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        import _signal

        _signal.signal(_signal.SIGPIPE, self._before)
        return isinstance(error, (BrokenPipeError, ConnectionResetError))


class Response:
    """Status and headers (names in lower case); the body is read by exactly one of `read` and `chunks`."""

    __slots__ = ("_method", "connection", "done", "headers", "status")

    def __init__(self, connection: Connection, status: int, headers: dict[str, str], method: str) -> None:
        self.connection = connection
        self.status = status
        self.headers = headers
        self._method = method
        self.done = False

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives; afterwards the connection can carry the next request (unless `reusable` says no)."""
        if self._method == "HEAD" or self.status in (204, 304):
            self.done = True
        elif "chunked" in self.headers.get("transfer-encoding", ""):
            yield from self._chunked()
        elif (length := self.headers.get("content-length")) is not None:
            yield from self._exactly(int(length))
            self.done = True
        else:
            yield from self._until_closed()

    def _exactly(self, left: int) -> Iterator[bytes]:
        while left > 0:
            data = self.connection.take(left)
            left -= len(data)
            yield data

    def _chunked(self) -> Iterator[bytes]:
        line = self.connection._line
        while size := int(line().partition(";")[0], 16):
            yield from self._exactly(size)
            line()
        while line():
            pass
        self.done = True

    def _until_closed(self) -> Iterator[bytes]:
        self.headers["connection"] = "close"
        if rest := self.connection.remainder():
            yield rest
        while data := self.connection.sock.recv(_READ):
            yield data
        self.done = True

    @property
    def reusable(self) -> bool:
        return self.done and self.headers.get("connection", "").lower() != "close"
