"""`wherry system dial-stdio`: the far end of -H ssh://, joins standard input and output to the engine's socket."""

from __future__ import annotations

from wherry.cli.flags import Command
from wherry.cli.streams import Pump, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli


def dial_stdio(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    sock = cli.endpoint().connect()
    Pump(sock, b"", lambda data: write_all(1, data), 0).run()
    return 0


COMMANDS = {"system dial-stdio": Command(dial_stdio)}
