"""`wherry ps`."""

from __future__ import annotations

import time

from wherry.cli import describe, filters, listing
from wherry.cli.flags import Command
from wherry.cli.listing import Row
from wherry.cli.units import ago, decimal_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

FLAGS = (
    ("all", "a", "bool", False, "Show all containers, not only those that run"),
    ("filter", "f", "filter", None, describe.FILTER),
    ("format", "", "string", "", describe.FORMAT_LIST),
    ("last", "n", "int", -1, "Show the last containers created, whatever their state"),
    ("latest", "l", "bool", False, "Show the container created last, whatever its state"),
    ("no-trunc", "", "bool", False, "Don't truncate output"),
    ("quiet", "q", "bool", False, "Only show the IDs of containers"),
    ("size", "s", "bool", False, "Show file sizes"),
)
_COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")


def ellipsis(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "\u2026"


def labels_text(labels: dict[str, str] | None) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted((labels or {}).items()))


class Container(Row):
    headers = {
        "ID": "CONTAINER ID",
        "RunningFor": "CREATED",
        "CreatedAt": "CREATED AT",
        "LocalVolumes": "LOCAL VOLUMES",
    }
    type_name = "*formatter.ContainerContext"

    def __init__(self, document: dict[str, Any], now: float, trunc: bool = True) -> None:
        self._item = document
        self._now = now
        self._trunc = trunc

    def ID(self) -> str:
        return str(self._item["Id"])[:12] if self._trunc else str(self._item["Id"])

    def Image(self) -> str:
        image = str(self._item.get("Image") or "<no image>")
        identity = str(self._item.get("ImageID") or "")
        if self._trunc and identity:
            if short_id(image) == short_id(identity):
                return short_id(image)
            name, _, digest = image.partition("@sha256:")
            if digest:
                return name
        return image

    def Command(self) -> str:
        command = str(self._item.get("Command") or "")
        return _quoted(ellipsis(command, 20) if self._trunc else command)

    def CreatedAt(self) -> str:
        from wherry.cli.moments import written

        return written(self._item.get("Created", 0))

    def RunningFor(self) -> str:
        return ago(self._item.get("Created", 0), self._now)

    def Status(self) -> str:
        return str(self._item.get("Status", ""))

    def State(self) -> str:
        return str(self._item.get("State", ""))

    def Ports(self) -> str:
        published = self._item.get("Ports")
        if not published:
            return ""
        from wherry.cli.ports import display

        return display(published)

    def Names(self) -> str:
        names = [str(name).removeprefix("/") for name in self._item.get("Names") or ()]
        # Links give a container more names, of two parts; they are left out of the short form.
        return ",".join(name for name in names if "/" not in name) if self._trunc else ",".join(names)

    def Size(self) -> str:
        written, virtual = self._item.get("SizeRw", 0), self._item.get("SizeRootFs", 0)
        text = decimal_size(written, 3)
        return f"{text} (virtual {decimal_size(virtual, 3)})" if virtual else text

    def Labels(self) -> str:
        return labels_text(self._item.get("Labels"))

    def Label(self, name: str) -> str:
        return str((self._item.get("Labels") or {}).get(name, ""))

    def Mounts(self) -> str:
        names = [mount.get("Name") or mount.get("Source", "") for mount in self._item.get("Mounts") or ()]
        return ",".join(ellipsis(name, 15) if self._trunc else name for name in names)

    def LocalVolumes(self) -> str:
        return str(sum(mount.get("Driver") == "local" for mount in self._item.get("Mounts") or ()))

    def Networks(self) -> str:
        return ",".join(sorted((self._item.get("NetworkSettings") or {}).get("Networks") or {}))

    def Platform(self) -> Any:
        return (self._item.get("ImageManifestDescriptor") or {}).get("platform")


def short_id(text: str) -> str:
    return text.removeprefix("sha256:")[:12]


def _quoted(text: str) -> str:
    if '"' in text or "\\" in text or not text.isprintable():
        from wherry.client.codec import dumps

        return dumps(text)
    return f'"{text}"'


def ps(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    format = flags["format"] or _default_format(cli, flags)
    query = []
    if flags["all"] or flags["latest"] or flags["last"] > 0:
        query.append(("all", "1"))
    if flags["latest"] and flags["last"] == -1:
        query.append(("limit", "1"))
    elif flags["last"] > 0:
        query.append(("limit", str(flags["last"])))
    sizes = flags["size"] or ".Size" in format or "json ." in format
    if sizes:
        query.append(("size", "1"))
    items = cli.engine.get("/containers/json", query + filters.encode(flags["filter"]))
    now = time.time()
    rows = [Container(item, now, not flags["no-trunc"]) for item in items]
    shown = (*_COLUMNS, "Size") if flags["size"] else _COLUMNS
    listing.show(rows, Container, format, shown, "ID" if flags["quiet"] else "")
    return 0


def _default_format(cli: Cli, flags: Flags) -> str:
    if flags["quiet"]:
        return ""
    from wherry.client.context import config

    return str(config(cli.config_directory).get("psFormat") or "")


COMMANDS = {"ps": Command(ps, FLAGS)}
