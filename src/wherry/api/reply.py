"""Answers, written straight to the transport.

aiohttp's own response classes cost more than the rest of a request together (header multidicts, cookies, compression,
payload registry); none of it is used here. An answer only has to offer what `RequestHandler.finish_response` asks of
one: `prepare`, `write_eof` and `keep_alive`.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from aiohttp.web_request import BaseRequest

from wherry import __version__

MAXIMUM_VERSION = "1.56"
MINIMUM_VERSION = "1.24"
JSON = "application/json"

COMMON_HEADERS = {
    "Api-Version": MAXIMUM_VERSION,
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": f"Wherry/{__version__} (linux)",
}
_COMMON = "".join(f"{name}: {value}\r\n" for name, value in COMMON_HEADERS.items())
_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n{_COMMON}Date: " for s in HTTPStatus}
_dump = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_DRAIN_ABOVE = 64 << 10


def dump_json(value: Any) -> bytes:
    """`value` as compact JSON and a newline, as Go's encoder ends every document."""
    return (_dump(value) + "\n").encode("utf-8", "replace")


class Reply:
    """A whole answer: status, body, headers."""

    __slots__ = ("body", "content_type", "headers", "keep_alive", "status")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        content_type: str = JSON,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers
        self.keep_alive = True

    async def prepare(self, request: BaseRequest) -> None:
        """Write it."""
        self.keep_alive = request.keep_alive
        headers = dict(self.headers) if self.headers else {}
        if self.status not in (204, 304):
            headers["Content-Length"] = str(len(self.body))
            if self.body:
                headers.setdefault("Content-Type", self.content_type)
        if not self.keep_alive:
            headers["Connection"] = "close"
        head = head_bytes(self.status, headers)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        transport.write(head if request.method == "HEAD" else head + self.body)
        if len(self.body) > _DRAIN_ABOVE:
            await request.protocol._drain_helper()

    async def write_eof(self) -> None:
        """Nothing is left to write."""


class Stream:
    """An answer of unknown length, written as it comes; chunked for HTTP/1.1, ended by closing for HTTP/1.0."""

    __slots__ = ("_chunked", "_request", "keep_alive", "status")

    def __init__(self, request: BaseRequest) -> None:
        self._request = request
        self.status = 200
        self._chunked = request.version >= (1, 1)
        self.keep_alive = self._chunked and request.keep_alive

    def open(self, content_type: str, *, status: int = 200, headers: Mapping[str, str] | None = None) -> "Stream":
        """Send the head at once."""
        self.status = status
        fields = {"Content-Type": content_type, **(headers or {})}
        if self._chunked:
            fields["Transfer-Encoding"] = "chunked"
        if not self.keep_alive:
            fields["Connection"] = "close"
        self._transport().write(head_bytes(status, fields))
        return self

    async def write(self, data: bytes) -> None:
        """Send `data`; returns when the client has taken enough of it."""
        if data:
            self.send(data)
        await self._request.protocol._drain_helper()

    def send(self, data: bytes) -> None:
        """Send `data` without waiting; nothing happens when the client has gone."""
        transport = self._request.transport
        if data and transport is not None and not transport.is_closing():
            transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def end(self) -> "Stream":
        """Send the end; the answer to hand back to the server."""
        if self._chunked:
            self._transport().write(b"0\r\n\r\n")
        return self

    def abort(self) -> "Stream":
        """Break off: the client sees that the answer is not whole."""
        self.keep_alive = False
        transport = self._request.transport
        if transport is not None:
            transport.close()
        return self

    def _transport(self) -> asyncio.Transport:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        return transport

    async def prepare(self, request: BaseRequest) -> None:
        """It has been written already."""

    async def write_eof(self) -> None:
        """It has been ended already."""


class TakenOver:
    """What a handler gives back after it took the connection over: nothing is to be written."""

    __slots__ = ()
    keep_alive = False
    status = 101

    async def prepare(self, request: BaseRequest) -> None:
        """Nothing to write."""

    async def write_eof(self) -> None:
        """Nothing to write."""


Answer = Reply | Stream | TakenOver


def reply_json(value: Any, status: int = 200) -> Reply:
    """`value` as a JSON document."""
    return Reply(status, dump_json(value))


NO_CONTENT = 204


def reply_empty(status: int = NO_CONTENT) -> Reply:
    """No body."""
    return Reply(status)


def reply_error(status: int, message: str) -> Reply:
    """Docker's error document."""
    return Reply(status, dump_json({"message": message}))


_date = (0, "")


def head_bytes(status: int, headers: Mapping[str, str]) -> bytes:
    """Status line and headers, those common to all answers included."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, formatdate(now, usegmt=True))
    lines = [_STATUS_LINES[status], _date[1], "\r\n"]
    for name, value in headers.items():
        lines += (name, ": ", value, "\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1", "replace")
