"""`wherry logs`."""

from __future__ import annotations

from wherry.cli.flags import Command
from wherry.client.engine import segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

FLAGS = (
    ("details", "", "bool", False, "Show extra details provided to logs"),
    ("follow", "f", "bool", False, "Follow log output"),
    ("since", "", "string", "", 'Logs since a time ("2013-01-02T13:23:37Z"), or as long ago as this ("42m")'),
    ("tail", "n", "string", "all", "Number of lines to show from the end"),
    ("timestamps", "t", "bool", False, "Show timestamps"),
    ("until", "", "string", "", 'Logs before a time ("2013-01-02T13:23:37Z"), or as long ago as this ("42m")'),
)


def logs(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    from wherry.cli.session import inspect_container
    from wherry.cli.streams import Demultiplexer, copy_raw
    from wherry.cli.timestamp import timestamp

    found = inspect_container(cli, arguments[0])
    query = [(name, "1") for name in ("details", "follow", "timestamps") if flags[name]]
    query += [("stdout", "1"), ("stderr", "1"), ("tail", flags["tail"])]
    query += [(name, timestamp(flags[name], name)) for name in ("since", "until") if flags[name]]
    response = cli.engine.open("GET", f"/containers/{segment(found['Id'])}/logs", query)
    if found["Config"]["Tty"]:
        copy_raw(response.chunks(), 1)
    else:
        demultiplexer = Demultiplexer({0: 1, 1: 1, 2: 2})
        for chunk in response.chunks():
            demultiplexer.feed(chunk)
    return 0


COMMANDS = {"logs": Command(logs, FLAGS, (1, 1))}
