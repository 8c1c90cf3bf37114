"""Subnets for networks that name none: from the daemon's pools, past everything the host can reach by another way."""

import hashlib
import socket
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import NamedTuple

from wherry.errors import FailedPrecondition, InvalidArgument
from wherry.kernel.netlink import Netlink

AnyNetwork = IPv4Network | IPv6Network
_MACHINE = Path("/etc/machine-id")
# A default route split in two, as VPNs make it, is everything and so forbids nothing.
_WIDEST = {4: 4, 6: 8}


class Pool(NamedTuple):
    """Where subnets come from: `base` in pieces with a prefix of `size` bits."""

    base: AnyNetwork
    size: int


# Docker's own default pools, in its order, so that firewalls and habits made for it fit.
DEFAULT_POOLS = (
    *(Pool(IPv4Network(f"172.{second}.0.0/16"), 16) for second in range(17, 32)),
    Pool(IPv4Network("192.168.0.0/16"), 20),
)


def parse_pools(entries: Sequence[tuple[str, int]]) -> tuple[Pool, ...]:
    """The daemon's `default-address-pools`, (base, size) each; InvalidArgument."""
    found = []
    for base, size in entries:
        try:
            network = ip_network(base)
        except ValueError as error:
            raise InvalidArgument(f"invalid base of a default address pool: {error}", object=base) from None
        if not network.prefixlen <= size <= network.max_prefixlen:
            raise InvalidArgument(
                f"the size /{size} of the default address pool {base} does not fit it", object=base, hint="size is bits"
            )
        found.append(Pool(network, size))
    return tuple(found)


def unique_local(text: str = "") -> Pool:
    """The /48 of unique local addresses (RFC 4193) that belongs to this machine, in pieces of /64."""
    try:
        seed = _MACHINE.read_bytes()
    except OSError:
        seed = socket.gethostname().encode()
    number = hashlib.sha256(b"wherry" + seed + text.encode()).digest()[:5]
    return Pool(IPv6Network((b"\xfd" + number + bytes(10), 48)), 64)


def taken(host: Netlink, *, but: Iterable[int] = ()) -> Iterator[AnyNetwork]:
    """What the host has a route or an address for, of every table, but by the links in `but`."""
    own = set(but)
    for family in (socket.AF_INET, socket.AF_INET6):
        for route in host.routes(family):
            narrow = route.prefix >= _WIDEST[6 if family == socket.AF_INET6 else 4]
            if route.destination is not None and route.ifindex not in own and narrow:
                yield ip_network((route.destination, route.prefix), strict=False)
        for address in host.addresses(family):
            if address.ifindex not in own:
                yield ip_network((address.address, address.prefix), strict=False)


def choose(pools: Iterable[Pool], version: int, used: Iterable[AnyNetwork]) -> AnyNetwork:
    """The first piece of the pools that meets nothing in use; FailedPrecondition when there is none."""
    others = sorted((network for network in used if network.version == version), key=lambda n: int(n.network_address))
    for pool in pools:
        if pool.base.version == version:
            found = _first_free(pool, others)
            if found is not None:
                return found
    if version == 6:
        raise FailedPrecondition("could not find an available, non-overlapping IPv6 address pool", hint="give --subnet")
    raise FailedPrecondition(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network: "
        "all predefined address pools have been fully subnetted",
        hint="choose a subnet, or give the daemon more default-address-pools",
    )


def _first_free(pool: Pool, others: Sequence[AnyNetwork]) -> AnyNetwork | None:
    # Past the end of each that is in the way, so that a pool of 2^64 pieces costs as much as one of 16.
    step = 1 << (pool.base.max_prefixlen - pool.size)
    candidate, last = int(pool.base.network_address), int(pool.base.broadcast_address)
    moved = True
    while moved:
        moved = False
        for other in others:
            first, end = int(other.network_address), int(other.broadcast_address)
            if first < candidate + step and candidate <= end:
                candidate = (end + step) // step * step
                moved = True
    return type(pool.base)((candidate, pool.size)) if candidate + step - 1 <= last else None
