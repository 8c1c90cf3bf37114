"""HTTP/1.1 as plugins need it, without I/O: generators that ask for bytes, run by a blocking or an asyncio driver.

A generator yields how many bytes it wants and is sent exactly those; 0 asks for a line, with its end; a negative number
for up to so many, b"" at the end of the connection.
"""

import json
from collections.abc import Generator
from typing import Any

from wherry.errors import Internal, Unavailable

MEDIA_TYPE = "application/vnd.docker.plugins.v1+json"
MAX_LINE = 16 * 1024
_MAX_HEADERS = 100
_CHUNK = 64 * 1024
Reading = Generator[int, bytes, Any]


def request(host: str, path: str, body: Any) -> bytes:
    """A POST of `body` as JSON (None: an empty one), on a connection used once."""
    data = b"" if body is None else json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {MEDIA_TYPE}\r\nContent-Type: {MEDIA_TYPE}\r\n"
        f"User-Agent: Docker-Client/28.5.0 (linux)\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + data


class Head:
    """A reply's status, and how its body is delimited."""

    __slots__ = ("chunked", "length", "status")

    def __init__(self, status: int, length: int | None, chunked: bool) -> None:
        self.status = status
        self.length = length
        self.chunked = chunked


def read_head(name: str) -> Generator[int, bytes, Head]:
    """The head of a reply."""
    line = yield 0
    fields = line.split(None, 2)
    if len(fields) < 2 or not fields[0].startswith(b"HTTP/1.") or not fields[1].isdigit():
        raise Unavailable(f"plugin {name}: no HTTP reply: {line[:100]!r}", object=name)
    length, chunked = None, False
    for _ in range(_MAX_HEADERS):
        line = yield 0
        if line in (b"\r\n", b"\n"):
            return Head(int(fields[1]), length, chunked)
        key, _, value = line.partition(b":")
        kind = key.strip().lower()
        if kind == b"content-length" and value.strip().isdigit():
            length = int(value)
        elif kind == b"transfer-encoding":
            chunked = b"chunked" in value.lower()
        elif not line:
            break
    raise Unavailable(f"plugin {name}: a reply without an end to its headers", object=name)


def next_piece(name: str, head: Head, state: list[int]) -> Generator[int, bytes, bytes]:
    """The next bytes of a body, b"" at its end. `state[0]`: what is left of the body or of the chunk, -1 at the end."""
    if state[0] < 0:
        return b""
    if head.chunked and state[0] == 0:
        size = (yield 0).split(b";")[0].strip()
        try:
            state[0] = int(size, 16)
        except ValueError:
            raise Unavailable(f"plugin {name}: a malformed chunk in its reply", object=name) from None
        if state[0] == 0:
            state[0] = -1
            return b""
    elif head.length is not None and state[0] == 0:
        state[0] = -1
        return b""
    if head.chunked or head.length is not None:
        piece = yield min(state[0], _CHUNK)
        state[0] -= len(piece)
        if head.chunked and state[0] == 0:
            yield 0
        return piece
    piece = yield -_CHUNK
    if not piece:
        state[0] = -1
    return piece


def check(name: str, method: str, status: int, data: bytes) -> Any:
    """The JSON of a whole reply; Internal with the plugin's own words when it refused."""
    if status != 200:
        raise Internal(f"plugin {name}: {method}: {_refusal(status, data)}", object=name)
    try:
        answer = json.loads(data) if data.strip() else {}
    except ValueError:
        raise Unavailable(f"plugin {name}: {method}: its reply is no JSON: {data[:200]!r}", object=name) from None
    if isinstance(answer, dict) and answer.get("Err"):
        raise Internal(f"plugin {name}: {method}: {str(answer['Err'])[:4096]}", object=name)
    return answer


def _refusal(status: int, data: bytes) -> str:
    text = data[:4096].decode("utf-8", "replace").strip()
    try:
        document = json.loads(data)
    except ValueError:
        document = None
    if isinstance(document, dict) and document.get("Err"):
        text = str(document["Err"])[:4096]
    return f"status {status}: {text}" if text else f"status {status}"
