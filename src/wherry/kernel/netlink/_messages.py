import os
import socket
import struct
from typing import NamedTuple

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
_NLM_F_REPLACE, _NLM_F_EXCL, _NLM_F_CREATE = 0x100, 0x200, 0x400

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, _RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, _RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
IFLA_GROUP, _IFLA_NET_NS_FD, _IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 27, 28, 31, 32
IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 4, 5
IFLA_BRPORT_STATE, _IFLA_BRPORT_HAIRPIN, _IFLA_BRPORT_ISOLATED = 1, 4, 33
BR_STATE_FORWARDING = 3
IFLA_OPERSTATE, IF_OPER_UP = 16, 6
_NLA_F_NESTED = 0x8000
IFF_UP = 1
_IFLA_MACVLAN_MODE, _IFLA_IPVLAN_MODE, _IFLA_IPVLAN_FLAGS, _IFLA_VLAN_ID = 1, 1, 2, 1
_IFLA_VXLAN_ID, _IFLA_VXLAN_LEARNING, _IFLA_VXLAN_PORT = 1, 7, 15

IFA_ADDRESS, IFA_LOCAL = 1, 2
_IFA_F_NODAD = 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY = 1, 4, 5, 6
_RT_TABLE_MAIN, _RTPROT_BOOT, _RTN_UNICAST = 254, 3, 1

_RTM_NEWNEIGH, _NLM_F_APPEND, _AF_BRIDGE = 28, 0x800, 7
_NDA_DST, _NDA_LLADDR, _NUD_NOARP, _NUD_PERMANENT, _NTF_SELF = 1, 2, 0x40, 0x80, 0x02
_NDMSG = struct.Struct("=BxxxiHBB")

_IFLA_AF_SPEC, _IFLA_INET6_ADDR_GEN_MODE = 26, 8
_HAS_IPV6 = os.path.exists("/proc/sys/net/ipv6")

IFINFO = struct.Struct("=BxHiII")
IFADDR = struct.Struct("=BBBBi")
RTMSG = struct.Struct("=BBBBBBBBI")


class Message(NamedTuple):
    """One request. `call` and `object` are for the error: what was asked, of what."""

    type: int
    flags: int
    body: bytes
    call: str
    object: str


def attribute(kind: int, data: bytes) -> bytes:
    """An attribute, padded to four bytes (its length field does not count the padding)."""
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def _mac(value: str) -> bytes:
    return attribute(IFLA_ADDRESS, bytes.fromhex(value.replace(":", "")))


def _family(address: str) -> tuple[int, bytes]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return int(family), socket.inet_pton(family, address)


def link_request(kind: int, name: str = "", index: int = 0) -> Message:
    """RTM_GETLINK of one link by name or index, or (`NLM_F_DUMP` added by the socket) of all."""
    body = IFINFO.pack(0, 0, index, 0, 0) + (_text(IFLA_IFNAME, name) if name else b"")
    return Message(kind, 0, body, "netlink getlink", name or str(index))


def new_bridge(name: str, *, mac: str, mtu: int = 0) -> Message:
    """A bridge, down. With an address of its own: else it takes over the lowest of its ports', which come and go."""
    body = IFINFO.pack(0, 0, 0, 0, 0) + _text(IFLA_IFNAME, name) + _mac(mac)
    if mtu:
        body += _number(IFLA_MTU, mtu)
    body += attribute(IFLA_LINKINFO, _text(IFLA_INFO_KIND, "bridge"))
    return Message(RTM_NEWLINK, _NLM_F_CREATE | _NLM_F_EXCL, body, "netlink newlink bridge", name)


def new_veth(name: str, *, peer: str, peer_netns: int, mtu: int, master: int) -> Message:
    """A pair of links: `name` here, down, a port of the bridge `master`; `peer` in the namespace of a descriptor.

    One queue each: the kernel's default is one per possible CPU, which is memory for nothing without XDP.
    """
    queues = _number(_IFLA_NUM_TX_QUEUES, 1) + _number(_IFLA_NUM_RX_QUEUES, 1)
    size = _number(IFLA_MTU, mtu)
    inner = IFINFO.pack(0, 0, 0, 0, 0) + _text(IFLA_IFNAME, peer) + size + queues
    inner += _number(_IFLA_NET_NS_FD, peer_netns)
    data = attribute(_IFLA_INFO_DATA | _NLA_F_NESTED, attribute(_VETH_INFO_PEER | _NLA_F_NESTED, inner))
    body = IFINFO.pack(0, 0, 0, 0, 0) + _text(IFLA_IFNAME, name) + size + queues + _number(IFLA_MASTER, master)
    body += attribute(IFLA_LINKINFO | _NLA_F_NESTED, _text(IFLA_INFO_KIND, "veth") + data)
    return Message(RTM_NEWLINK, _NLM_F_CREATE | _NLM_F_EXCL, body, "netlink newlink veth", name)


