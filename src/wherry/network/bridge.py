"""The bridge of a network: the device, and what the kernel has to be told about it."""

import errno
import os
import socket
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

from wherry.errors import FailedPrecondition, InvalidArgument
from wherry.kernel import sysctl
from wherry.kernel.netlink import (
    Link,
    Netlink,
    add_address,
    delete_address,
    delete_group,
    delete_link,
    new_bridge,
    set_link,
)

AnyInterface = IPv4Interface | IPv6Interface
_MAIN_TABLE = 254
OURS = 0x7765
"""The link group of what we made: an administrator's own devices are used, and never removed."""
_DEFAULT_MTU = 1500


@dataclass(frozen=True, slots=True)
class Bridge:
    """The device as it is. `made`: just now, by us."""

    name: str
    ifindex: int
    mtu: int
    mac: str
    made: bool


def set_up(host: Netlink, name: str, addresses: Collection[AnyInterface], mtu: int) -> Bridge:
    """Make or adopt a bridge; `addresses` are all it then has, but for a link-local one."""
    link = find(host, name)
    made = link is None
    if link is None:
        host.request(new_bridge(name, mac=_random_mac(), mtu=mtu), set_link(name, group=OURS))
        link = host.link(name)
    elif link.kind != "bridge":
        raise FailedPrecondition(f"{name} is a {link.kind or 'device'}, not a bridge", object=name)
    elif link.mtu != mtu:
        host.request(set_link(link.ifindex, mtu=mtu))
    for old in [] if made else addresses_of(host, link):
        if old not in addresses and not old.is_link_local:
            host.request(delete_address(link.ifindex, str(old.ip), old.network.prefixlen))
    _set_parameters(name, ipv6=any(address.version == 6 for address in addresses))
    given = [add_address(link.ifindex, str(address.ip), address.network.prefixlen) for address in addresses]
    host.request(*given, set_link(link.ifindex, up=True))
    return Bridge(name, link.ifindex, mtu, link.mac, made)


def remove(host: Netlink, name: str) -> None:
    """Delete a bridge; absent is no error."""
    try:
        host.request(delete_link(name))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def parse_bip(text: str) -> IPv4Interface:
    """An address with its prefix, as --bip takes it; InvalidArgument."""
    try:
        found = IPv4Interface(text)
    except ValueError:
        found = IPv4Interface("0.0.0.0/32")
    network = found.network
    if network.prefixlen > 30 or found.ip in (network.network_address, network.broadcast_address):
        raise InvalidArgument(
            f"invalid bridge address {text!r}", object=text, hint="an address and a prefix: 172.17.0.1/16"
        )
    return found


def delete_links(host: Netlink, links: Iterable[Link]) -> None:
    """Delete links, all in the time of one: deleting waits for every reader in the kernel, about 20 ms."""
    group = int.from_bytes(os.urandom(4), "little") | 1
    found = False
    for link in links:
        try:
            host.request(set_link(link.ifindex, group=group))
            found = True
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
    if found:
        try:
            host.request(delete_group(group))
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.EINVAL):
                raise


def addresses_of(host: Netlink, link: Link) -> list[AnyInterface]:
    """Every address of a link."""
    return [ip_interface((a.address, a.prefix)) for a in host.addresses() if a.ifindex == link.ifindex]


def find(host: Netlink, name: str) -> Link | None:
    """The link of this name."""
    try:
        return host.link(name)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def uplink_mtu(host: Netlink) -> int:
    """The MTU of the link that the default route of the main table leads to."""
    for family in (socket.AF_INET, socket.AF_INET6):
        routes = [
            route
            for route in host.routes(family)
            if route.destination is None and route.prefix == 0 and route.table == _MAIN_TABLE and route.ifindex
        ]
        if routes:
            return host.link_at(min(routes, key=lambda route: route.metric).ifindex).mtu
    return _DEFAULT_MTU


def _random_mac() -> str:
    # 02: locally administered, unicast.
    return "02:42:" + os.urandom(4).hex(":")


def _set_parameters(bridge: str, *, ipv6: bool) -> None:
    # Lets 127.0.0.1 of the host reach published ports; the table's `guard` chain drops what this would let in.
    sysctl.write(f"net/ipv4/conf/{bridge}/route_localnet", "1")
    try:
        # Without an IPv6 network no link-local one either, past every IPv4 rule, to services that listen on [::].
        sysctl.write(f"net/ipv6/conf/{bridge}/disable_ipv6", "0" if ipv6 else "1")
        if ipv6:
            # The bridge's addresses are of use at once, and routers are not believed: it is one.
            sysctl.write(f"net/ipv6/conf/{bridge}/accept_dad", "0")
            sysctl.write(f"net/ipv6/conf/{bridge}/accept_ra", "0")
    except FileNotFoundError:
        pass  # a kernel without IPv6
