"""`wherry network create ls rm connect disconnect`."""

from __future__ import annotations

import sys

from wherry.cli import describe, filters, listing
from wherry.cli.flags import Command, StatusError
from wherry.cli.listing import Row
from wherry.cli.ps import labels_text
from wherry.client.engine import segment
from wherry.errors import InvalidArgument, NotFound, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

FLAGS = (
    ("filter", "f", "filter", None, describe.FILTER),
    ("format", "", "string", "", describe.FORMAT_LIST),
    ("no-trunc", "", "bool", False, "Do not truncate the output"),
    ("quiet", "q", "bool", False, "Only show network IDs"),
)


class Network(Row):
    headers = {"ID": "NETWORK ID", "CreatedAt": "CREATED AT"}
    type_name = "*network.networkContext"

    def __init__(self, item: dict[str, Any], trunc: bool) -> None:
        self._item = item
        self._trunc = trunc

    def ID(self) -> str:
        return str(self._item["Id"])[:12] if self._trunc else str(self._item["Id"])

    def Name(self) -> str:
        return str(self._item["Name"])

    def Driver(self) -> str:
        return str(self._item.get("Driver", ""))

    def Scope(self) -> str:
        return str(self._item.get("Scope", ""))

    def IPv4(self) -> str:
        return _yes(self._item.get("EnableIPv4", True))

    def IPv6(self) -> str:
        return _yes(self._item.get("EnableIPv6"))

    def Internal(self) -> str:
        return _yes(self._item.get("Internal"))

    def Labels(self) -> str:
        return labels_text(self._item.get("Labels"))

    def Label(self, name: str) -> str:
        return str((self._item.get("Labels") or {}).get(name, ""))

    def CreatedAt(self) -> str:
        from wherry.cli.moments import from_rfc3339, written

        text = str(self._item.get("Created", ""))
        seconds = from_rfc3339(text)
        fraction = text.partition(".")[2].rstrip("Z").partition("+")[0].rstrip("0")
        whole, _, zone = written(seconds).partition(" +")
        return f"{whole}.{fraction} +{zone}" if fraction and zone else written(seconds)


def _yes(value: Any) -> str:
    return "true" if value else "false"


