"""`wherry images`."""

from __future__ import annotations

import time

from wherry.cli import describe, filters, listing
from wherry.cli.flags import Command
from wherry.cli.listing import Row
from wherry.cli.ps import short_id
from wherry.cli.units import ago, decimal_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

_NONE = "<none>"
FLAGS = (
    ("all", "a", "bool", False, "Show intermediate images as well"),
    ("digests", "", "bool", False, "Show digests"),
    ("filter", "f", "filter", None, describe.FILTER),
    ("format", "", "string", "", describe.FORMAT_LIST),
    ("no-trunc", "", "bool", False, "Don't truncate output"),
    ("quiet", "q", "bool", False, "Only show image IDs"),
    ("tree", "", "bool", False, "List multi-platform images as a tree"),
)


class Image(Row):
    headers = {"ID": "IMAGE ID", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "SharedSize": "SHARED SIZE"} | {
        "UniqueSize": "UNIQUE SIZE",
        "VirtualSize": "SIZE",
    }
    type_name = "*formatter.imageContext"

    def __init__(self, document: dict[str, Any], name: tuple[str, str, str], now: float, trunc: bool = True) -> None:
        self._item = document
        self._name = name
        self._now = now
        self._trunc = trunc

    def ID(self) -> str:
        return short_id(self._item["Id"]) if self._trunc else str(self._item["Id"])

    def Repository(self) -> str:
        return self._name[0]

    def Tag(self) -> str:
        return self._name[1]

    def Digest(self) -> str:
        return self._name[2]

    def CreatedSince(self) -> str:
        created = self._item.get("Created", 0)
        return ago(created, self._now) if created > 0 else "N/A"

    def CreatedAt(self) -> str:
        from wherry.cli.moments import written

        return written(self._item.get("Created", 0))

    def Size(self) -> str:
        return decimal_size(self._item.get("Size", 0), 3)

    def Containers(self) -> str:
        count = self._item.get("Containers", -1)
        return "N/A" if count == -1 else str(count)

    def VirtualSize(self) -> str:
        return decimal_size(self._item.get("Size", 0))

    def SharedSize(self) -> str:
        size = self._item.get("SharedSize", -1)
        return "N/A" if size == -1 else decimal_size(size)

    def UniqueSize(self) -> str:
        shared = self._item.get("SharedSize", -1)
        return "N/A" if shared == -1 else decimal_size(self._item.get("Size", 0) - shared)


def rows(items: Iterable[dict[str, Any]], digests: bool, trunc: bool, none_digest: str = _NONE) -> Iterator[Image]:
    """An image appears once for each of its names."""
    now = time.time()
    for item in items:
        for name in _names(item, digests, none_digest):
            yield Image(item, name, now, trunc)


def _names(item: dict[str, Any], digests: bool, none_digest: str) -> Iterator[tuple[str, str, str]]:
    tags = [tag for tag in item.get("RepoTags") or () if tag != "<none>:<none>"]
    known = [tuple(digest.split("@", 1)) for digest in item.get("RepoDigests") or () if digest != "<none>@<none>"]
    if not tags and not known:
        yield _NONE, _NONE, none_digest
    seen = set()
    for tag in tags:
        repository, _, name = tag.rpartition(":")
        seen.add(repository)
        found = [digest for other, digest in known if other == repository] if digests else []
        for digest in found or [none_digest]:
            yield repository, name, digest
    left: dict[str, list[str]] = {}
    for repository, digest in known:
        if repository not in seen:
            left.setdefault(repository, []).append(digest)
    for repository, found in left.items():
        for digest in found if digests else [none_digest]:
            yield repository, _NONE, digest


def images(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    pairs = list(flags["filter"])
    if arguments:
        pairs.append(("reference", arguments[0]))
    query = [("all", "1")] if flags["all"] else []
    items = cli.engine.get("/images/json", query + filters.encode(pairs))
    format = flags["format"] or ("" if flags["quiet"] else _default_format(cli))
    columns = ["Repository", "Tag", "ID", "CreatedSince", "Size"]
    if flags["digests"]:
        columns.insert(2, "Digest")
    wanted = flags["digests"] or "Digest" in format
    found = rows(items, wanted, not flags["no-trunc"])
    listing.show(found, Image, format, columns, "ID" if flags["quiet"] else "")
    return 0


def _default_format(cli: Cli) -> str:
    from wherry.client.context import config

    return str(config(cli.config_directory).get("imagesFormat") or "")


COMMANDS = {"images": Command(images, FLAGS, (0, 1), refuse={"tree": "list them with `wherry images`"})}
