"""`wherry commit`."""

from __future__ import annotations

from wherry.cli.flags import Command
from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli


def commit(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    query = [("author", flags["author"])] if flags["author"] else []
    query += [("changes", change) for change in flags["change"]]
    query += [("comment", flags["message"])] if flags["message"] else []
    query.append(("container", arguments[0]))
    if not flags["pause"]:
        query.append(("pause", "0"))
    if len(arguments) > 1 and arguments[1]:
        query += _target(arguments[1])
    if "timestamp" in flags:
        query.append(("timestamp", str(flags["timestamp"])))
    print(cli.engine.post("/commit", query)["Id"])
    return 0


def _target(name: str) -> list[tuple[str, str]]:
    from wherry.cli.reference import check

    check(name)
    if "@" in name:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        return [("repo", name), ("tag", "latest")]
    return [("repo", repository), ("tag", tag)]


COMMANDS = {
    "commit": Command(
        commit,
        (
            ("author", "a", "string", "", 'Author (for example "Hannibal Smith <hannibal@a-team.com>")'),
            ("change", "c", "list", None, "Apply a Dockerfile instruction to the image"),
            ("message", "m", "string", "", "Message for the image's history"),
            ("pause", "p", "bool", True, "Pause the container meanwhile"),
            ("timestamp", "", "int", 0, "Date the image and clamp newer files to this Unix time: the same every time"),
        ),
        (1, 2),
    ),
}
