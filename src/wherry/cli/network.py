"""`wherry network ls`."""

from __future__ import annotations

from wherry.cli import describe, filters, listing
from wherry.cli.flags import Command
from wherry.cli.listing import Row
from wherry.cli.ps import labels_text

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


COMMANDS = {"network ls": Command(ls, FLAGS)}
