import errno
import os
import socket
import struct
from threading import Lock
from types import TracebackType

from wherry.kernel.netlink import _messages as m
from wherry.kernel.netlink._messages import Message
from wherry.kernel.netlink._parse import Address, Link, Route, attributes, parse_address, parse_link, parse_route

_HEADER = struct.Struct("=IHHII")
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_DUMP_INTR, _NLM_F_ACK_TLVS = 0x10, 0x200
_NLMSGERR_ATTR_MSG = 1
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
_BUFFER = 1 << 16
_DUMP_TRIES = 8


class Netlink:
    """A netlink socket of the calling thread's network namespace. Every method may be called from any thread."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._lock = Lock()
        self._sequence = 0
        # Replies without a copy of the request, and with the kernel's own words for a refusal.
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)

    def request(self, *messages: Message) -> None:
        """Perform the messages in order, in one system call. The kernel performs the rest when one fails.

        Raises OSError with the call and the object of the first that failed.
        """
        if not messages:
            return
        with self._lock:
            failures = self._exchange(messages)
        if failures:
            index, number, text = failures[0]
            raise _failure(messages[index], number, text)

    def link(self, name: str) -> Link:
        """The link of this name; OSError ENODEV when there is none."""
        return self._link(m.link_request(m.RTM_GETLINK, name))

    def link_at(self, index: int) -> Link:
        """The link with this index; OSError ENODEV when there is none."""
        return self._link(m.link_request(m.RTM_GETLINK, index=index))

    def links(self) -> list[Link]:
        return [parse_link(body) for body in self.dump(m.link_request(m.RTM_GETLINK), m.RTM_NEWLINK)]

    def addresses(self, family: int = socket.AF_UNSPEC) -> list[Address]:
        message = Message(m.RTM_GETADDR, 0, m.IFADDR.pack(family, 0, 0, 0, 0), "netlink getaddr", "all")
        return [parse_address(body) for body in self.dump(message, m.RTM_NEWADDR)]

    def routes(self, family: int = socket.AF_INET) -> list[Route]:
        """The unicast routes of every table."""
        body = m.RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        message = Message(m.RTM_GETROUTE, 0, body, "netlink getroute", "all")
        unicast = [body for body in self.dump(message, m.RTM_NEWROUTE) if body[7] == 1]
        return [parse_route(body) for body in unicast]

    def dump(self, message: Message, answer: int) -> list[bytes]:
        """The bodies of all answers of type `answer`, as of one moment where the kernel can tell."""
        for _ in range(_DUMP_TRIES):
            with self._lock:
                bodies, interrupted = self._dump(message, answer)
            if not interrupted:
                break
        return bodies

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> "Netlink":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _exchange(self, messages: tuple[Message, ...]) -> list[tuple[int, int, str]]:
        """(index, errno, kernel's words) of each message that failed. Only the last one's success is answered."""
        first = self._sequence + 1
        last = self._sequence = self._sequence + len(messages)
        encoded = []
        for sequence, message in enumerate(messages, first):
            flags = message.flags | m.NLM_F_REQUEST | (m.NLM_F_ACK if sequence == last else 0)
            encoded.append(_encode(message, flags, sequence))
        self._socket.send(b"".join(encoded))
        failures = []
        while True:
            for kind, flags, sequence, body in _split(self._socket.recv(_BUFFER)):
                if kind != _NLMSG_ERROR or not first <= sequence <= last:
                    continue
                number = -struct.unpack_from("=i", body)[0]
                if number:
                    failures.append((sequence - first, number, _words(body, flags)))
                if sequence == last:
                    return failures

    def _link(self, message: Message) -> Link:
        with self._lock:
            self._sequence += 1
            self._socket.send(_encode(message, m.NLM_F_REQUEST, self._sequence))
            while True:
                for kind, flags, sequence, body in _split(self._socket.recv(_BUFFER)):
                    if sequence != self._sequence:
                        continue
                    if kind == _NLMSG_ERROR:
                        raise _failure(message, -struct.unpack_from("=i", body)[0], _words(body, flags))
                    return parse_link(body)

    def _dump(self, message: Message, answer: int) -> tuple[list[bytes], bool]:
        self._sequence += 1
        self._socket.send(_encode(message, m.NLM_F_REQUEST | m.NLM_F_DUMP, self._sequence))
        bodies: list[bytes] = []
        interrupted = False
        while True:
            for kind, flags, sequence, body in _split(self._socket.recv(_BUFFER)):
                if sequence != self._sequence:
                    continue
                interrupted |= bool(flags & _NLM_F_DUMP_INTR)
                if kind == _NLMSG_DONE:
                    return bodies, interrupted
                if kind == _NLMSG_ERROR:
                    raise _failure(message, -struct.unpack_from("=i", body)[0], _words(body, flags))
                if kind == answer:
                    bodies.append(body)


def _encode(message: Message, flags: int, sequence: int) -> bytes:
    length = _HEADER.size + len(message.body)
    return _HEADER.pack(length, message.type, flags, sequence, 0) + message.body + bytes(-length % 4)


def _split(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each message of a datagram."""
    found = []
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            break
        found.append((kind, flags, sequence, data[offset + _HEADER.size : offset + length]))
        offset += (length + 3) & ~3
    return found


def _words(body: bytes, flags: int) -> str:
    # struct nlmsgerr is an int and the request's header (its body is left out: NETLINK_CAP_ACK), then attributes.
    if not flags & _NLM_F_ACK_TLVS:
        return ""
    return dict(attributes(body[4 + _HEADER.size :])).get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode()


def _failure(message: Message, number: int, words: str) -> OSError:
    # RTM_GETLINK says ENODEV for an unknown name, RTM_DELLINK and RTM_NEWLINK too: one errno for "no such link".
    text = f"{message.call}: {os.strerror(number or errno.EPROTO)}"
    return OSError(number or errno.EPROTO, f"{text} ({words})" if words else text, message.object)
