"""Which ports the programs of this network namespace use (sock_diag(7))."""

import errno
import socket
import struct

from wherry.kernel.netlink import Message, Netlink
from wherry.kernel.netlink._parse import attributes

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_TCP_LISTEN = 10
_REQUEST = struct.Struct("=BBBBI48s")
_SOURCE = struct.Struct("!H")
_ADDRESS_AT, _PORT_AT, _MESSAGE_SIZE = 8, 4, 72
_SKV6ONLY = 11


def bound_ports(family: int, protocol: int) -> list[tuple[str, int]]:
    """(address, port) of every socket that listens (TCP, SCTP) or is bound (UDP).

    Of AF_INET those of AF_INET6 that serve IPv4 too are among them. OSError ENOENT where the kernel cannot tell.
    """
    found = _dump(family, protocol)
    if family == socket.AF_INET:
        found += [("0.0.0.0", port) for address, port in _dump(socket.AF_INET6, protocol, dual=True) if address == "::"]
    return found


def _dump(family: int, protocol: int, *, dual: bool = False) -> list[tuple[str, int]]:
    # Any other state of TCP makes the kernel walk its whole table of connections: 10 ms on an idle machine.
    states = 0xFFFFFFFF if protocol == socket.IPPROTO_UDP else 1 << _TCP_LISTEN
    body = _REQUEST.pack(family, protocol, 0, 0, states, bytes(48))
    with Netlink(_NETLINK_SOCK_DIAG) as diag:
        request = Message(_SOCK_DIAG_BY_FAMILY, 0, body, "sock_diag", str(protocol))
        answers = diag.dump(request, _SOCK_DIAG_BY_FAMILY)
    size = 4 if family == socket.AF_INET else 16
    found = []
    for answer in answers:
        port = _SOURCE.unpack_from(answer, _PORT_AT)[0]
        if port and not (dual and dict(attributes(answer[_MESSAGE_SIZE:])).get(_SKV6ONLY) == b"\1"):
            found.append((socket.inet_ntop(family, answer[_ADDRESS_AT : _ADDRESS_AT + size]), port))
    return found


def can_tell(error: OSError) -> bool:
    """Whether an error of `bound_ports` means more than that this kernel has no such thing."""
    return error.errno not in (errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)
