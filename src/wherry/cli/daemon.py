"""`wherry daemon`: hands over to the engine, in the whole environment that its dependencies live in."""

from __future__ import annotations

import posix
import sys

from wherry.cli.flags import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli


def daemon(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    interpreter = sys.executable
    sys.stdout.flush()
    # -I again: what the caller's environment says about Python must not reach the engine.
    posix.execv(interpreter, [interpreter, "-I", "-m", "wherry.daemon", *arguments])
    raise AssertionError("exec does not return")


COMMANDS = {"daemon": Command(daemon, (), (0, None), raw=True)}
