"""gelf: Graylog's format 1.1, by UDP in chunks and compressed, or by TCP ended by a zero byte (go2docs.graylog.org)."""

import gzip
import json
import os
import socket
import zlib
from collections.abc import Sequence

from wherry.logs.backlog import Message
from wherry.logs.options import address
from wherry.logs.remote.connection import Connection
from wherry.logs.remote.driver import Context, Driver

_CHUNK = 1420
_CHUNK_HEADER = 12
_MAX_CHUNKS = 128
_LEVELS = {"stdout": 6, "stderr": 3}


class Gelf:
    """One container's messages."""

    def __init__(self, context: Context) -> None:
        options, info = context.options, context.info
        self._scheme, host, port = address("gelf-address", options["gelf-address"], ("udp", "tcp"), 0)
        self._connection = Connection(self._scheme, host, port)
        self._type = options.get("gelf-compression-type", "gzip")
        self._level = int(options.get("gelf-compression-level", "1"))
        self.retry_seconds = float(options.get("gelf-tcp-reconnect-delay", "1"))
        self.max_retries: int | None = int(options.get("gelf-tcp-max-reconnect", "3"))
        named = {
            "container_id": info.get("ContainerID", ""),
            "container_name": str(info.get("ContainerName", "")).removeprefix("/"),
            "image_id": info.get("ContainerImageID", ""),
            "image_name": info.get("ContainerImageName", ""),
            "command": " ".join([str(info.get("ContainerEntrypoint", "")), *(info.get("ContainerArgs") or ())]),
            "tag": context.tag,
            "created": info.get("ContainerCreated", ""),
            **context.extra,
        }
        self._fixed = {
            "version": "1.1",
            "host": socket.gethostname(),
            **{f"_{name}": value for name, value in named.items()},
        }

    def connect(self) -> None:
        self._connection.open()

    def send(self, messages: Sequence[Message]) -> None:
        if self._scheme == "tcp":
            self._connection.send(b"".join(self._document(message) + b"\0" for message in messages))
            return
        for message in messages:
            for datagram in self._datagrams(self._pack(self._document(message))):
                self._connection.send(datagram)

    def disconnect(self) -> None:
        self._connection.close()

    def finish(self) -> None:
        self._connection.close()

    def _document(self, message: Message) -> bytes:
        document = {
            **self._fixed,
            "short_message": message.line.decode("utf-8", "replace"),
            "timestamp": round(message.time_ns / 1e9, 3),
            "level": _LEVELS[message.stream],
        }
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()

    def _pack(self, data: bytes) -> bytes:
        if self._type == "gzip":
            return gzip.compress(data, max(self._level, 0) if self._level >= 0 else 6)
        return zlib.compress(data, self._level) if self._type == "zlib" else data

    @staticmethod
    def _datagrams(data: bytes) -> list[bytes]:
        if len(data) <= _CHUNK:
            return [data]
        room = _CHUNK - _CHUNK_HEADER
        pieces = [data[start : start + room] for start in range(0, len(data), room)]
        if len(pieces) > _MAX_CHUNKS:
            return []  # the protocol has no way to say it; a line is at most 16 KB, so this takes uncommon labels
        identity = os.urandom(8)
        return [b"\x1e\x0f" + identity + bytes([number, len(pieces)]) + piece for number, piece in enumerate(pieces)]


def create(context: Context) -> Driver:
    """See wherry.logs.remote.driver.make."""
    return Gelf(context)
