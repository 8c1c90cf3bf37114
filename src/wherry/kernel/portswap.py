"""One address's port served by another, within a network namespace, without connection tracking.

What is sent to `address:port` by whoever is in the namespace arrives at `address:served`, and what is answered from
there seems to come from `address:port`: two stateless rewrites of the packets of the loopback interface, where
destination NAT would track each flow of the namespace, whosever it is. Rules in the namespace see `port` only:
requests are rewritten behind all of them, answers ahead of all and of connection tracking.

Source: Linux include/uapi/linux/netfilter/{nf_tables,nfnetlink}.h. By netlink itself: libnftables takes a millisecond
and megabytes for what are always the same few hundred bytes.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

TCP, UDP = 6, 17
_NETLINK_NETFILTER = 12
_SUBSYSTEM, _IP = 10, 2
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0, 2, 3, 6
_F_REQUEST, _F_ACK, _F_EXCL, _F_CREATE, _F_APPEND = 0x1, 0x4, 0x200, 0x400, 0x800
_ERROR = 2
_NESTED = 0x8000
_OUTPUT = 3  # NF_INET_LOCAL_OUT
_FIRST, _LAST = -300, 300
_REGISTER = struct.pack(">I", 1)
_NETWORK, _TRANSPORT = 1, 2
_SOURCE_ADDRESS, _DESTINATION_ADDRESS = 12, 16
_SOURCE_PORT, _DESTINATION_PORT = 0, 2
_CHECKSUM_AT = {UDP: 6, TCP: 16}


def swap(table: str, address: str, port: int, served: Iterable[tuple[int, int]]) -> None:
    """In the calling thread's network namespace: (TCP or UDP, the port that serves) for `address` and `port`.

    In one transaction, in place of a `table` there is already. OSError EOPNOTSUPP or ENOENT: no nf_tables here.
    """
    to = _socket.inet_aton(address)
    name = _attribute(1, table.encode() + b"\0")
    requests, answers = (_attribute(2, chain + b"\0") for chain in (b"requests", b"answers"))
    batch = [
        (_NEWTABLE, _F_CREATE | _F_EXCL, name),
        (_NEWCHAIN, _F_CREATE, name + _chain(b"requests", _LAST)),
        (_NEWCHAIN, _F_CREATE, name + _chain(b"answers", _FIRST)),
    ]
    for protocol, own in served:
        there = _rule(protocol, _DESTINATION_ADDRESS, to, _DESTINATION_PORT, port, own)
        back = _rule(protocol, _SOURCE_ADDRESS, to, _SOURCE_PORT, own, port)
        batch.append((_NEWRULE, _F_CREATE | _F_APPEND, name + requests + there))
        batch.append((_NEWRULE, _F_CREATE | _F_APPEND, name + answers + back))
    try:
        _transact(batch, table)
    except FileExistsError:
        # Only then: a transaction that deletes waits for a grace period of all processors, some 10 ms.
        _transact([(_DELTABLE, 0, name), *batch], table)


def _chain(name: bytes, priority: int) -> bytes:
    hook = _attribute(1, struct.pack(">I", _OUTPUT)) + _attribute(2, struct.pack(">i", priority))
    return _attribute(3, name + b"\0") + _attribute(4 | _NESTED, hook) + _attribute(7, b"filter\0")


def _rule(protocol: int, address_at: int, address: bytes, port_at: int, port: int, new: int) -> bytes:
    number = struct.pack(">H", new)
    where = _attribute(2, struct.pack(">I", _TRANSPORT)) + _attribute(3, struct.pack(">I", port_at))
    checksum = _attribute(6, struct.pack(">I", 1)) + _attribute(7, struct.pack(">I", _CHECKSUM_AT[protocol]))
    write = _attribute(5, _REGISTER) + where + _attribute(4, struct.pack(">I", 2)) + checksum
    expressions = (
        _load(_NETWORK, address_at, 4),
        _compare(address),
        _expression(b"meta", _attribute(1, _REGISTER) + _attribute(2, struct.pack(">I", 16))),  # NFT_META_L4PROTO
        _compare(bytes((protocol,))),
        _load(_TRANSPORT, port_at, 2),
        _compare(struct.pack(">H", port)),
        _expression(b"immediate", _attribute(1, _REGISTER) + _attribute(2 | _NESTED, _attribute(1, number))),
        _expression(b"payload", write),
    )
    return _attribute(4 | _NESTED, b"".join(expressions))


def _load(base: int, offset: int, length: int) -> bytes:
    fields = (
        (1, _REGISTER),
        (2, struct.pack(">I", base)),
        (3, struct.pack(">I", offset)),
        (4, struct.pack(">I", length)),
    )
    return _expression(b"payload", b"".join(_attribute(kind, value) for kind, value in fields))


def _compare(value: bytes) -> bytes:
    equal = _attribute(1, _REGISTER) + _attribute(2, bytes(4))
    return _expression(b"cmp", equal + _attribute(3 | _NESTED, _attribute(1, value)))


def _expression(name: bytes, data: bytes) -> bytes:
    return _attribute(1 | _NESTED, _attribute(1, name + b"\0") + _attribute(2 | _NESTED, data))


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _transact(batch: list[tuple[int, int, bytes]], table: str) -> None:
    edge = struct.pack(">BBH", 0, 0, _SUBSYSTEM)
    messages = [_message(_BATCH_BEGIN, 0, 0, edge)]
    for number, (kind, flags, body) in enumerate(batch, 1):
        messages.append(_message(_SUBSYSTEM << 8 | kind, flags | _F_ACK, number, struct.pack(">BBH", _IP, 0, 0) + body))
    messages.append(_message(_BATCH_END, 0, len(batch) + 1, edge))
    netlink = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    try:
        netlink.setsockopt(270, 10, 1)  # SOL_NETLINK, NETLINK_CAP_ACK: answers without a copy of the request
        netlink.send(b"".join(messages))
        failure = _outcome(netlink, len(batch), table)
    finally:
        netlink.close()
    if failure:
        raise OSError(failure, f"nftables: {os.strerror(failure)}", table)


def _outcome(netlink: _socket.socket, count: int, table: str) -> int:
    """The first error number of the batch, 0 for none."""
    failure, answered = 0, 0
    while answered < count:
        data = netlink.recv(1 << 16)
        offset = 0
        while offset + 20 <= len(data):
            length, kind, _, sequence, _ = struct.unpack_from("=IHHII", data, offset)
            if length < 16:
                raise OSError(errno.EPROTO, "nftables: a broken answer", table)
            if kind == _ERROR:
                failure = failure or -struct.unpack_from("=i", data, offset + 16)[0]
                # What fails as a whole is told of its beginning or its end only.
                answered = answered + 1 if 0 < sequence <= count else count
            offset += (length + 3) & ~3
    return failure


def _message(kind: int, flags: int, number: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags | _F_REQUEST, number, 0) + body