def new_child(name: str, kind: str, data: bytes, *, parent: int = 0, netns: int | None = None, mtu: int = 0) -> Message:
    """A link that stands on another one of this namespace (`parent`: its index), down, here or in the namespace of the
    descriptor `netns`. `kind` and `data`: `macvlan`, `ipvlan`, `vlan` or `vxlan`."""
    body = IFINFO.pack(0, 0, 0, 0, 0) + _text(IFLA_IFNAME, name)
    if parent:
        body += _number(IFLA_LINK, parent)
    if mtu:
        body += _number(IFLA_MTU, mtu)
    if netns is not None:
        body += _number(_IFLA_NET_NS_FD, netns)
    info = _text(IFLA_INFO_KIND, kind) + attribute(_IFLA_INFO_DATA | _NLA_F_NESTED, data)
    body += attribute(IFLA_LINKINFO | _NLA_F_NESTED, info)
    return Message(RTM_NEWLINK, _NLM_F_CREATE | _NLM_F_EXCL, body, f"netlink newlink {kind}", name)


def macvlan(mode: int) -> bytes:
    """`new_child`'s data; modes: private 1, vepa 2, bridge 4, passthru 8 (linux/if_link.h)."""
    return _number(_IFLA_MACVLAN_MODE, mode)


def ipvlan(mode: int, flags: int) -> bytes:
    """`new_child`'s data; modes: l2 0, l3 1, l3s 2; flags: bridge 0, private 1, vepa 2."""
    return attribute(_IFLA_IPVLAN_MODE, struct.pack("=H", mode)) + attribute(
        _IFLA_IPVLAN_FLAGS, struct.pack("=H", flags)
    )


def vlan(number: int) -> bytes:
    """`new_child`'s data: an 802.1Q tag."""
    return attribute(_IFLA_VLAN_ID, struct.pack("=H", number))


def vxlan(number: int, port: int) -> bytes:
    """`new_child`'s data: a VXLAN, which learns where addresses are; what it does not know goes to `add_flooding`'s."""
    data = _number(_IFLA_VXLAN_ID, number) + attribute(_IFLA_VXLAN_LEARNING, b"\1")
    return data + attribute(_IFLA_VXLAN_PORT, struct.pack(">H", port))


def add_flooding(index: int, address: str) -> Message:
    """Let a VXLAN send what has no known place to this peer as well; one it has already is EEXIST."""
    body = _NDMSG.pack(_AF_BRIDGE, index, _NUD_PERMANENT | _NUD_NOARP, _NTF_SELF, 0)
    body += attribute(_NDA_LLADDR, bytes(6)) + attribute(_NDA_DST, _family(address)[1])
    return Message(_RTM_NEWNEIGH, _NLM_F_CREATE | _NLM_F_APPEND, body, "netlink newneigh", address)


def set_link(
    link: int | str,
    *,
    up: bool | None = None,
    mac: str | None = None,
    mtu: int | None = None,
    master: int | None = None,
    group: int | None = None,
    name: str | None = None,
) -> Message:
    """Change a link, by index or name. `master` 0 takes it out of its bridge; `name` (given an index) renames it."""
    flags = IFF_UP if up else 0
    index = link if isinstance(link, int) else 0
    body = IFINFO.pack(0, 0, index, flags, 0 if up is None else IFF_UP)
    if isinstance(link, str):
        body += _text(IFLA_IFNAME, link)
    elif name is not None:
        body += _text(IFLA_IFNAME, name)
    if mac is not None:
        body += _mac(mac)
    if mtu is not None:
        body += _number(IFLA_MTU, mtu)
    if master is not None:
        body += _number(IFLA_MASTER, master)
    if group is not None:
        body += _number(IFLA_GROUP, group)
    return Message(RTM_NEWLINK, 0, body, "netlink setlink", str(link))


def move_link(index: int, netns: int, name: str) -> Message:
    """Move a link of this namespace into the one of a descriptor, under a new name; it is down there."""
    body = IFINFO.pack(0, 0, index, 0, IFF_UP) + _number(_IFLA_NET_NS_FD, netns) + _text(IFLA_IFNAME, name)
    return Message(RTM_NEWLINK, 0, body, "netlink move link", name)


