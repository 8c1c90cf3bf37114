"""`wherry run`.

The requests, and what of them overlaps: create; then attach and wait, each on a connection of its own, sent
together and answered together; then start.
"""

from __future__ import annotations

import sys

from wherry.cli.create import CONVERT, create_container, document, failed
from wherry.cli.create_flags import ALIASES, REFUSE, RUN_FLAGS
from wherry.cli.flags import Command, StatusError
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli


def run(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    try:
        config = document(flags, arguments)
    except WherryError as error:
        raise failed(cli, error) from None
    if flags["detach"]:
        if flags["attach"]:
            raise StatusError("conflicting options: cannot specify both --attach and --detach", 1)
        config.update(AttachStdin=False, AttachStdout=False, AttachStderr=False, StdinOnce=False)
    tty, stdin = config["Tty"], config["AttachStdin"]
    if tty:
        from wherry.cli.terminal import check, size

        check(stdin, tty)
        config["HostConfig"]["ConsoleSize"] = list(size() or (0, 0))
    started = False
    try:
        identity = create_container(cli, flags, config, None if flags["detach"] else _prepare)
        if flags["detach"]:
            started = True
            cli.engine.post(f"/containers/{identity}/start")
            print(identity)
            return 0
    except WherryError as error:
        from wherry.cli.session import exit_code

        raise failed(cli, error, exit_code(str(error)) if started else 125) from None
    return _attached(cli, flags, config, identity)


def _prepare() -> None:
    """Imports what attaching will need."""
    __import__("wherry.cli.session")
    __import__("wherry.cli.signals")
    __import__("wherry.cli.terminal")


def _attached(cli: Cli, flags: Flags, config: dict[str, Any], identity: str) -> int:
    from wherry.cli.session import Session, Waiter, attach_query, detach_sequence, exit_code

    engine = cli.engine
    tty, stdin = config["Tty"], config["AttachStdin"]
    stdout, stderr = config["AttachStdout"], config["AttachStderr"]
    keys = detach_sequence(cli, flags["detach-keys"])
    session = Session(cli, f"/containers/{identity}/resize", tty, stdin, keys)
    if flags["sig-proxy"]:
        session.proxy_signals(identity)
    elif tty:
        session.watch_size()
    try:
        waiter = Waiter(engine, identity, "removed" if config["HostConfig"]["AutoRemove"] else "next-exit")
        sock, early = engine.hijack(f"/containers/{identity}/attach", attach_query(stdin, stdout, stderr, keys))
        waiter.registered()
    except WherryError as error:
        raise failed(cli, error) from None
    try:
        engine.post(f"/containers/{identity}/start")
    except WherryError as error:
        if config["HostConfig"]["AutoRemove"]:
            waiter.status()  # until the engine has removed it
        raise failed(cli, error, exit_code(str(error))) from None
    if not stdout and not stderr:
        print(identity)
        sys.stdout.flush()
    session.resize()
    if session.pump(sock, early):
        return 0
    sock.close()
    return waiter.status()


COMMANDS = {"run": Command(run, RUN_FLAGS, (1, None), False, CONVERT, ALIASES, REFUSE)}
