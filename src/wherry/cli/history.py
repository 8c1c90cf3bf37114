"""`wherry history`."""

from __future__ import annotations

import time

from wherry.cli import describe, listing
from wherry.cli.flags import Command
from wherry.cli.listing import Row
from wherry.cli.moments import rfc3339
from wherry.cli.ps import ellipsis, short_id
from wherry.cli.units import ago, decimal_size
from wherry.client.engine import segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

FLAGS = (
    ("format", "", "string", "", describe.FORMAT_LIST),
    ("human", "H", "bool", True, "Print sizes and dates for people"),
    ("no-trunc", "", "bool", False, "Don't truncate output"),
    ("platform", "", "string", "", describe.PLATFORM),
    ("quiet", "q", "bool", False, "Only show image IDs"),
)


class Layer(Row):
    headers = {"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY"}
    type_name = "*formatter.historyContext"

    def __init__(self, item: dict[str, Any], human: bool, trunc: bool) -> None:
        self._item = item
        self._human = human
        self._trunc = trunc

    def ID(self) -> str:
        return short_id(self._item["Id"]) if self._trunc else str(self._item["Id"])

    def CreatedAt(self) -> str:
        return rfc3339(self._item.get("Created", 0))

    def CreatedSince(self) -> str:
        return ago(self._item.get("Created", 0), time.time()) if self._human else self.CreatedAt()

    def CreatedBy(self) -> str:
        text = str(self._item.get("CreatedBy", "")).replace("\t", " ")
        return ellipsis(text, 45) if self._trunc else text

    def Size(self) -> str:
        size = self._item.get("Size", 0)
        return decimal_size(size, 3) if self._human else str(size)

    def Comment(self) -> str:
        return str(self._item.get("Comment", ""))


def history(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    query = []
    if flags["platform"]:
        from wherry.cli.platform import encode

        query.append(("platform", encode(flags["platform"])))
    items = cli.engine.get(f"/images/{segment(arguments[0])}/history", query)
    rows = [Layer(item, flags["human"], not flags["no-trunc"]) for item in items]
    created = "CreatedSince" if flags["human"] else "CreatedAt"
    shown = ("ID", created, "CreatedBy", "Size", "Comment")
    listing.show(rows, Layer, flags["format"], shown, "ID" if flags["quiet"] else "")
    return 0


COMMANDS = {"history": Command(history, FLAGS, (1, 1))}
