"""One request as a handler sees it: its version, its path's name, its query, its body."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import unquote_plus

from aiohttp.web_request import BaseRequest

from wherry.errors import InvalidArgument, WherryError
from wherry.spec.decode import decode

if TYPE_CHECKING:
    from wherry.engine import Engine

T = TypeVar("T")
Version = tuple[int, ...]

JSON_LIMIT = 8 << 20
"""Bytes of JSON accepted in one request."""
_FALSE = frozenset(("", "0", "no", "false", "none"))
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


class SocketKeeper(Protocol):
    """Makes further listening sockets that may do less. Documents are those of `wherry.api.scope.Scope`."""

    async def create(self, document: Any) -> dict[str, Any]:
        """Open one; Conflict when the name is taken, InvalidArgument for what it cannot be."""

    def list(self) -> list[dict[str, Any]]:
        """All."""

    def operations(self) -> Mapping[str, Sequence[str]]:
        """The routes ("METHOD /path") of every operation that can be allowed."""

    def inspect(self, name: str) -> dict[str, Any]:
        """One; NotFound."""

    async def remove(self, name: str) -> None:
        """Close it and end its connections; NotFound."""


class TooLarge(WherryError):
    """The request's body is larger than is accepted (HTTP 413)."""


class Query:
    """A query string, read as Docker reads it."""

    __slots__ = ("_values",)

    def __init__(self, text: str) -> None:
        self._values: dict[str, list[str]] = {}
        if text:
            self._parse(text)

    def _parse(self, text: str) -> None:
        if ";" in text:
            raise InvalidArgument("invalid semicolon separator in query")
        bad = _BAD_ESCAPE.search(text)
        if bad:
            raise InvalidArgument(f'invalid URL escape "{bad[0]}"')
        for part in text.split("&"):
            if part:
                name, _, value = part.partition("=")
                self._values.setdefault(unquote_plus(name), []).append(unquote_plus(value))

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str, default: str = "") -> str:
        """The first value of `name`."""
        values = self._values.get(name)
        return values[0] if values else default

    def all(self, name: str) -> list[str]:
        """Every value of `name`."""
        return self._values.get(name, [])

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean: everything but "", 0, no, false and none is true."""
        values = self._values.get(name)
        return values[0].strip().lower() not in _FALSE if values else default

    def integer(self, name: str) -> int | None:
        """A whole number, None when absent or empty; InvalidArgument for anything else."""
        value = self.get(name)
        if not value:
            return None
        if not _INTEGER.fullmatch(value):
            raise InvalidArgument(f'strconv.Atoi: parsing "{value}": invalid syntax', object=name)
        return int(value)

    def seconds(self, name: str) -> float:
        """A Unix time, "seconds[.fraction]"; 0 when absent."""
        value = self.get(name)
        if not value or value == "0":
            return 0.0
        if not re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", value):
            raise InvalidArgument(f'invalid value for "{name}": "{value}" is not a Unix time', object=name)
        return float(value)

    def edited(self, **values: str | None) -> "Query":
        """The same with these parameters; None: without them."""
        query = Query("")
        query._values = {name: found for name, found in self._values.items() if name not in values}
        query._values |= {name: [value] for name, value in values.items() if value is not None}
        return query

    def filters(self) -> dict[str, list[str]]:
        """The `filters` parameter, in its new form {"name": ["value"]} or its old one {"name": {"value": true}}."""
        text = self.get("filters")
        if not text:
            return {}
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise InvalidArgument("invalid filter") from None
        if not isinstance(found, dict):
            raise InvalidArgument("invalid filter")
        return {name: _filter_values(values) for name, values in found.items()}


def _filter_values(values: Any) -> list[str]:
    if isinstance(values, dict):
        values = [value for value, wanted in values.items() if wanted]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InvalidArgument("invalid filter")
    return values


class Call:
    """A request on its way to its handler."""

    __slots__ = ("_held", "engine", "name", "query", "request", "sees", "sockets", "target", "version")

    def __init__(
        self,
        engine: "Engine",
        request: BaseRequest,
        version: Version,
        name: str,
        query: Query,
        sockets: "SocketKeeper | None" = None,
    ) -> None:
        self.engine = engine
        self.request = request
        self.version = version
        self.name = name
        self.query = query
        self.sockets = sockets
        self.target = ""
        """For gates: the path, its version too, with nothing escaped that need not be."""
        self.sees: Callable[[Mapping[str, Any]], bool] | None = None
        """Which events the caller may see; None: all."""
        self._held: bytes | None = None

    async def document(self, cls: type[T]) -> T:
        """The JSON body as a document."""
        return decode(cls, await self.json())

    async def json(self, *, optional: bool = False) -> Any:
        """The JSON body. With `optional` an empty body is None; else it is an error."""
        body = await self.body()
        self._check_content_type(body)
        if not body:
            if optional:
                return None
            raise InvalidArgument("invalid JSON: got EOF while reading request body")
        return parse_json(body)

    async def body(self) -> bytes:
        """The whole body, of JSON_LIMIT bytes at most; it may be asked for again."""
        if self._held is None:
            self._held = await self._read()
        return self._held

    async def _read(self) -> bytes:
        content = self.request.content
        length = self.request.content_length
        if length is not None and length > JSON_LIMIT:
            raise _too_large()
        if length is None and not self.request.body_exists:
            return b""
        await self.send_continue()
        parts: list[bytes] = []
        total = 0
        while part := await content.readany():
            total += len(part)
            if total > JSON_LIMIT:
                raise _too_large()
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def send_continue(self) -> None:
        """Tell a client that asked first (Expect: 100-continue) to send its body."""
        if self.request.headers.get("Expect", "").lower() == "100-continue":
            transport = self.request.transport
            if transport is not None:
                transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _check_content_type(self, body: bytes) -> None:
        given = self.request.headers.get("Content-Type")
        if given == "application/json" or (given is None and not body):
            return
        kind = media_type(given or "")
        if given is not None and not re.fullmatch(r"[^\s/;]+(/[^\s/;]+)?", kind):
            raise InvalidArgument(f"malformed Content-Type header ({given}): mime: no media type")
        if kind != "application/json":
            raise InvalidArgument(f"unsupported Content-Type header ({given or ''}): must be 'application/json'")


def media_type(content_type: str) -> str:
    """Of a Content-Type header, in lower case and without parameters."""
    return content_type.partition(";")[0].strip().lower()


def _too_large() -> TooLarge:
    return TooLarge(f"request body too large: at most {JSON_LIMIT >> 20} MiB of JSON are accepted")


def parse_json(body: bytes) -> Any:
    """One JSON value and nothing after it."""
    try:
        text = body.decode("utf-8", "replace")
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise _explain(text, error) from None
    except RecursionError:
        raise InvalidArgument("invalid JSON: exceeded max depth") from None
    except ValueError as error:
        raise InvalidArgument(f"invalid JSON: {error}") from None


def _explain(text: str, error: json.JSONDecodeError) -> InvalidArgument:
    if error.msg == "Extra data":
        return InvalidArgument("unexpected content after JSON")
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
        return InvalidArgument("invalid JSON: unexpected EOF")
    return InvalidArgument(f"invalid JSON: {error.msg} at byte {error.pos}")


def _refuse_constant(name: str) -> Any:
    raise InvalidArgument(f"invalid JSON: {name} is not JSON")
