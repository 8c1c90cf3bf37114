"""Docker's LogEntry (entry.proto): protobuf by hand, its five fields need no compiler.

message LogEntry { string source = 1; int64 time_nano = 2; bytes line = 3; bool partial = 4; Partial meta = 5; }
message Partial  { bool last = 1; string id = 2; int32 ordinal = 3; }
"""

from wherry.logs.backlog import Message, Partial

MAX = 1 << 20


def encode(message: Message) -> bytes:
    """With its length, 4 bytes big-endian, before it."""
    source = message.stream.encode()
    data = b"\x0a" + _sized(source) + b"\x10" + _varint(message.time_ns) + b"\x1a" + _sized(message.line)
    partial = message.partial
    if partial is not None:
        meta = b"\x08\x01" * partial.last + b"\x12" + _sized(partial.id.encode()) + b"\x18" + _varint(partial.ordinal)
        data += b"\x20\x01" * (not partial.last) + b"\x2a" + _sized(meta)
    return len(data).to_bytes(4, "big") + data


def decode(data: bytes) -> Message:
    """Without the length before it; ValueError when malformed."""
    values = _fields(data)
    meta = _fields(values[5]) if isinstance(values.get(5), bytes) else None
    partial = None
    if meta is not None or values.get(4):
        found = meta or {}
        partial = Partial(_text(found.get(2)), _number(found.get(3)), bool(found.get(1)))
    line = values.get(3, b"")
    return Message(_text(values.get(1)), _number(values.get(2)), line if isinstance(line, bytes) else b"", partial)


def _text(value: int | bytes | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _number(value: int | bytes | None) -> int:
    return value if isinstance(value, int) else 0


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(data: int | bytes | None) -> dict[int, int | bytes]:
    found: dict[int, int | bytes] = {}
    if not isinstance(data, bytes):
        return found
    place = 0
    while place < len(data):
        key, place = _read_varint(data, place)
        kind = key & 7
        if kind == 0:
            found[key >> 3], place = _read_varint(data, place)
            continue
        if kind == 2:
            size, place = _read_varint(data, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if place + size > len(data):
            raise ValueError("a field is longer than its message")
        if kind == 2:
            found[key >> 3] = data[place : place + size]
        place += size
    return found


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number without an end")
