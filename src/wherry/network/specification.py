"""A network as somebody asks for it, checked, and completed with what was left to us."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from wherry.errors import FailedPrecondition, InvalidArgument, PermissionDenied, Unavailable
from wherry.network import pools
from wherry.network.catalog import now
from wherry.network.ipam import AddressPool
from wherry.network.network import BUILT_IN, Network, Subnet
from wherry.network.pools import AnyNetwork, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRequest:
    """What to make. `ipv4`, `ipv6` None: as the daemon sees fit. `scope` "" is the driver's."""

    name: str
    driver: str = ""
    scope: str = ""
    ipv4: bool | None = None
    ipv6: bool | None = None
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: str = ""
    ipam_driver: str = ""
    ipam_options: Mapping[str, str] | None = None
    subnets: Sequence[Subnet] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


class Surroundings(NamedTuple):
    """What a choice depends on. `used` are the subnets of networks, `host` everything else that is taken."""

    pools: Sequence[Pool]
    pools6: Sequence[Pool]
    used: Sequence[AnyNetwork]
    host: Iterable[AnyNetwork]
    ipv6: bool


def check(request: NetworkRequest) -> None:
    """InvalidArgument and its kin in docker's words, for what is wrong whatever else there is."""
    if not request.name.strip():
        raise InvalidArgument("invalid network name: name is empty")
    if request.name in BUILT_IN or request.name == "default":
        raise PermissionDenied(f"operation is not permitted on predefined {request.name} network", object=request.name)
    if "/" in request.name or request.name != request.name.strip() or len(request.name) > 255:
        raise InvalidArgument(f"invalid network name: {request.name!r}", object=request.name)
    if request.ingress:
        raise InvalidArgument("Ingress network can only be global scope network", object=request.name)
    if request.scope not in ("", "local", "global", "swarm"):
        raise InvalidArgument(f"invalid network scope: {request.scope}", object="Scope")
    if request.scope in ("swarm", "global"):
        raise PermissionDenied("cannot create a swarm scoped network when swarm is not active", object="Scope")
    if request.ipv4 is False and not request.ipv6:
        raise InvalidArgument("IPv4 or IPv6 must be enabled", object=request.name)
    if request.config_only and request.config_from:
        raise PermissionDenied("a config-only network cannot itself come from another", object=request.name)
    _check_subnets(request)


def inherit(request: NetworkRequest, source: Network) -> NetworkRequest:
    """The request with what a configuration-only network says (docker run's --config-from)."""
    given = [
        name
        for name, value in (
            ("ipam", request.subnets or request.ipam_driver not in ("", "default") or request.ipam_options),
            ("options", request.options),
            ("labels", request.labels),
            ("internal", request.internal),
            ("ipv6", request.ipv6),
        )
        if value
    ]
    if not source.config_only:
        raise PermissionDenied(f"{source.name} is not a configuration network", object=source.name)
    if given:
        raise PermissionDenied(
            f"user defined {given[0]} are not supported if the network depends on a configuration network",
            object=request.name,
        )
    return replace(
        request,
        ipv4=source.ipv4,
        ipv6=source.ipv6,
        internal=source.internal,
        subnets=source.subnets,
        ipam_driver=source.ipam_driver,
        ipam_options=source.ipam_options,
        options=source.options,
        labels=source.labels,
    )


def draft(request: NetworkRequest) -> Network:
    """The record without what is chosen."""
    return Network(
        name=request.name,
        id=os.urandom(32).hex(),
        # docker's client always names a driver, and means none.
        driver="null" if request.config_only else request.driver or "bridge",
        created=now(),
        ipv4=request.ipv4 is not False,
        ipv6=bool(request.ipv6),
        internal=request.internal,
        attachable=request.attachable,
        config_only=request.config_only,
        config_from=request.config_from,
        ipam_driver=request.ipam_driver or "default",
        ipam_options=request.ipam_options if request.ipam_options is not None else {},
        subnets=tuple(request.subnets),
        own_subnets=bool(request.subnets),
        options=dict(request.options),
        labels=dict(request.labels),
    )


