"""`wherry start`."""

from __future__ import annotations

import sys

from wherry.cli import describe
from wherry.cli.flags import Command, StatusError
from wherry.client.engine import segment
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

FLAGS = (
    ("attach", "a", "bool", False, "Attach STDOUT and STDERR, and pass signals on"),
    ("checkpoint", "", "string", "", "Restore from this checkpoint"),
    ("checkpoint-dir", "", "string", "", "Directory of checkpoints"),
    ("detach-keys", "", "string", "", describe.DETACH_KEYS),
    ("interactive", "i", "bool", False, "Attach STDIN"),
)
_REFUSE = {"checkpoint": "checkpoints are not supported", "checkpoint-dir": "checkpoints are not supported"}


def start(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    if flags["attach"] or flags["interactive"]:
        if len(arguments) > 1:
            raise StatusError("you cannot start and attach multiple containers at once", 1)
        return _attached(cli, flags, arguments[0])
    failed = []
    for name in arguments:
        try:
            cli.engine.post(f"/containers/{segment(name)}/start")
            print(name)
        except WherryError as error:
            sys.stdout.flush()
            sys.stderr.write(f"{error}\n")
            failed.append(name)
    if failed:
        raise StatusError(f"Error: failed to start containers: {', '.join(failed)}", 1)
    return 0


def _attached(cli: Cli, flags: Flags, name: str) -> int:
    from wherry.cli.session import Session, Waiter, attach_query, detach_sequence, inspect_container

    engine = cli.engine
    found = inspect_container(cli, name)
    identity, tty = found["Id"], found["Config"]["Tty"]
    stdin = bool(flags["interactive"] and found["Config"]["OpenStdin"])
    keys = detach_sequence(cli, flags["detach-keys"])
    session = Session(cli, f"/containers/{identity}/resize", tty, stdin, keys)
    if not tty:
        session.proxy_signals(identity)
    session.watch_size()
    running = found["State"].get("Running")
    removed = found["HostConfig"].get("AutoRemove")
    sock, early = engine.hijack(f"/containers/{identity}/attach", attach_query(stdin, True, True, keys))
    waiter = Waiter(engine, identity, "" if running else "removed" if removed else "next-exit")
    if not running:
        waiter.registered()
    try:
        engine.post(f"/containers/{identity}/start")
    except WherryError:
        if removed and not running:
            waiter.status()
        raise
    session.resize()
    if session.pump(sock, early):
        return 0
    sock.close()
    return waiter.status()


COMMANDS = {"start": Command(start, FLAGS, (1, None), refuse=_REFUSE)}
