"""`wherry socket create ls rm inspect`: further sockets of the engine that may do less."""

from __future__ import annotations

import sys

from wherry.cli import describe, listing
from wherry.cli.flags import Command, StatusError
from wherry.cli.inspect import show
from wherry.cli.listing import Row
from wherry.client.engine import segment
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli


class ScopedSocket(Row):
    def __init__(self, item: dict[str, Any]) -> None:
        self._item = item

    def Name(self) -> str:
        return str(self._item["Name"])

    def Allow(self) -> str:
        return ",".join(self._item["Allow"])

    def Scope(self) -> str:
        parts = [f"label={label}" for label in self._item["Labels"]] + [f"name={name}" for name in self._item["Names"]]
        return ",".join(parts) or "all"

    def Path(self) -> str:
        return str(self._item["Path"])

    def Status(self) -> str:
        return "listening" if self._item["Listening"] else f"closed: {self._item['Error']}"


def create(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    body = {
        "Name": arguments[0],
        "Allow": [word for text in flags["allow"] for word in _words(text)],
        "Labels": flags["label"],
        "Names": flags["name"],
        "Path": flags["path"],
        "User": flags["user"],
        "Group": flags["group"],
        "Mode": flags["mode"],
    }
    print(cli.engine.post("/wherry/sockets/create", (), body)["Path"])
    return 0


def _words(text: str) -> list[str]:
    """Operations may be joined by commas; a route ("POST /containers/{id}/start") stands alone."""
    return [text] if " " in text else [word for word in text.split(",") if word]


def ls(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    rows = [ScopedSocket(item) for item in cli.engine.get("/wherry/sockets")]
    columns = ("Name", "Allow", "Scope", "Path", "Status")
    listing.show(rows, ScopedSocket, flags["format"], columns, "Name" if flags["quiet"] else "")
    return 0


def operations(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    found = cli.engine.get("/wherry/sockets/operations")
    for name, words in found["Groups"].items():
        print(f"{name:<24}{' '.join(words)}")
    for name, routes in found["Operations"].items():
        print(f"{name:<24}{', '.join(routes)}")
    return 0


def rm(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    errors = []
    for name in arguments:
        try:
            cli.engine.delete(f"/wherry/sockets/{segment(name)}")
            print(name)
        except WherryError as error:
            errors.append(str(error))
    if errors:
        sys.stdout.flush()
        raise StatusError("\n".join(errors), 1)
    return 0


def inspect(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    return show(arguments, lambda name: cli.engine.get(f"/wherry/sockets/{segment(name)}"), flags["format"])


COMMANDS = {
    "socket create": Command(
        create,
        (
            (
                "allow",
                "",
                "list",
                None,
                "What it may do: read, lifecycle, an operation (see socket operations), a route",
            ),
            ("group", "", "string", "", "Group that owns the socket's file"),
            ("label", "", "list", None, "Only containers with this label (key or key=value; all must hold)"),
            ("mode", "", "string", "0660", "Permissions of the socket's file"),
            ("name", "", "list", None, "Only containers whose name fits this pattern (one must)"),
            ("path", "", "string", "", "Where it listens (default: in the engine's own directory)"),
            ("user", "", "string", "", "User that owns the socket's file"),
        ),
        (1, 1),
    ),
    "socket inspect": Command(inspect, (("format", "f", "string", "", describe.FORMAT),), (1, None)),
    "socket ls": Command(
        ls,
        (
            ("format", "", "string", "", describe.FORMAT_LIST),
            ("quiet", "q", "bool", False, "Only show names"),
        ),
    ),
    "socket operations": Command(operations),
    "socket rm": Command(rm, (), (1, None)),
}
