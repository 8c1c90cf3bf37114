"""Networks as the Docker API shows them (GET /networks, /networks/{id})."""

from collections.abc import Iterable, Mapping
from typing import Any

from wherry.network.bridge import Bridge
from wherry.network.config import NetworkConfig
from wherry.network.endpoint import Endpoint


def network(
    name: str, id: str, created: str, driver: str, endpoints: Iterable[Endpoint], names: Mapping[str, str]
) -> dict[str, Any]:
    """The document of a network without addresses of its own. `names`: sandbox → the container's name by now."""
    return {
        "Name": name,
        "Id": id,
        "Created": created,
        "Scope": "local",
        "Driver": driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": None},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {e.sandbox: _member(e, names.get(e.sandbox, e.name)) for e in endpoints},
        "Options": {},
        "Labels": {},
    }


def add_bridge(document: dict[str, Any], bridge: Bridge, config: NetworkConfig) -> dict[str, Any]:
    """The document, with what the default bridge has besides."""
    addresses = {"Subnet": str(bridge.subnet), "Gateway": str(bridge.gateway)}
    if config.fixed_cidr:
        addresses["IPRange"] = config.fixed_cidr
    document["IPAM"] = {"Driver": "default", "Options": None, "Config": [addresses]}
    document["Options"] = {
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": str(config.icc).lower(),
        "com.docker.network.bridge.enable_ip_masquerade": str(config.ip_masq).lower(),
        "com.docker.network.bridge.host_binding_ipv4": config.default_bind,
        "com.docker.network.bridge.name": bridge.name,
        "com.docker.network.driver.mtu": str(bridge.mtu),
    }
    return document


def _member(endpoint: Endpoint, name: str) -> dict[str, str]:
    return {
        "Name": name,
        "EndpointID": endpoint.endpoint_id,
        "MacAddress": endpoint.mac,
        "IPv4Address": f"{endpoint.ipv4}/{endpoint.prefix}" if endpoint.ipv4 else "",
        "IPv6Address": "",
    }
