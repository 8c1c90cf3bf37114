"""`wherry volume create ls rm`."""

from __future__ import annotations

import sys

from wherry.cli import describe, filters, listing
from wherry.cli.flags import Command, StatusError
from wherry.cli.listing import Row
from wherry.cli.ps import labels_text
from wherry.cli.units import decimal_size
from wherry.client.engine import segment
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

_CLUSTER = "there are no cluster volumes"


class Volume(Row):
    headers = {"Name": "VOLUME NAME"}
    type_name = "*formatter.volumeContext"

    def __init__(self, item: dict[str, Any]) -> None:
        self._item = item

    def Name(self) -> str:
        return str(self._item["Name"])

    def Driver(self) -> str:
        return str(self._item.get("Driver", ""))

    def Scope(self) -> str:
        return str(self._item.get("Scope", ""))

    def Mountpoint(self) -> str:
        return str(self._item.get("Mountpoint", ""))

    def Labels(self) -> str:
        return labels_text(self._item.get("Labels"))

    def Label(self, name: str) -> str:
        return str((self._item.get("Labels") or {}).get(name, ""))

    def Links(self) -> str:
        usage = self._item.get("UsageData")
        return str(usage["RefCount"]) if usage else "N/A"

    def Size(self) -> str:
        usage = self._item.get("UsageData")
        return decimal_size(usage["Size"]) if usage else "N/A"

    def Group(self) -> str:
        return "N/A"

    def Status(self) -> str:
        return "N/A"

    def Availability(self) -> str:
        return "N/A"


def create(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    from wherry.cli.opts_values import as_map

    body = {
        "Driver": flags["driver"],
        "DriverOpts": as_map(flags["opt"]),
        "Labels": as_map(flags["label"]),
        "Name": arguments[0] if arguments else "",
    }
    print(cli.engine.post("/volumes/create", (), body)["Name"])
    return 0


def ls(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    found = cli.engine.get("/volumes", filters.encode(flags["filter"]))
    items = sorted(found.get("Volumes") or (), key=lambda item: _natural(item["Name"]))
    rows = [Volume(item) for item in items]
    listing.show(rows, Volume, flags["format"], ("Driver", "Name"), "Name" if flags["quiet"] else "")
    return 0


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Runs of digits in a name count as numbers."""
    parts: list[tuple[int, int, str]] = []
    run = ""
    for char in [*name, ""]:
        if run and (not char or char.isdigit() != run[0].isdigit()):
            parts.append((0, int(run), "") if run[0].isdigit() else (1, 0, run))
            run = ""
        run += char
    return parts


def rm(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    errors = []
    for name in arguments:
        try:
            cli.engine.delete(f"/volumes/{segment(name)}", [("force", "1")] if flags["force"] else [])
            print(name)
        except WherryError as error:
            errors.append(str(error))
    if errors:
        sys.stdout.flush()
        raise StatusError("\n".join(errors), 1)
    return 0


def rename(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    cli.engine.post(f"/wherry/volumes/{segment(arguments[0])}/rename", [("name", arguments[1])])
    return 0


def clone(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    print(cli.engine.post(f"/wherry/volumes/{segment(arguments[0])}/clone", [("name", arguments[1])])["Name"])
    return 0


def export(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    from wherry.cli.export import write_archive

    path = f"/wherry/volumes/{segment(arguments[0])}/export"
    write_archive(flags["output"], "failed to export volume", lambda: cli.engine.open("GET", path).chunks())
    return 0


def import_volume(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    from wherry.cli.load import blocks

    tar = [("Content-Type", "application/x-tar")]
    path = f"/wherry/volumes/{segment(arguments[0])}/import"
    print(cli.engine.post(path, (), blocks(flags["input"]), tar)["Name"])
    return 0


def du(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    names = arguments or [item["Name"] for item in cli.engine.get("/volumes").get("Volumes") or ()]
    for name in names:
        size = cli.engine.get(f"/wherry/volumes/{segment(name)}/du")["Size"]
        shown = "N/A" if size < 0 else str(size) if flags["bytes"] else decimal_size(size)
        print(f"{shown}\t{name}")
    return 0


_CLUSTER_FLAGS = (
    ("availability", "", "string", "active", "Availability of a cluster volume"),
    ("group", "", "string", "", "Group of a cluster volume"),
    ("limit-bytes", "", "bytes", 0, "Largest size of a cluster volume"),
    ("required-bytes", "", "bytes", 0, "Smallest size of a cluster volume"),
    ("scope", "", "string", "single", "Scope of access to a cluster volume"),
    ("secret", "", "map", None, "Secrets of a cluster volume"),
    ("sharing", "", "string", "none", "How a cluster volume is shared"),
    ("topology-preferred", "", "list", None, "Where a cluster volume should be"),
    ("topology-required", "", "list", None, "Where a cluster volume must be"),
    ("type", "", "string", "block", "How a cluster volume is accessed"),
)
COMMANDS = {
    "volume create": Command(
        create,
        (
            *_CLUSTER_FLAGS,
            ("driver", "d", "string", "local", "Volume driver"),
            ("label", "", "list", None, "Set metadata"),
            ("opt", "o", "map", None, "Options of the driver"),
        ),
        (0, 1),
        refuse={flag[0]: _CLUSTER for flag in _CLUSTER_FLAGS},
    ),
    "volume ls": Command(
        ls,
        (
            ("cluster", "", "bool", False, "Only show cluster volumes"),
            ("filter", "f", "filter", None, describe.FILTER),
            ("format", "", "string", "", describe.FORMAT_LIST),
            ("quiet", "q", "bool", False, "Only show names"),
        ),
        refuse={"cluster": _CLUSTER},
    ),
    "volume rename": Command(rename, (), (2, 2)),
    "volume clone": Command(clone, (), (2, 2)),
    "volume export": Command(export, (("output", "o", "string", "", "Write to a file, instead of STDOUT"),), (1, 1)),
    "volume import": Command(import_volume, (("input", "i", "string", "", "Read a file, instead of STDIN"),), (1, 1)),
    "volume du": Command(du, (("bytes", "b", "bool", False, "Show bytes"),), (0, None)),
    "volume rm": Command(rm, (("force", "f", "bool", False, "Force the removal"),), (1, None)),
}