def complete(network: Network, request: NetworkRequest, around: Surroundings) -> Network:
    """With subnets and gateways; Conflict in docker's words when they overlap another network's."""
    ipv6 = network.ipv6
    if request.ipv6 is None and not request.subnets and around.ipv6:
        ipv6 = True
    wanted = ((4, network.ipv4), (6, ipv6))
    subnets: list[Subnet] = []
    gateways: dict[str, str] = {}
    for version, is_wanted in wanted:
        given = network.of_version(version) if network.subnets else ()
        if given and not is_wanted:
            raise InvalidArgument(
                f"invalid network config: the subnet {given[0].subnet} needs IPv{version} to be enabled",
                object=given[0].subnet,
            )
        if not is_wanted:
            continue
        if not given:
            base = around.pools if version == 4 else around.pools6
            chosen = pools.choose(base, version, [*around.used, *around.host])
            # The address that follows the network's own, as every allocator here and docker's gives it first.
            given = (Subnet(str(chosen), str(chosen.network_address + 1)),)
        for subnet in given:
            _check_overlap(subnet, [*around.used, *(other.network for other in subnets)])
            subnets.append(subnet)
            gateways[subnet.subnet] = subnet.gateway or _first(subnet)
    return replace(network, ipv6=ipv6, subnets=tuple(subnets), gateways=gateways)


def _first(subnet: Subnet) -> str:
    part = ip_network(subnet.ip_range) if subnet.ip_range else None
    reserved = [ip_address(address) for address in subnet.auxiliary.values()]
    try:
        return str(AddressPool(subnet.network, None, part, reserved).allocate())
    except Unavailable:
        raise InvalidArgument(
            f"the subnet {subnet.subnet} has no address for a gateway", object=subnet.subnet
        ) from None


def _check_overlap(subnet: Subnet, used: Sequence[AnyNetwork]) -> None:
    network = subnet.network
    if any(network.version == other.version and network.overlaps(other) for other in used):
        raise FailedPrecondition(
            "invalid pool request: Pool overlaps with other one on this address space", object=subnet.subnet
        )


def _check_subnets(request: NetworkRequest) -> None:
    wrong: list[str] = []
    for subnet in request.subnets:
        wrong += _faults(subnet)
    if wrong:
        raise InvalidArgument("invalid network config:\n" + "\n".join(wrong), object=request.name)


def _faults(subnet: Subnet) -> list[str]:
    if not subnet.subnet:
        return (
            ["every address configuration needs a subnet"]
            if subnet.gateway or subnet.ip_range or subnet.auxiliary
            else []
        )
    try:
        network = ip_network(subnet.subnet, strict=False)
    except ValueError:
        return [f"invalid subnet {subnet.subnet}: invalid CIDR block notation"]
    wrong = []
    if str(network) != subnet.subnet:
        wrong.append(f"invalid subnet {subnet.subnet}: it should be {network}")
    if subnet.ip_range:
        wrong += _range_faults(subnet.ip_range, network)
    if subnet.gateway:
        wrong += _address_faults("gateway", subnet.gateway, network)
    for address in subnet.auxiliary.values():
        wrong += _address_faults("auxiliary address", address, network)
    return wrong


def _range_faults(text: str, network: IPv4Network | IPv6Network) -> list[str]:
    try:
        part = ip_network(text, strict=False)
    except ValueError:
        return [f"invalid ip-range {text}: invalid CIDR block notation"]
    if part.version != network.version:
        return [f"invalid ip-range {text}: parent subnet is an IPv{network.version} block"]
    wrong = []
    if str(part) != text:
        wrong.append(f"invalid ip-range {text}: it should be {part}")
    if part.prefixlen < network.prefixlen:
        wrong.append(f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {network}")
    elif not part.subnet_of(network):  # type: ignore[arg-type]
        wrong.append(f"invalid ip-range {text}: parent subnet {network} doesn't contain ip-range")
    return wrong


def _address_faults(kind: str, text: str, network: IPv4Network | IPv6Network) -> list[str]:
    try:
        address = ip_address(text)
    except ValueError:
        return [f"invalid {kind} {text}: invalid address"]
    if address.version != network.version:
        return [f"invalid {kind} {text}: parent subnet is an IPv{network.version} block"]
    if address not in network:
        return [f"invalid {kind} {text}: parent subnet {network} doesn't contain this address"]
    return []
