"""A bare HTTP client: what goes over the wire is what the test says."""

import asyncio
import json
from typing import Any, NamedTuple


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return str(self.json["message"])


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, path: str) -> "Client":
        return cls(*await asyncio.open_unix_connection(path))

    async def request(
        self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Response:
        self.send(method, target, body, headers)
        status, found = await self.head()
        return Response(status, found, b"" if method == "HEAD" else await self.body(status, found))

    async def post_json(self, target: str, document: Any) -> Response:
        return await self.request("POST", target, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def send(self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> None:
        fields = {"Host": "d", **(headers or {})}
        if body is not None:
            fields.setdefault("Content-Length", str(len(body)))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.writer.write(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + (body or b""))

    async def head(self) -> tuple[int, dict[str, str]]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), fields

    async def body(self, status: int, headers: dict[str, str]) -> bytes:
        if headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while chunk := await self.chunk():
                parts.append(chunk)
            return b"".join(parts)
        return await self.reader.readexactly(int(headers.get("Content-Length", 0)))

    async def chunk(self) -> bytes:
        size = int((await self.reader.readuntil(b"\r\n")).strip(), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    def close(self) -> None:
        self.writer.close()


async def ask(path: str, method: str, target: str, body: bytes | None = None, **headers: str) -> Response:
    """One request on a connection of its own."""
    client = await Client.connect(path)
    try:
        return await client.request(method, target, body, {k.replace("_", "-"): v for k, v in headers.items()})
    finally:
        client.close()
