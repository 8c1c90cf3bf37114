"""`wherry system df`."""

from __future__ import annotations

import sys
import time

from wherry.cli import describe, listing
from wherry.cli.flags import Command
from wherry.cli.images import Image, rows
from wherry.cli.listing import Row
from wherry.cli.ps import Container
from wherry.cli.units import decimal_size
from wherry.cli.volume import Volume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

FLAGS = (
    ("format", "", "string", "", describe.FORMAT_LIST),
    ("verbose", "v", "bool", False, "Show every object"),
)
_ALIVE = ("running", "paused", "restarting")


class Usage(Row):
    headers = {"TotalCount": "TOTAL"}
    type_name = "*formatter.diskUsageContext"

    def __init__(self, kind: str, total: int, active: int, size: int, reclaimable: int, percent: bool = True) -> None:
        self._kind, self._total, self._active = kind, total, active
        self._size, self._reclaimable, self._percent = size, reclaimable, percent

    def Type(self) -> str:
        return self._kind

    def TotalCount(self) -> str:
        return str(self._total)

    def Active(self) -> str:
        return str(self._active)

    def Size(self) -> str:
        return decimal_size(self._size)

    def Reclaimable(self) -> str:
        text = decimal_size(self._reclaimable)
        return f"{text} ({self._reclaimable * 100 // self._size}%)" if self._percent and self._size > 0 else text


class _Cache(Row):
    headers = {"ID": "CACHE ID", "CacheType": "CACHE TYPE", "CreatedSince": "CREATED", "LastUsedSince": "LAST USED"} | {
        "UsageCount": "USAGE"
    }


def usages(found: dict[str, Any]) -> list[Usage]:
    images = found.get("Images") or []
    layers = found.get("LayersSize", 0)
    used = sum(
        item["Size"] - item["SharedSize"]
        for item in images
        if item.get("Containers", 0) > 0 and item.get("SharedSize", -1) != -1 and item.get("Size", -1) != -1
    )
    containers = found.get("Containers") or []
    alive = [item for item in containers if item.get("State") in _ALIVE]
    sizes = sum(item.get("SizeRw", 0) for item in containers)
    volumes = [item.get("UsageData") or {"Size": -1, "RefCount": -1} for item in found.get("Volumes") or ()]
    full = sum(usage["Size"] for usage in volumes if usage["Size"] != -1)
    unused = sum(usage["Size"] for usage in volumes if usage["RefCount"] == 0 and usage["Size"] != -1)
    caches = found.get("BuildCache") or []
    cached = sum(item.get("Size", 0) for item in caches if not item.get("Shared"))
    busy = sum(item.get("Size", 0) for item in caches if item.get("InUse") and not item.get("Shared"))
    return [
        Usage("Images", len(images), sum(item.get("Containers", 0) > 0 for item in images), layers, layers - used),
        Usage("Containers", len(containers), len(alive), sizes, sizes - sum(item.get("SizeRw", 0) for item in alive)),
        Usage("Local Volumes", len(volumes), sum(usage["RefCount"] > 0 for usage in volumes), full, unused),
        Usage(
            "Build Cache", len(caches), sum(bool(item.get("InUse")) for item in caches), cached, cached - busy, False
        ),
    ]


def df(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    found = cli.engine.get("/system/df")
    if flags["verbose"]:
        return _verbose(found, flags["format"])
    shown = ("Type", "TotalCount", "Active", "Size", "Reclaimable")
    listing.show(usages(found), Usage, flags["format"], shown)
    return 0


def _verbose(found: dict[str, Any], format: str) -> int:
    now = time.time()
    json = format == "json"
    # One row an image here, under its first name; and the container's own size only.
    images = [next(rows([item], False, not json, "" if json else "<none>")) for item in found.get("Images") or ()]
    sizes = [{**item, "SizeRootFs": 0} for item in found.get("Containers") or ()]
    containers = [Container(item, now, not json) for item in sizes]
    volumes = [Volume(item) for item in found.get("Volumes") or ()]
    if json:
        from wherry.client.codec import go_dumps

        document: dict[str, Any] = {"Images": [row.document() for row in images]}
        document["Containers"] = [row.document() for row in containers]
        document["Volumes"] = [row.document() for row in volumes]
        document["BuildCache"] = found.get("BuildCache") or []
        sys.stdout.write(go_dumps(document))
        return 0
    if format and format != "table":
        from wherry.errors import Unimplemented

        raise Unimplemented("system df --verbose knows the formats table and json only")
    columns = ["Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers"]
    print("Images space usage:\n")
    listing.show(images, Image, "", columns)
    print("\nContainers space usage:\n")
    columns = ["ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"]
    listing.show(containers, Container, "", columns)
    print("\nLocal Volumes space usage:\n")
    listing.show(volumes, Volume, "", ["Name", "Links", "Size"])
    print(f"\nBuild cache usage: {usages(found)[3].Size()}\n")
    listing.show([], _Cache, "", ["ID", "CacheType", "Size", "CreatedSince", "LastUsedSince", "UsageCount", "Shared"])
    return 0


COMMANDS = {"system df": Command(df, FLAGS)}