def ls(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    items = sorted(cli.engine.get("/networks", filters.encode(flags["filter"])), key=lambda item: str(item["Name"]))
    rows = [Network(item, not flags["no-trunc"]) for item in items]
    listing.show(rows, Network, flags["format"], ("ID", "Name", "Driver", "Scope"), "ID" if flags["quiet"] else "")
    return 0


def create(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    from wherry.cli.opts_ipam import configurations
    from wherry.cli.opts_values import as_map

    options = as_map(flags["ipam-opt"])
    body: dict[str, Any] = {
        "Name": arguments[0],
        "Driver": flags["driver"],
        "Scope": flags["scope"],
        "EnableIPv4": flags["ipv4"] if "ipv4" in flags.changed else None,
        "EnableIPv6": flags["ipv6"] if "ipv6" in flags.changed else None,
        "IPAM": {"Driver": flags["ipam-driver"], "Options": options, "Config": configurations(flags)},
        "Internal": flags["internal"],
        "Attachable": flags["attachable"],
        "Ingress": flags["ingress"],
        "ConfigOnly": flags["config-only"],
        "ConfigFrom": {"Network": flags["config-from"]} if flags["config-from"] else None,
        "Options": as_map(flags["opt"]),
        "Labels": as_map(flags["label"]),
    }
    print(cli.engine.post("/networks/create", (), body)["Id"])
    return 0


def rm(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    errors = []
    for name in arguments:
        try:
            cli.engine.delete(f"/networks/{segment(name)}")
            print(name)
        except NotFound as error:
            if not flags["force"]:
                errors.append(str(error))
        except WherryError as error:
            errors.append(str(error))
    if errors:
        sys.stdout.flush()
        sys.stderr.write("".join(f"{text}\n" for text in errors))
        raise StatusError("exit status 1", 1)
    return 0


def connect(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    options: dict[str, str] = {}
    for text in flags["driver-opt"]:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidArgument("invalid key/value pair format in driver options")
        options[name.strip()] = value
    addresses: dict[str, Any] = {}
    if flags["ip"]:
        addresses["IPv4Address"] = flags["ip"]
    if flags["ip6"]:
        addresses["IPv6Address"] = flags["ip6"]
    if flags["link-local-ip"]:
        addresses["LinkLocalIPs"] = flags["link-local-ip"]
    settings = {
        "IPAMConfig": addresses,
        "Links": flags["link"] or None,
        "Aliases": flags["alias"] or None,
        "DriverOpts": options,
        "GwPriority": flags["gw-priority"],
    }
    body = {"Container": arguments[1], "EndpointConfig": settings}
    cli.engine.post(f"/networks/{segment(arguments[0])}/connect", (), body)
    return 0


def disconnect(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    body = {"Container": arguments[1], "Force": flags["force"]}
    cli.engine.post(f"/networks/{segment(arguments[0])}/disconnect", (), body)
    return 0


def explain(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    text, _, proto = arguments[0].partition("/")
    address, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        raise InvalidArgument(f"{arguments[0]} is not HOST:PORT")
    query = [("address", address.strip("[]") or "127.0.0.1"), ("port", port), ("proto", proto or "tcp")]
    found = cli.engine.get("/wherry/networks/explain", query)
    for number, step in enumerate(found["Steps"], 1):
        print(f"{number}. {step}")
    return 0 if found["Passes"] else 1


_CREATE = (
    ("attachable", "", "bool", False, "Let containers attach themselves"),
    ("aux-address", "", "map", None, "Addresses that are kept free (name=address)"),
    ("config-from", "", "string", "", "Network whose configuration is used"),
    ("config-only", "", "bool", False, "Create a network that is only a configuration for others"),
    ("driver", "d", "string", "bridge", "Driver of the network"),
    ("gateway", "", "strings", None, "IPv4 or IPv6 gateway of a subnet"),
    ("ingress", "", "bool", False, "Create a swarm routing-mesh network"),
    ("internal", "", "bool", False, "Let nothing out of the network"),
    ("ip-range", "", "strings", None, "Give addresses from a part of a subnet"),
    ("ipam-driver", "", "string", "default", "Driver for addresses"),
    ("ipam-opt", "", "map", None, "Options of the driver for addresses"),
    ("ipv4", "", "bool", True, "Give IPv4 addresses"),
    ("ipv6", "", "bool", False, "Give IPv6 addresses (default: when the host has IPv6)"),
    ("label", "", "list", None, "Set metadata"),
    ("opt", "o", "map", None, "Options of the driver"),
    ("scope", "", "string", "", "Scope of the network"),
    ("subnet", "", "strings", None, "Subnet, in CIDR form"),
)
_CONNECT = (
    ("alias", "", "strings", None, "Name of the container on this network"),
    ("driver-opt", "", "strings", None, "Options of the driver"),
    ("gw-priority", "", "int", 0, "The network with the highest one has the default route"),
    ("ip", "", "string", "", "IPv4 address"),
    ("ip6", "", "string", "", "IPv6 address"),
    ("link", "", "list", None, "Add a link to another container"),
    ("link-local-ip", "", "strings", None, "Add a link-local address"),
)
COMMANDS = {
    "network connect": Command(connect, _CONNECT, (2, 2)),
    "network create": Command(create, _CREATE, (1, 1)),
    "network disconnect": Command(
        disconnect, (("force", "f", "bool", False, "Do not mind when it is not connected, or gone"),), (2, 2)
    ),
    "network explain": Command(explain, (), (1, 1)),
    "network ls": Command(ls, FLAGS),
    "network rm": Command(rm, (("force", "f", "bool", False, "Do not mind networks that are not there"),), (1, None)),
}
