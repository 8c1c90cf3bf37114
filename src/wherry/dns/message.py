"""DNS messages as bytes (RFC 1035, 6891): what is read of a question, and how an answer to it is written."""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

A, PTR, MX, AAAA, OPT = 1, 12, 15, 28, 41
IN = 1
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NAME_ERROR, NOT_IMPLEMENTED, REFUSED = 0, 1, 2, 3, 4, 5
TTL = 600
_HEADER = struct.Struct(">HHHHHH")
_RECORD = struct.Struct(">HHIH")
_QR, _OPCODE, _TC, _RD, _RA, _CD = 0x8000, 0x7800, 0x0200, 0x0100, 0x0080, 0x0010
# The question's name, where every answer has it.
_POINTER = 0xC00C
_PLAIN_SIZE = 512
_OWN_SIZE = 4096
_NAME_LIMIT = 255


class Malformed(Exception):
    """A message that cannot be read. `rcode`: what to answer, None for nothing."""

    def __init__(self, rcode: int | None) -> None:
        super().__init__(rcode)
        self.rcode = rcode


class Question:
    """A query. `name` is in lower case without the last dot; `size`: what its sender takes by UDP; `edns`: has OPT."""

    __slots__ = ("cls", "edns", "end", "flags", "name", "size", "type")

    def __init__(self, flags: int, name: bytes, type: int, cls: int, end: int, size: int, edns: bool) -> None:
        self.flags = flags
        self.name = name
        self.type = type
        self.cls = cls
        self.end = end
        self.size = size
        self.edns = edns


def parse(data: bytes) -> Question:
    """The question of a query; Malformed for what is none."""
    if len(data) < 12:
        raise Malformed(None)
    _, flags, questions, answers, authorities, extras = _HEADER.unpack_from(data)
    if flags & _QR:
        raise Malformed(None)
    if flags & _OPCODE:
        raise Malformed(NOT_IMPLEMENTED)
    if questions != 1:
        raise Malformed(FORMAT_ERROR)
    name, end = _name(data)
    if end + 4 > len(data):
        raise Malformed(FORMAT_ERROR)
    type, cls = struct.unpack_from(">HH", data, end)
    size = 0
    if extras and not answers and not authorities:
        size = _edns_size(data, end + 4, extras)
    return Question(flags, name, type, cls, end + 4, max(size, _PLAIN_SIZE), size > 0)


def _name(data: bytes) -> tuple[bytes, int]:
    labels: list[bytes] = []
    at, limit = 12, min(len(data), 12 + _NAME_LIMIT)
    while at < limit:
        length = data[at]
        if not length:
            return b".".join(labels).lower(), at + 1
        if length > 63:
            break  # a pointer could only lead to the header
        label = data[at + 1 : at + 1 + length]
        if b"." in label:
            label = label.replace(b".", b"\\.")
        labels.append(label)
        at += 1 + length
    raise Malformed(FORMAT_ERROR)


def _edns_size(data: bytes, at: int, extras: int) -> int:
    """What OPT among the additional records says; 0 when there is none to be found."""
    for _ in range(min(extras, 4)):
        while at < len(data) and 0 < data[at] < 64:
            at += 1 + data[at]
        if at >= len(data):
            return 0
        at += 2 if data[at] > 63 else 1
        if at + 10 > len(data):
            return 0
        type, size, _, length = _RECORD.unpack_from(data, at)
        if type == OPT:
            return max(int(size), _PLAIN_SIZE)
        at += 10 + length
    return 0


def answer(data: bytes, question: Question, rcode: int, records: Sequence[bytes] = (), limit: int = 0xFFFF) -> bytes:
    """The answer to `data` but for its first two bytes, the id. What goes past `limit` bytes is left out, and said so.

    `records`: the data of records of the type asked for, of the name asked for.
    """
    flags = _QR | question.flags & (_RD | _CD) | _RA | rcode
    tail = _own_opt() if question.edns else b""
    body = [data[12 : question.end]]
    room = limit - question.end - len(tail)
    for content in records:
        room -= 12 + len(content)
        if room < 0:
            flags |= _TC
            break
        body.append(struct.pack(">HHHIH", _POINTER, question.type, question.cls, TTL, len(content)) + content)
    counts = struct.pack(">HHHHH", flags, 1, len(body) - 1, 0, 1 if tail else 0)
    return counts + b"".join(body) + tail


def refusal(data: bytes, rcode: int) -> bytes:
    """A header alone, for a query that cannot be read."""
    flags = struct.unpack_from(">H", data, 2)[0]
    return data[:2] + struct.pack(">HHHHH", _QR | flags & (_OPCODE | _RD) | rcode, 0, 0, 0, 0)


def failure(data: bytes, question: Question, rcode: int) -> bytes:
    """An answer of ours without records, id and all, that does not claim to know anything of the name."""
    flags = _QR | question.flags & (_RD | _CD) | rcode
    return data[:2] + struct.pack(">HHHHH", flags, 1, 0, 0, 0) + data[12 : question.end]


def encode_name(name: bytes) -> bytes:
    """A name in labels; ValueError when it cannot be one."""
    packed = b"".join(bytes((len(label),)) + label for label in name.split(b".") if _is_label(label)) + b"\0"
    if len(packed) > _NAME_LIMIT:
        raise ValueError("a name of more than 255 bytes")
    return packed


def _is_label(label: bytes) -> bool:
    if not 0 < len(label) < 64:
        raise ValueError(f"no label: {label!r}")
    return True


def _own_opt() -> bytes:
    return b"\0" + _RECORD.pack(OPT, _OWN_SIZE, 0, 0)


def is_answer(reply: bytes, query: bytes, end: int) -> bool:
    """Whether `reply` answers `query`, whose question ends at `end`: same id, same question (a server may change case).

    A server that cannot read a question answers with a header alone.
    """
    if len(reply) < 12 or reply[:2] != query[:2] or not reply[2] & 0x80 or (reply[2] ^ query[2]) & 0x78:
        return False
    questions = int.from_bytes(reply[4:6], "big")
    if questions == 0:
        return rcode(reply) in (FORMAT_ERROR, NOT_IMPLEMENTED, REFUSED, SERVER_FAILURE)
    return questions == 1 and reply[12:end].lower() == query[12:end].lower()


def rcode(message: bytes) -> int:
    """A message's response code."""
    return message[3] & 0x0F


def reverse(name: bytes) -> bytes | None:
    """The packed address that a name below in-addr.arpa or ip6.arpa stands for."""
    if name.endswith(b".in-addr.arpa"):
        parts = name[:-13].split(b".")
        if len(parts) == 4 and all(part.isdigit() and len(part) < 4 and int(part) < 256 for part in parts):
            return bytes(int(part) for part in reversed(parts))
    elif name.endswith(b".ip6.arpa"):
        digits = name[:-9].split(b".")
        if len(digits) == 32 and all(len(digit) == 1 and digit in b"0123456789abcdef" for digit in digits):
            return bytes.fromhex(b"".join(reversed(digits)).decode())
    return None