def set_bridge_port(name: str, *, hairpin: bool, isolated: bool) -> Message:
    """Change a link that is a port of a bridge.

    A hairpin port may get a frame back that came from it. An isolated one exchanges frames with the bridge itself and
    with ports that are not isolated, only.
    """
    data = attribute(_IFLA_BRPORT_HAIRPIN, bytes([hairpin])) + attribute(_IFLA_BRPORT_ISOLATED, bytes([isolated]))
    info = _text(_IFLA_INFO_SLAVE_KIND, "bridge") + attribute(IFLA_INFO_SLAVE_DATA | _NLA_F_NESTED, data)
    body = IFINFO.pack(0, 0, 0, 0, 0) + _text(IFLA_IFNAME, name) + attribute(IFLA_LINKINFO | _NLA_F_NESTED, info)
    # No link-local address: hundreds of them would be read by everyone who asks for the host's addresses and routes.
    mode = attribute(_IFLA_INET6_ADDR_GEN_MODE, b"\1")
    if _HAS_IPV6:
        body += attribute(_IFLA_AF_SPEC | _NLA_F_NESTED, attribute(int(socket.AF_INET6) | _NLA_F_NESTED, mode))
    return Message(RTM_NEWLINK, 0, body, "netlink set bridge port", name)


def delete_link(link: int | str) -> Message:
    """Delete a link, by index or name. Slow (20 ms): the kernel waits for every reader of it."""
    body = IFINFO.pack(0, 0, link if isinstance(link, int) else 0, 0, 0)
    if isinstance(link, str):
        body += _text(IFLA_IFNAME, link)
    return Message(RTM_DELLINK, 0, body, "netlink dellink", str(link))


def delete_group(group: int) -> Message:
    """Delete every link of a group (`set_link`), in the time it takes to delete one."""
    body = IFINFO.pack(0, 0, 0, 0, 0) + _number(IFLA_GROUP, group)
    return Message(RTM_DELLINK, 0, body, "netlink dellink group", str(group))


def delete_address(ifindex: int, address: str, prefix: int) -> Message:
    """Take an address from a link."""
    family, packed = _family(address)
    body = IFADDR.pack(family, prefix, 0, 0, ifindex) + attribute(IFA_LOCAL, packed)
    return Message(_RTM_DELADDR, 0, body, "netlink deladdr", f"{address}/{prefix}")


def add_address(index: int, address: str, prefix: int) -> Message:
    """Give a link an address; one it has already is no error. One of IPv6 is of use at once, without detection of
    duplicates: who gives addresses knows that there are none."""
    family, packed = _family(address)
    flags = _IFA_F_NODAD if family == socket.AF_INET6 else 0
    body = IFADDR.pack(family, prefix, flags, 0, index) + attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
    return Message(RTM_NEWADDR, _NLM_F_CREATE | _NLM_F_REPLACE, body, "netlink newaddr", f"{address}/{prefix}")


def add_route(
    destination: str | None,
    prefix: int,
    *,
    gateway: str | None = None,
    index: int | None = None,
    replace: bool = False,
    family: int = socket.AF_INET,
) -> Message:
    """A route in the main table; `destination` None is the default route. `family` is for one with neither destination
    nor gateway; `replace`: instead of one to the same destination."""
    flags = _NLM_F_CREATE | (_NLM_F_REPLACE if replace else _NLM_F_EXCL)
    body, name = _route(destination, prefix, gateway, index, family)
    return Message(RTM_NEWROUTE, flags, body, "netlink newroute", name)


def delete_route(
    destination: str | None,
    prefix: int,
    *,
    gateway: str | None = None,
    index: int | None = None,
    family: int = socket.AF_INET,
) -> Message:
    """Undo `add_route`."""
    body, name = _route(destination, prefix, gateway, index, family)
    return Message(_RTM_DELROUTE, 0, body, "netlink delroute", name)


def _route(
    destination: str | None, prefix: int, gateway: str | None, index: int | None, family: int
) -> tuple[bytes, str]:
    if destination or gateway:
        family, _ = _family(destination or gateway or "")
    scope = 0 if gateway or family == socket.AF_INET6 else 253
    body = RTMSG.pack(family, prefix, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, scope, _RTN_UNICAST, 0)
    if destination is not None:
        body += attribute(RTA_DST, _family(destination)[1])
    if gateway is not None:
        body += attribute(RTA_GATEWAY, _family(gateway)[1])
    if index is not None:
        body += _number(RTA_OIF, index)
    return body, f"{destination}/{prefix}" if destination else "default"
