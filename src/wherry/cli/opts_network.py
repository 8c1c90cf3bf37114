"""--network and the flags that go with it."""

from __future__ import annotations

from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Flags

_BUILT_IN = ("default", "bridge", "host", "none", "")


def network(text: str) -> dict[str, Any]:
    """NAME, or name=NAME,alias=...,ip=...: one attachment. Raises InvalidArgument in docker's words."""
    result: dict[str, Any] = {"target": "", "aliases": [], "options": {}, "link_local": []}
    if "=" not in text:
        result["target"] = text
        return result
    from wherry.cli.opts_mounts import csv_fields

    for field in csv_fields(text):
        name, equals, value = field.partition("=")
        key, value = name.strip().lower(), value.strip()
        if not equals:
            raise InvalidArgument(f"invalid field {field}")
        if key == "alias":
            result["aliases"].append(value)
        elif key == "driver-opt":
            option, found, setting = value.strip('"').partition("=")
            if not found:
                raise InvalidArgument(f'invalid key value pair format in driver options: "{value}"')
            result["options"][option.lower()] = setting.lower()
        elif key == "link-local-ip":
            result["link_local"].append(value)
        elif key == "gw-priority":
            try:
                result["priority"] = int(value)
            except ValueError:
                raise InvalidArgument(f"invalid gw-priority ({value}): invalid syntax") from None
        elif key in ("name", "ip", "ip6", "mac-address"):
            result["target" if key == "name" else key] = value
        else:
            raise InvalidArgument(f"invalid field key {key}")
    if not result["target"]:
        raise InvalidArgument("network name/id is not specified")
    return result


def endpoints(flags: Flags) -> tuple[str, dict[str, Any]]:
    """(HostConfig.NetworkMode, NetworkingConfig.EndpointsConfig)."""
    wanted: list[dict[str, Any]] = [dict(item) for item in flags["network"]]
    if not wanted:
        wanted = [{"target": "default", "aliases": [], "options": {}, "link_local": []}]
    _apply_flags(wanted[0], flags)
    result: dict[str, Any] = {}
    user_defined = [item for item in wanted if item["target"] not in _BUILT_IN and not _joined(item)]
    for item in wanted:
        if not item["target"]:
            raise InvalidArgument("no name set for network")
        if item["target"] in result:
            raise InvalidArgument(f'network "{item["target"]}" is specified multiple times')
        if item not in user_defined and item["aliases"]:
            raise InvalidArgument("network-scoped aliases are only supported for user-defined networks")
        result[item["target"]] = _endpoint(item, item in user_defined)
    if len(wanted) > 1 and len(user_defined) != len(wanted):
        raise InvalidArgument("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
    if flags["network"] and len(wanted) == 1 and not any(result[wanted[0]["target"]].values()):
        result = {}  # as docker's client: a single network without settings is told by its mode alone
    return str(wanted[0]["target"]), result


def _joined(item: dict[str, Any]) -> bool:
    return str(item["target"]).startswith("container:")


def _apply_flags(first: dict[str, Any], flags: Flags) -> None:
    """The flags for addresses and names hold for the first network."""
    if flags["network-alias"]:
        if first["aliases"]:
            raise InvalidArgument("conflicting options: cannot specify both --network-alias and per-network alias")
        first["aliases"] = flags["network-alias"]
    if flags["link"]:
        first["links"] = flags["link"]
    for name in ("ip", "ip6", "mac-address"):
        if flags[name]:
            if first.get(name):
                label = {"ip": "IPv4 address", "ip6": "IPv6 address", "mac-address": "MAC address"}[name]
                raise InvalidArgument(f"conflicting options: cannot specify both --{name} and per-network {label}")
            first[name] = flags[name]
    if flags["link-local-ip"]:
        first["link_local"] = flags["link-local-ip"]
    if first.get("mac-address"):
        _check_mac(first["mac-address"])


def _check_mac(text: str) -> None:
    parts = text.replace("-", ":").split(":")
    if len(parts) not in (6, 8, 20) or not all(
        len(part) == 2 and set(part.lower()) <= set("0123456789abcdef") for part in parts
    ):
        raise InvalidArgument(f"{text} is not a valid mac address")


def _endpoint(item: dict[str, Any], user_defined: bool) -> dict[str, Any]:
    addresses: dict[str, Any] = {}
    if item.get("ip"):
        addresses["IPv4Address"] = item["ip"]
    if item.get("ip6"):
        addresses["IPv6Address"] = item["ip6"]
    if item["link_local"]:
        addresses["LinkLocalIPs"] = item["link_local"]
    return {
        "IPAMConfig": addresses or None,
        "Links": item.get("links") if user_defined else None,
        "Aliases": item["aliases"] or None,
        "MacAddress": item.get("mac-address", ""),
        "DriverOpts": item["options"] or None,
        "GwPriority": item.get("priority", 0),
        "NetworkID": "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }
