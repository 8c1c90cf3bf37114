"""`wherry image bootstrap`: an image from a distribution's own package mirror, where no registry can be reached."""

from __future__ import annotations

import sys

from wherry.cli import progress
from wherry.cli.flags import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

FLAGS = (("quiet", "q", "bool", False, "Only print the name of the image"),)


def bootstrap(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    from wherry.cli.reference import check, familiar

    check(arguments[0])
    messages = cli.engine.messages("POST", "/wherry/images/bootstrap", [("reference", arguments[0])])
    if flags["quiet"]:
        import io

        progress.show(messages, io.StringIO())
        print(familiar(arguments[0]))
    else:
        progress.show(messages, sys.stdout)
    return 0


COMMANDS = {"image bootstrap": Command(bootstrap, FLAGS, (1, 1))}
