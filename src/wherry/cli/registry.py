"""`wherry registry`: hands over to the registry server, in the environment that its dependencies live in."""

from __future__ import annotations

import posix
import sys

from wherry.cli.flags import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli


def registry(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    sys.stdout.flush()
    posix.execv(sys.executable, [sys.executable, "-I", "-m", "wherry.registry", *arguments])
    raise AssertionError("exec does not return")


COMMANDS = {"registry": Command(registry, (), (0, None), raw=True)}
