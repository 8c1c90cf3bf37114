"""The bridge: a subnet that meets nothing the host has, the device, and what the kernel has to be told about it."""

import errno
import logging
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from wherry.errors import FailedPrecondition, InvalidArgument
from wherry.kernel import sysctl
from wherry.kernel.netlink import (
    Link,
    Netlink,
    add_address,
    delete_address,
    delete_group,
    new_bridge,
    set_link,
)
from wherry.network.config import NetworkConfig

_log = logging.getLogger(__name__)

# Docker's own default pools, in its order, so that firewalls and habits made for it fit.
_POOLS = (
    *(IPv4Network(f"172.{second}.0.0/16") for second in range(17, 32)),
    *IPv4Network("192.168.0.0/16").subnets(new_prefix=20),
)
_MAIN_TABLE = 254
_DEFAULT_MTU = 1500


@dataclass(frozen=True, slots=True)
class Bridge:
    """The bridge as it is. `gateway` is its own address, which containers route through; `made`: just now, by us."""

    name: str
    ifindex: int
    gateway: IPv4Address
    subnet: IPv4Network
    mtu: int
    mac: str
    made: bool


def set_up(host: Netlink, config: NetworkConfig, live: Iterable[IPv4Interface], last: IPv4Interface | None) -> Bridge:
    """Make or adopt the bridge.

    Its address is that of the endpoints that are alive, else `bip`, else the device's own, else the one of the `last`
    time where still free, else the first free one.
    """
    wanted = parse_bip(config.bip) if config.bip else None
    link = _find(host, config.bridge)
    mtu = config.mtu or _uplink_mtu(host)
    made = link is None
    if link is None:
        host.request(new_bridge(config.bridge, mac=_random_mac(), mtu=mtu))
        link = host.link(config.bridge)
    elif link.kind != "bridge":
        raise FailedPrecondition(f"{config.bridge} is a {link.kind or 'device'}, not a bridge", object=config.bridge)
    elif link.mtu != mtu:
        host.request(set_link(link.ifindex, mtu=mtu))
    alive = next(iter(live), None)
    if alive and wanted and alive != wanted:
        _log.warning("%s stays at %s, not %s, as long as containers run on it", config.bridge, alive, wanted)
    address = alive or wanted or _choose_address(host, link, last)
    for old in _addresses_of(host, link):
        if old != address:
            host.request(delete_address(link.ifindex, str(old.ip), old.network.prefixlen))
    _set_parameters(config.bridge)
    host.request(add_address(link.ifindex, str(address.ip), address.network.prefixlen), set_link(link.ifindex, up=True))
    return Bridge(config.bridge, link.ifindex, address.ip, address.network, mtu, link.mac, made)


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


def free_subnet(taken: Iterable[IPv4Network]) -> IPv4Network:
    """The first of docker's default pools that meets none of the networks; FailedPrecondition when all do."""
    networks = list(taken)
    for pool in _POOLS:
        if not any(pool.overlaps(network) for network in networks):
            return pool
    raise FailedPrecondition(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
        hint="choose a subnet with --bip",
    )


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


def _choose_address(host: Netlink, link: Link, last: IPv4Interface | None) -> IPv4Interface:
    own = _addresses_of(host, link)
    if own:
        return own[0]
    taken = list(_taken(host))
    if last is not None and not any(last.network.overlaps(network) for network in taken):
        return last
    subnet = free_subnet(taken)
    return IPv4Interface((subnet.network_address + 1, subnet.prefixlen))


def _taken(host: Netlink) -> Iterable[IPv4Network]:
    for route in host.routes():
        if route.destination is not None:
            yield IPv4Network((route.destination, route.prefix), strict=False)
    for address in host.addresses(socket.AF_INET):
        yield IPv4Network((address.address, address.prefix), strict=False)


def _addresses_of(host: Netlink, link: Link) -> list[IPv4Interface]:
    found = [address for address in host.addresses(socket.AF_INET) if address.ifindex == link.ifindex]
    return [IPv4Interface((address.address, address.prefix)) for address in found]


def _find(host: Netlink, name: str) -> Link | None:
    try:
        return host.link(name)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def _uplink_mtu(host: Netlink) -> int:
    """The MTU of the link that the default route of the main table leads to."""
    routes = [
        r for r in host.routes() if r.destination is None and r.prefix == 0 and r.table == _MAIN_TABLE and r.ifindex
    ]
    if not routes:
        return _DEFAULT_MTU
    return host.link_at(min(routes, key=lambda route: route.metric).ifindex).mtu


def _random_mac() -> str:
    # 02: locally administered, unicast.
    return "02:42:" + os.urandom(4).hex(":")


def _set_parameters(bridge: str) -> None:
    # Lets 127.0.0.1 of the host reach published ports; the table's `guard` chain drops what this would let in.
    sysctl.write(f"net/ipv4/conf/{bridge}/route_localnet", "1")
    try:
        # No IPv6 network: so no link-local one either, past every IPv4 rule, to services that listen on [::].
        sysctl.write(f"net/ipv6/conf/{bridge}/disable_ipv6", "1")
    except FileNotFoundError:
        pass  # a kernel without IPv6
