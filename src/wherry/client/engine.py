"""A small synchronous client of the Docker Engine API.

    engine = EngineClient(Endpoint("unix:///var/run/docker.sock"))
    for container in engine.get("/containers/json", [("all", "1")]): ...

Version: requests go out at once at the newest version spoken here. An engine that is older refuses with 400 and
names its own version in the header Api-Version; it has changed nothing, so the request is sent again at that
version. A round trip is thereby spent on old engines only. Where a body is streamed, or nothing was answered yet
and the connection is to be hijacked, `settle` asks first.
"""

from __future__ import annotations

from wherry import errors
from wherry.client import codec
from wherry.client.http import Connection, Response

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from wherry.client.dial import Endpoint
    from wherry.client.http import Socket

    Query = Iterable[tuple[str, str]]

NEWEST = "1.50"
_OLDEST = "1.24"
_MSG_PEEK_DONTWAIT = 0x42
_KINDS: dict[int, type[errors.WherryError]] = {
    400: errors.InvalidArgument,
    401: errors.Unauthenticated,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    409: errors.Conflict,
    501: errors.Unimplemented,
    503: errors.Unavailable,
}
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")
_PATH_SAFE = _SAFE | frozenset(b"/:@")


def quote(text: str, safe: frozenset[int] = _SAFE) -> str:
    data = text.encode("utf-8", "surrogateescape")
    return "".join([chr(byte) if byte in safe else f"%{byte:02X}" for byte in data])


def segment(text: str) -> str:
    """A name as one part of a path. Slashes stay: names of images have them."""
    return quote(text, _PATH_SAFE)


