"""Networks as the Docker API shows them (GET /networks, /networks/{id})."""

from collections.abc import Iterable, Mapping
from typing import Any

from wherry.network.endpoint import Endpoint
from wherry.network.network import Network, Subnet


def network(found: Network, endpoints: Iterable[Endpoint], names: Mapping[str, str]) -> dict[str, Any]:
    """A network's document. `names`: sandbox → the container's name by now."""
    plain = found.driver in ("host", "null") and not found.config_only
    return {
        "Name": found.name,
        "Id": found.id,
        "Created": found.created,
        "Scope": found.scope,
        "Driver": found.driver,
        "EnableIPv4": found.ipv4,
        "EnableIPv6": found.ipv6,
        "IPAM": {
            "Driver": found.ipam_driver,
            "Options": None if found.built_in else dict(found.ipam_options or {}),
            "Config": None if plain else [_subnet(subnet) for subnet in found.subnets],
        },
        "Internal": found.internal,
        "Attachable": found.attachable,
        "Ingress": found.ingress,
        "ConfigFrom": {"Network": found.config_from},
        "ConfigOnly": found.config_only,
        "Containers": {e.sandbox: _member(e, names.get(e.sandbox, e.name)) for e in endpoints},
        "Options": dict(found.options),
        "Labels": dict(found.labels),
    }


def _subnet(subnet: Subnet) -> dict[str, Any]:
    shown: dict[str, Any] = {"Subnet": subnet.subnet}
    if subnet.ip_range:
        shown["IPRange"] = subnet.ip_range
    if subnet.gateway:
        shown["Gateway"] = subnet.gateway
    if subnet.auxiliary:
        shown["AuxiliaryAddresses"] = dict(subnet.auxiliary)
    return shown


def _member(endpoint: Endpoint, name: str) -> dict[str, str]:
    return {
        "Name": name,
        "EndpointID": endpoint.endpoint_id,
        "MacAddress": endpoint.mac,
        "IPv4Address": f"{endpoint.ipv4}/{endpoint.prefix}" if endpoint.ipv4 else "",
        "IPv6Address": f"{endpoint.ipv6}/{endpoint.prefix6}" if endpoint.ipv6 else "",
    }
