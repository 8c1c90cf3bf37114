"""`wherry tag rmi`."""

from __future__ import annotations

import sys

from wherry.cli import describe
from wherry.cli.flags import Command, StatusError
from wherry.client.engine import segment
from wherry.errors import NotFound, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli


def tag(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    from wherry.cli.reference import check, familiar

    source, target = arguments
    check(source)
    check(target)
    name = familiar(target)
    repository, _, label = name.rpartition(":")
    cli.engine.post(f"/images/{segment(source)}/tag", [("repo", repository), ("tag", label)])
    return 0


def rmi(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    query = [("force", "1")] if flags["force"] else []
    query += [("noprune", "1")] if flags["no-prune"] else []
    if flags["platform"]:
        from wherry.cli.platform import encode

        query += [("platforms", encode(name)) for name in flags["platform"]]
    errors = []
    fatal = False
    for name in arguments:
        try:
            removed = cli.engine.delete(f"/images/{segment(name)}", query)
        except WherryError as error:
            fatal = fatal or not isinstance(error, NotFound)
            errors.append(str(error))
            continue
        for entry in removed or ():
            print(f"Deleted: {entry['Deleted']}" if entry.get("Deleted") else f"Untagged: {entry['Untagged']}")
    if errors:
        message = "\n".join(errors)
        if not flags["force"] or fatal:
            raise StatusError(message, 1)
        sys.stdout.flush()
        sys.stderr.write(message + "\n")
    return 0


COMMANDS = {
    "tag": Command(tag, (), (2, 2)),
    "rmi": Command(
        rmi,
        (
            ("force", "f", "bool", False, "Force removal of the image"),
            ("no-prune", "", "bool", False, "Do not delete untagged parents"),
            ("platform", "", "strings", None, describe.PLATFORM),
        ),
        (1, None),
    ),
}
