"""Elements of nftables sets and maps, added and deleted by netlink itself.

libnftables first reads the whole ruleset, and of interval maps every element, so that its cost grows with what is
there; these few messages cost the same always.

Source: Linux include/uapi/linux/netfilter/{nf_tables,nfnetlink}.h.

A key is the concatenation of its fields, each padded to four bytes: an address, `protocol`, `port`. So is a value.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import NamedTuple

from wherry.kernel.netlink._messages import attribute

_NETLINK_NETFILTER = 12
_SUBSYSTEM, _INET = 10, 1
_NEWSETELEM, _DELSETELEM = 12, 14
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_CREATE = 0x1, 0x4, 0x400
_NLMSG_ERROR = 2
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_ELEMENT, _KEY, _DATA, _KEY_END, _VALUE = 1, 1, 2, 10, 1
_NESTED = 0x8000
_SO_SNDBUFFORCE = 32
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
# The length of the list's attribute has 16 bits.
_LIST_BYTES = 60_000


class Change(NamedTuple):
    """Elements of one set, to be added or deleted; each as `element` packs it."""

    add: bool
    set: str
    elements: Sequence[bytes]


def protocol(number: int) -> bytes:
    """An inet_proto in a key."""
    return bytes((number, 0, 0, 0))


def port(number: int) -> bytes:
    """An inet_service in a key or a value."""
    return struct.pack(">Hxx", number)


def element(key: bytes, end: bytes = b"", value: bytes = b"") -> bytes:
    """One element. `end`: the last key of its range, of an interval set (for a single key the same)."""
    body = _nested(_KEY, attribute(_VALUE, key))
    if value:
        body += _nested(_DATA, attribute(_VALUE, value))
    if end:
        body += _nested(_KEY_END, attribute(_VALUE, end))
    return _nested(_ELEMENT, body)


class Elements:
    """A connection to the nf_tables of the calling thread's network namespace. Usable from any thread."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 8 << 20)
        self._socket.setsockopt(270, 10, 1)  # NETLINK_CAP_ACK: answers without a copy of the request
        self._lock = Lock()
        self._sequence = 0

    def change(self, table: str, changes: Iterable[Change]) -> None:
        """Perform all in one transaction, or none. The table is of the family inet.

        OSError: ENOENT when a table, a set or an element to delete is not there, EEXIST or EBUSY when another is.
        """
        with self._lock:
            self._sequence += 1
            begin = self._sequence
            messages = [self._message(_BATCH_BEGIN, 0, struct.pack(">BBH", 0, 0, _SUBSYSTEM))]
            for change in changes:
                for elements in _chunks(change.elements):
                    body = struct.pack(">BBH", _INET, 0, 0)
                    body += attribute(_LIST_TABLE, table.encode() + b"\0")
                    body += attribute(_LIST_SET, change.set.encode() + b"\0")
                    body += _nested(_LIST_ELEMENTS, b"".join(elements))
                    kind = _SUBSYSTEM << 8 | (_NEWSETELEM if change.add else _DELSETELEM)
                    messages.append(self._message(kind, _NLM_F_ACK | (_NLM_F_CREATE if change.add else 0), body))
            if len(messages) == 1:
                return
            last = self._sequence - 1
            messages.append(self._message(_BATCH_END, 0, struct.pack(">BBH", 0, 0, _SUBSYSTEM)))
            self._socket.send(b"".join(messages))
            self._wait(table, begin, last)

    def close(self) -> None:
        self._socket.close()

    def _message(self, kind: int, flags: int, body: bytes) -> bytes:
        number, self._sequence = self._sequence, self._sequence + 1
        return _HEADER.pack(16 + len(body), kind, flags | _NLM_F_REQUEST, number, 0) + body

    def _wait(self, table: str, begin: int, last: int) -> None:
        failure = 0
        while True:
            data = self._socket.recv(1 << 16)
            offset = 0
            while offset + 20 <= len(data):
                length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
                if kind == _NLMSG_ERROR and begin <= sequence <= last + 1:
                    failure = failure or -struct.unpack_from("=i", data, offset + 16)[0]
                    # What fails as a whole is told of its beginning only.
                    if sequence in (begin, last, last + 1):
                        if failure:
                            raise OSError(failure, f"nftables elements: {os.strerror(failure)}", table)
                        return
                if length < 16:
                    raise OSError(errno.EPROTO, "nftables elements: a broken answer", table)
                offset += (length + 3) & ~3


def _chunks(elements: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
    if not elements:
        return
    size = max(1, _LIST_BYTES // max(map(len, elements)))
    for start in range(0, len(elements), size):
        yield elements[start : start + size]


def _nested(kind: int, body: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(body), kind | _NESTED) + body
