"""As much of MessagePack as fluentd's forward protocol needs (msgpack.org, "MessagePack specification")."""

from collections.abc import Mapping
from typing import Any

Value = Any  # str, bytes, int, bool, EventTime, and mappings and sequences of those


class EventTime:
    """Fluentd's extension type 0: seconds and nanoseconds since the epoch."""

    __slots__ = ("ns",)

    def __init__(self, ns: int) -> None:
        self.ns = ns


def pack(value: Value) -> bytes:
    """One value. Bytes travel as str, as fluentd wants the log's text: what is not UTF-8 is replaced."""
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, bytes):
        return _text(value if value.isascii() else value.decode("utf-8", "replace").encode())
    if isinstance(value, str):
        return _text(value.encode())
    if isinstance(value, EventTime):
        seconds, nanoseconds = divmod(value.ns, 1_000_000_000)
        return b"\xd7\0" + seconds.to_bytes(4, "big") + nanoseconds.to_bytes(4, "big")
    if isinstance(value, Mapping):
        items = b"".join(pack(key) + pack(item) for key, item in value.items())
        return _head(len(value), 0x80, b"\xde") + items
    return _head(len(value), 0x90, b"\xdc") + b"".join(pack(item) for item in value)


def _integer(value: int) -> bytes:
    if 0 <= value < 128:
        return bytes([value])
    if 0 <= value < 1 << 32:
        return b"\xce" + value.to_bytes(4, "big")
    return b"\xd3" + value.to_bytes(8, "big", signed=True)


def _text(data: bytes) -> bytes:
    size = len(data)
    if size < 32:
        return bytes([0xA0 | size]) + data
    if size < 1 << 16:
        return b"\xda" + size.to_bytes(2, "big") + data
    return b"\xdb" + size.to_bytes(4, "big") + data


def _head(count: int, small: int, code: bytes) -> bytes:
    if count < 16:
        return bytes([small | count])
    if count < 1 << 16:
        return code + count.to_bytes(2, "big")
    return bytes([code[0] + 1]) + count.to_bytes(4, "big")
