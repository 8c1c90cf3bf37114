"""--subnet, --ip-range, --gateway and --aux-address of `network create`, brought together by subnet."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from wherry.errors import InvalidArgument, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Flags


def configurations(flags: Flags) -> list[dict[str, Any]]:
    """IPAM.Config. Raises as docker's client does: what belongs to no subnet is refused here."""
    subnets, ranges, gateways = flags["subnet"], flags["ip-range"], flags["gateway"]
    if len(subnets) < len(ranges) or len(subnets) < len(gateways):
        raise WherryError("every ip-range or gateway must have a corresponding subnet")
    found: dict[str, dict[str, Any]] = {}
    for text in subnets:
        if any(_overlap(text, other) for other in found):
            raise WherryError("multiple overlapping subnet configuration is not supported")
        found[text] = {"Subnet": text}
    for text in ranges:
        home = _home(found, text, "range")
        if "IPRange" in home:
            raise WherryError(f"cannot configure multiple ranges ({text}, {home['IPRange']}) on the same subnet")
        home["IPRange"] = text
    for text in gateways:
        home = _home(found, text, "gateway")
        if "Gateway" in home:
            raise WherryError(f"cannot configure multiple gateways ({text}, {home['Gateway']}) for the same subnet")
        home["Gateway"] = text
    for pair in flags["aux-address"]:
        name, _, text = pair.partition("=")
        _home(found, text, "aux-address").setdefault("AuxiliaryAddresses", {})[name] = text
    return list(found.values())


def _home(found: dict[str, dict[str, Any]], text: str, kind: str) -> dict[str, Any]:
    for subnet, configuration in found.items():
        if _holds(subnet, text):
            return configuration
    raise WherryError(f"no matching subnet for {kind} {text}")


def _holds(subnet: str, text: str) -> bool:
    try:
        parent = ip_network(subnet, strict=False)
        first = ip_network(text, strict=False).network_address if "/" in text else ip_address(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid address: {error}") from None
    return first in parent


def _overlap(one: str, other: str) -> bool:
    try:
        first, second = ip_network(one, strict=False), ip_network(other, strict=False)
    except ValueError:
        return False  # the engine says what is wrong with it
    return first.version == second.version and first.overlaps(second)
