"""What becomes of a packet to an address and a port of this host: which element or rule leads it on, or stops it."""

import re
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import NamedTuple

from wherry.errors import InvalidArgument
from wherry.kernel import netns, sockets
from wherry.kernel.netlink import Netlink
from wherry.kernel.nftables import Nftables
from wherry.network.endpoint import PROTOCOLS, Endpoint, PublishedPort
from wherry.network.network import Network
from wherry.network.rules import elements

_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}
_DROPPING = re.compile(r"^\t\ttype filter hook (forward|input) priority [^;]+; policy drop;", re.MULTILINE)


class Explanation(NamedTuple):
    """`passes`: by our own rules. `steps` say why, in the order of the packet's way."""

    passes: bool
    steps: tuple[str, ...]


class Surroundings(NamedTuple):
    """What is asked. `table` is our own."""

    host: Netlink
    nft: Nftables
    table: str
    endpoints: Iterable[Endpoint]
    networks: Iterable[Network]


def explain(around: Surroundings, address: str, port: int, proto: str = "tcp") -> Explanation:
    """For a packet from outside. InvalidArgument for what is no address, port or protocol."""
    try:
        wanted = ip_address(address)
    except ValueError:
        raise InvalidArgument(
            f"invalid IP address: {address}", object=address, hint="name an address of the host"
        ) from None
    if proto not in PROTOCOLS or not 0 < port < 65536:
        raise InvalidArgument(f"invalid port: {port}/{proto}", object=f"{port}/{proto}")
    version = wanted.version
    local = {ip_address(a.address) for a in around.host.addresses()} | {ip_address("127.0.0.1"), ip_address("::1")}
    if wanted not in local and not (version == 4 and wanted.is_loopback):
        return _not_local(around, str(wanted), port, proto)
    if str(wanted) == "::1":
        return Explanation(False, ("ports of containers are not reached at ::1: 127.0.0.1 is the same host",))
    found = _published(around.endpoints, str(wanted), port, proto, version)
    if found is None:
        return _unpublished(around, str(wanted), port, proto, version)
    endpoint, published = found
    name = endpoint.name or endpoint.sandbox[:12]
    element = next(e for e in elements(endpoint) if e.first <= port <= e.last and e.proto == proto)
    inner = published.container_port + port - published.host_port
    target = endpoint.ipv6 if version == 6 else endpoint.ipv4
    steps = [
        f"{wanted} is an address of this host, and {port}/{proto} is published by {name}",
        f"map {element.map} of table inet {around.table} leads it to {target} port {inner} ({endpoint.network})",
        f"chain enter_{endpoint.network_id[:12]} accepts what was led there (ct status dnat)",
        *_others(around, "forward"),
        _listener(endpoint, inner, proto, version),
    ]
    if wanted.is_loopback:
        steps.insert(1, "only programs of this host itself can ask at a loopback address")
    return Explanation(True, tuple(steps))


def _published(
    endpoints: Iterable[Endpoint], address: str, port: int, proto: str, version: int
) -> tuple[Endpoint, PublishedPort] | None:
    anywhere = "::" if version == 6 else "0.0.0.0"
    found = None
    for endpoint in endpoints:
        for one in endpoint.ports:
            if one.proto == proto and one.host_port and one.host_port <= port < one.host_port + one.count:
                if one.host_ip == address:
                    return endpoint, one
                if one.host_ip == anywhere:
                    found = endpoint, one
    return found


def _not_local(around: Surroundings, address: str, port: int, proto: str) -> Explanation:
    for network in around.networks:
        for subnet in network.subnets:
            if network.driver != "bridge" or not subnet.subnet or ip_address(address) not in subnet.network:
                continue
            chain = f"guard_{network.id[:12]}"
            return Explanation(
                False,
                (
                    f"{address} is an address of network {network.name}, not of this host",
                    f"chain {chain} of table inet {around.table} drops what comes from outside the network",
                    f"publish the port ({port}/{proto}), or give the network the gateway mode routed",
                ),
            )
    return Explanation(False, (f"{address} is not an address of this host, nor of one of its networks",))


def _unpublished(around: Surroundings, address: str, port: int, proto: str, version: int) -> Explanation:
    steps = [f"{address} is an address of this host, and no container has published {port}/{proto} there"]
    other = [
        f"{one.host_ip}:{one.host_port}"
        for e in around.endpoints
        for one in e.ports
        if one.proto == proto and one.host_port <= port < one.host_port + one.count
    ]
    if other:
        steps.append(f"it is published at {', '.join(other)} only")
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    try:
        listening = any(number == port for _, number in sockets.bound_ports(family, _NUMBERS[proto]))
    except OSError:
        return Explanation(False, tuple(steps))
    steps += _others(around, "input")
    steps.append("a program of the host listens there" if listening else "no program of the host listens there")
    return Explanation(False, tuple(steps))


def _others(around: Surroundings, hook: str) -> list[str]:
    found = []
    for block in around.nft.run("list chains").split("\ntable "):
        name = block.removeprefix("table ").split(" {", 1)[0].strip()
        if name == f"inet {around.table}" or name.split(" ")[0] not in ("ip", "ip6", "inet"):
            continue
        if any(match[1] == hook for match in _DROPPING.finditer(block)):
            found.append(f"table {name} drops what it does not know: it has to let this through too")
    return found


def _listener(endpoint: Endpoint, port: int, proto: str, version: int) -> str:
    name = endpoint.name or endpoint.sandbox[:12]
    if endpoint.netns is None:
        return f"{name} has no network of its own"
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    try:
        bound = netns.enter(str(endpoint.netns), lambda: sockets.bound_ports(family, _NUMBERS[proto]))
    except OSError:
        return f"whether {name} listens cannot be told here"
    addresses = [address for address, number in bound if number == port]
    if not addresses:
        return f"nothing in {name} listens on port {port}: the connection is refused there"
    if all(ip_address(address).is_loopback for address in addresses):
        return f"{name} listens on port {port} at its own loopback only: the connection is refused there"
    return f"{name} listens on port {port}"
