import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from wherry.kernel.netlink import _messages as m

_ATTRIBUTE = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER


class Link(NamedTuple):
    """`peer`: the ifindex of a veth's other end, in its own namespace. `master` 0: in no bridge.

    `up` is what was asked for, `operational` what is: the kernel sends what it is given. `forwarding`: it is a port of
    a bridge, which lets its frames through.
    """

    ifindex: int
    name: str
    kind: str
    up: bool
    mtu: int
    mac: str
    master: int
    peer: int
    operational: bool
    forwarding: bool
    group: int = 0


class Address(NamedTuple):
    ifindex: int
    address: str
    prefix: int


class Route(NamedTuple):
    """`destination` None is the default route. `ifindex` 0 and `gateway` "" where the route has none."""

    destination: str | None
    prefix: int
    gateway: str
    ifindex: int
    metric: int
    table: int


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, value) of each attribute; what is cut short ends it."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > len(data):
            return
        yield kind & _TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def parse_link(body: bytes) -> Link:
    _, _, index, flags, _ = m.IFINFO.unpack_from(body)
    name = kind = mac = ""
    mtu = master = peer = group = 0
    operational = forwarding = False
    for attribute, value in attributes(body[m.IFINFO.size :]):
        if attribute == m.IFLA_IFNAME:
            name = value.rstrip(b"\0").decode()
        elif attribute == m.IFLA_ADDRESS:
            mac = value.hex(":")
        elif attribute == m.IFLA_MTU:
            mtu = _number(value)
        elif attribute == m.IFLA_MASTER:
            master = _number(value)
        elif attribute == m.IFLA_LINK:
            peer = _number(value)
        elif attribute == m.IFLA_GROUP:
            group = _number(value)
        elif attribute == m.IFLA_OPERSTATE:
            operational = value == bytes([m.IF_OPER_UP])
        elif attribute == m.IFLA_LINKINFO:
            info = dict(attributes(value))
            kind = info.get(m.IFLA_INFO_KIND, b"").rstrip(b"\0").decode()
            port = dict(attributes(info.get(m.IFLA_INFO_SLAVE_DATA, b"")))
            forwarding = port.get(m.IFLA_BRPORT_STATE) == bytes([m.BR_STATE_FORWARDING])
    return Link(index, name, kind, bool(flags & m.IFF_UP), mtu, mac, master, peer, operational, forwarding, group)


def parse_address(body: bytes) -> Address:
    family, prefix, _, _, index = m.IFADDR.unpack_from(body)
    found = dict(attributes(body[m.IFADDR.size :]))
    # IFA_ADDRESS is the far end of a point-to-point link; IFA_LOCAL, where present, is ours.
    return Address(index, _address(family, found.get(m.IFA_LOCAL) or found.get(m.IFA_ADDRESS, b"")), prefix)


def parse_route(body: bytes) -> Route:
    family, prefix, _, _, table, _, _, _, _ = m.RTMSG.unpack_from(body)
    found = dict(attributes(body[m.RTMSG.size :]))
    destination = found.get(m.RTA_DST)
    return Route(
        destination=None if destination is None else _address(family, destination),
        prefix=prefix,
        gateway=_address(family, found.get(m.RTA_GATEWAY, b"")),
        ifindex=_number(found.get(m.RTA_OIF, b"")),
        metric=_number(found.get(m.RTA_PRIORITY, b"")),
        table=table,
    )


def _number(value: bytes) -> int:
    return int.from_bytes(value, "little" if struct.pack("=H", 1)[0] else "big")


def _address(family: int, packed: bytes) -> str:
    return socket.inet_ntop(family, packed) if packed else ""
