"""Connection tracking entries, dropped by a filter.

Source: Linux include/uapi/linux/netfilter/nfnetlink_conntrack.h.

A flow that the kernel tracks keeps its address translation for as long as packets come. UDP has no end, so a client
that goes on sending would for ever miss a port published meanwhile, or reach a container that is gone.
"""

import errno
import socket
import struct

from wherry.kernel.netlink import Message, Netlink
from wherry.kernel.netlink._messages import attribute

_NETLINK_NETFILTER = 12
_CT_DELETE = 1 << 8 | 2
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_FILTER = 1, 2, 25
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_V4_SRC, _CTA_PROTO_NUM, _CTA_PROTO_DST_PORT = 1, 1, 3
_F_IP_SRC, _F_PROTO_NUM, _F_PROTO_DST_PORT = 1, 8, 32
_NESTED = 0x8000


class Conntrack:
    """The table of the calling thread's network namespace; both methods return False where the kernel cannot filter."""

    def __init__(self) -> None:
        self._netlink = Netlink(_NETLINK_NETFILTER)

    def forget_server(self, address: str) -> bool:
        """Drop every flow that is answered by this IPv4 address."""
        source = attribute(_CTA_IP_V4_SRC, socket.inet_aton(address))
        tuple_ = attribute(_CTA_TUPLE_IP | _NESTED, source)
        return self._delete(_CTA_TUPLE_REPLY, tuple_, _F_IP_SRC, address)

    def forget_port(self, protocol: int, port: int) -> bool:
        """Drop every flow of an IP protocol that was sent to this port, whatever the address."""
        inner = attribute(_CTA_PROTO_NUM, bytes([protocol])) + attribute(_CTA_PROTO_DST_PORT, struct.pack(">H", port))
        tuple_ = attribute(_CTA_TUPLE_PROTO | _NESTED, inner)
        return self._delete(_CTA_TUPLE_ORIG, tuple_, _F_PROTO_NUM | _F_PROTO_DST_PORT, f"port {port}")

    def close(self) -> None:
        self._netlink.close()

    def _delete(self, direction: int, tuple_: bytes, flags: int, name: str) -> bool:
        # The filter's attribute says which fields of the (partial) tuple count; 1 is of the original, 2 of the reply.
        chosen = attribute(direction, struct.pack("=I", flags))
        body = struct.pack(">BBH", int(socket.AF_INET), 0, 0)
        body += attribute(direction | _NESTED, tuple_) + attribute(_CTA_FILTER | _NESTED, chosen)
        try:
            self._netlink.request(Message(_CT_DELETE, 0, body, "conntrack delete", name))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return True
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                return False
            raise
        return True
