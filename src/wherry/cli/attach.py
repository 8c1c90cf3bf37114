"""`wherry attach`."""

from __future__ import annotations

from wherry.cli import describe
from wherry.cli.flags import Command, StatusError
from wherry.cli.session import Session, Waiter, attach_query, detach_sequence, inspect_container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

FLAGS = (
    ("detach-keys", "", "string", "", describe.DETACH_KEYS),
    ("no-stdin", "", "bool", False, "Do not attach STDIN"),
    ("sig-proxy", "", "bool", True, "Pass signals on to the process"),
)


def check_state(found: dict[str, Any]) -> None:
    state = found["State"]
    if not state.get("Running"):
        raise StatusError("You cannot attach to a stopped container, start it first", 1)
    if state.get("Paused"):
        raise StatusError("You cannot attach to a paused container, unpause it first", 1)
    if state.get("Restarting"):
        raise StatusError("You cannot attach to a restarting container, wait until it is running", 1)


def attach(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    found = inspect_container(cli, arguments[0])
    check_state(found)
    identity, tty = found["Id"], found["Config"]["Tty"]
    stdin = not flags["no-stdin"] and bool(found["Config"]["OpenStdin"])
    if tty:
        from wherry.cli.terminal import check

        check(stdin, tty)
    keys = detach_sequence(cli, flags["detach-keys"])
    session = Session(cli, f"/containers/{identity}/resize", tty, stdin, keys)
    if flags["sig-proxy"] and not tty:
        session.proxy_signals(identity)
    session.watch_size()
    waiter = Waiter(cli.engine, identity, "")
    sock, early = cli.engine.hijack(f"/containers/{identity}/attach", attach_query(stdin, True, True, keys))
    session.resize()
    if session.pump(sock, early):
        print("read escape sequence")
        return 0
    sock.close()
    return waiter.status()


COMMANDS = {"attach": Command(attach, FLAGS, (1, 1))}
