"""`wherry stop kill restart pause unpause wait rename rm`."""

from __future__ import annotations

import sys

from wherry.cli.flags import Command, StatusError
from wherry.cli.many import act, each
from wherry.client.engine import segment
from wherry.errors import InvalidArgument, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli
    from wherry.client.engine import Pending

_SIGNAL = ("signal", "s", "string", "", "Signal to send to the container")
_TIMEOUT = ("timeout", "t", "int", 0, "Seconds to wait before killing the container")
_TIME = {"time": "timeout"}
_SOME = (1, None)


def _post(cli: Cli, names: list[str], verb: str, query: list[tuple[str, str]]) -> int:
    engine = cli.engine
    return act(engine, names, lambda name: engine.send("POST", f"/containers/{segment(name)}/{verb}", query))


def _halt(verb: str) -> Any:
    def command(cli: Cli, flags: Flags, arguments: list[str]) -> int:
        query = [("signal", flags["signal"])] if flags["signal"] else []
        if "timeout" in flags:
            query.append(("t", str(flags["timeout"])))
        engine = cli.engine

        def done(name: str, pending: Pending) -> None:
            pending.value()
            print(name, flush=True)
            if note := engine.server.get("wherry-note"):
                print(f"note: {note}", file=sys.stderr)

        each(arguments, lambda name: engine.send("POST", f"/containers/{segment(name)}/{verb}", query), done)
        return 0

    return command


def kill(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    return _post(cli, arguments, "kill", [("signal", flags["signal"])] if flags["signal"] else [])


def pause(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    return _post(cli, arguments, "pause", [])


def unpause(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    return _post(cli, arguments, "unpause", [])


def wait(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    engine = cli.engine

    def done(_name: str, pending: Pending) -> None:
        print(pending.value()["StatusCode"], flush=True)

    each(arguments, lambda name: engine.send("POST", f"/containers/{segment(name)}/wait"), done, 1)
    return 0


def rename(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    old, new = (name.strip() for name in arguments)
    if not old or not new:
        raise InvalidArgument("Error: Neither old nor new names may be empty")
    try:
        cli.engine.post(f"/containers/{segment(old)}/rename", [("name", new)])
    except WherryError as error:
        raise StatusError(f"{error}\nError: failed to rename container named {old}", 1) from None
    return 0


def rm(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    engine = cli.engine
    query = [(key, "1") for key, flag in (("v", "volumes"), ("link", "link"), ("force", "force")) if flags[flag]]

    def send(name: str) -> Pending:
        name = name.strip("/")
        if not name:
            raise InvalidArgument("Container name cannot be empty")
        return engine.send("DELETE", f"/containers/{segment(name)}", query)

    return act(engine, arguments, send)


COMMANDS = {
    "stop": Command(_halt("stop"), (_SIGNAL, _TIMEOUT), _SOME, aliases=_TIME, deprecated=_TIME),
    "restart": Command(_halt("restart"), (_SIGNAL, _TIMEOUT), _SOME, aliases=_TIME, deprecated=_TIME),
    "kill": Command(kill, (_SIGNAL,), _SOME),
    "pause": Command(pause, (), _SOME),
    "unpause": Command(unpause, (), _SOME),
    "wait": Command(wait, (), _SOME),
    "rename": Command(rename, (), (2, 2)),
    "rm": Command(
        rm,
        (
            ("force", "f", "bool", False, "Kill a container that runs (SIGKILL), then remove it"),
            ("link", "l", "bool", False, "Remove a link instead"),
            ("volumes", "v", "bool", False, "Also remove the container's anonymous volumes"),
        ),
        _SOME,
    ),
}