def version_tuple(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


class Pending:
    """A request that is on its way; `response` waits for the head of its answer."""

    __slots__ = ("_client", "_connection", "_request", "_version")

    def __init__(self, client: EngineClient, connection: Connection, request: tuple[Any, ...]) -> None:
        self._client = client
        self._connection = connection
        self._request = request
        self._version = client.version

    def response(self) -> Response:
        """Raises the error that the engine answered."""
        method, path, query, headers, body = self._request
        response = self._connection.receive(method)
        self._client.note(response)
        if response.status == 400 and self._version != self._client.version:
            response.read()
            self._client.recycle(response)
            return self._client.send(method, path, query, headers, body).response()
        if response.status >= 400:
            raise self._client.failure(response)
        return response

    def value(self) -> Any:
        """The JSON document of the answer, or None."""
        return self._client.finish(self.response())


class EngineClient:
    """One engine. Not for use by several threads at once."""

    def __init__(self, endpoint: Endpoint, version: str = "", headers: Query = ()) -> None:
        self.endpoint = endpoint
        self.version = version.removeprefix("v") or NEWEST
        self._settled = bool(version)
        self._headers = list(headers)
        self._idle: list[Connection] = []
        self.server: dict[str, str] = {}

    def close(self) -> None:
        """Closes idle connections; those of unfinished streams belong to whoever reads them."""
        while self._idle:
            self._idle.pop().close()

    def __enter__(self) -> EngineClient:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def at_least(self, version: str) -> bool:
        return version_tuple(self.version) >= version_tuple(version)

    # -- requests that are answered by a document

    def get(self, path: str, query: Query = ()) -> Any:
        return self.send("GET", path, query).value()

    def post(self, path: str, query: Query = (), body: object = None, headers: Query = ()) -> Any:
        return self.send("POST", path, query, headers, body).value()

    def delete(self, path: str, query: Query = ()) -> Any:
        return self.send("DELETE", path, query).value()

    # -- requests that are answered by a stream

    def open(self, method: str, path: str, query: Query = (), body: object = None, headers: Query = ()) -> Response:
        return self.send(method, path, query, headers, body).response()

    def messages(
        self, method: str, path: str, query: Query = (), body: object = None, headers: Query = ()
    ) -> Iterator[Any]:
        """The documents of an answer that is a stream of JSON texts."""
        response = self.open(method, path, query, body, headers)
        yield from codec.stream(response.chunks())
        self.recycle(response)

    def hijack(self, path: str, query: Query = (), body: object = None) -> tuple[Socket, bytes]:
        """The raw stream behind a POST, and what of it was read already."""
        self.settle()
        upgrade = [("Connection", "Upgrade"), ("Upgrade", "tcp")]
        response = self.send("POST", path, query, upgrade, body).response()
        if response.status not in (101, 200):
            raise errors.Unavailable(f"unable to upgrade to tcp, received {response.status}")
        return response.connection.sock, response.connection.remainder()

    # -- how

    def settle(self) -> None:
        """Makes sure that `version` is one that the engine knows."""
        if not self._settled:
            connection = self._connection()
            connection.send("GET", "/_ping")
            response = connection.receive()
            self._agree(response.headers.get("api-version", _OLDEST))
            self.server = response.headers
            response.read()
            self.recycle(response)

    def send(self, method: str, path: str, query: Query = (), headers: Query = (), body: object = None) -> Pending:
        """Sends a request. `body`: None, bytes, an iterator of bytes (streamed), or a document for JSON."""
        lines = [*self._headers, *headers]
        if body is not None and not isinstance(body, bytes) and not hasattr(body, "__next__"):
            body = codec.dumps(body).encode("utf-8", "surrogateescape")
            lines.append(("Content-Type", "application/json"))
        if hasattr(body, "__next__"):
            self.settle()
        query = list(query)
        text = "&".join([f"{quote(name)}={quote(value)}" for name, value in query])
        target = f"/v{self.version}{path}{'?' if text else ''}{text}"
        connection = self._connection()
        try:
            connection.send(method, target, lines, body)  # type: ignore[arg-type]
        except (BrokenPipeError, ConnectionResetError):
            # The engine refused a body before its end: what it said is still to be read.
            if not hasattr(body, "__next__"):
                raise errors.Unavailable(f"the engine at {self.endpoint.host} closed the connection") from None
        return Pending(self, connection, (method, path, query, headers, body))

    def finish(self, response: Response) -> Any:
        data = response.read()
        self.recycle(response)
        if not data.strip():
            return None
        if "json" in response.headers.get("content-type", "json"):
            return codec.loads(data)
        return data.decode("utf-8", "replace")

    def recycle(self, response: Response) -> None:
        if response.reusable:
            self._idle.append(response.connection)
        else:
            response.connection.close()

    def note(self, response: Response) -> None:
        """Learns the engine's version from an answer."""
        self.server = response.headers
        known = response.headers.get("api-version", "")
        if not self._settled and known:
            self._agree(known)

    def failure(self, response: Response) -> errors.WherryError:
        data = response.read()
        self.recycle(response)
        message = data.decode("utf-8", "replace").strip()
        if "json" in response.headers.get("content-type", ""):
            try:
                message = str(codec.loads(data).get("message", message))
            except (ValueError, AttributeError):
                pass
        if not message:
            message = f"the engine answered {response.status}; does it know this route at API version {self.version}?"
        return _KINDS.get(response.status, errors.Internal)(f"Error response from daemon: {message}")

    def _agree(self, known: str) -> None:
        self._settled = True
        if version_tuple(known) < version_tuple(self.version):
            self.version = known

    def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if _alive(connection.sock):
                return connection
            connection.close()
        return Connection(self.endpoint.connect(), self.endpoint.http_host)


def _alive(sock: Socket) -> bool:
    """Between two answers a connection has nothing to read; if it has, the engine closed it."""
    if not hasattr(sock, "detach") or hasattr(sock, "cipher"):
        return False  # TLS: a peek cannot see through it; a new connection is always right
    try:
        sock.recv(1, _MSG_PEEK_DONTWAIT)  # type: ignore[call-arg]
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
