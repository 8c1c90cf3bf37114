"""`wherry exec`."""

from __future__ import annotations

from wherry.cli import describe
from wherry.cli.flags import Command
from wherry.client.engine import segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

FLAGS = (
    ("detach", "d", "bool", False, "Run the command in the background"),
    ("detach-keys", "", "string", "", describe.DETACH_KEYS),
    ("env", "e", "list", None, "Set environment variables"),
    ("env-file", "", "list", None, "Read environment variables from a file"),
    ("interactive", "i", "bool", False, "Keep standard input open even if not attached"),
    ("privileged", "", "bool", False, "Give the command extended privileges"),
    ("tty", "t", "bool", False, "Allocate a pseudo-TTY"),
    ("user", "u", "string", "", 'User name or UID (format: "<name|uid>[:<group|gid>]")'),
    ("workdir", "w", "string", "", "Working directory inside the container"),
)


def _env(text: str) -> str:
    from wherry.cli.opts_values import env

    return env(text)


def exec_(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    from wherry.cli.session import Session, detach_sequence

    engine = cli.engine
    attached = not flags["detach"]
    tty, stdin = flags["tty"], flags["interactive"] and attached
    size = None
    if attached and tty:
        from wherry.cli.terminal import check
        from wherry.cli.terminal import size as terminal_size

        check(stdin, tty)
        size = terminal_size()
    keys = detach_sequence(cli, flags["detach-keys"])
    config = _config(flags, arguments[1:], stdin, attached, keys)
    if size:
        config["ConsoleSize"] = list(size)
    identity = engine.post(f"/containers/{segment(arguments[0])}/exec", (), config)["Id"]
    start: dict[str, Any] = {"Detach": not attached, "Tty": tty}
    if not attached:
        engine.post(f"/exec/{identity}/start", (), start)
        return 0
    if size:
        start["ConsoleSize"] = list(size)
    session = Session(cli, f"/exec/{identity}/resize", tty, stdin, keys)
    session.watch_size()
    sock, early = engine.hijack(f"/exec/{identity}/start", (), start)
    session.resize()
    if session.pump(sock, early):
        return 0
    sock.close()
    return int(engine.get(f"/exec/{identity}/json").get("ExitCode") or 0)


def _config(flags: Flags, command: list[str], stdin: bool, attached: bool, keys: str) -> dict[str, Any]:
    environment = flags["env"]
    if flags["env-file"]:
        from wherry.cli.opts_values import expand_files

        environment = expand_files(flags["env-file"], flags["env"], True)
    return {
        "User": flags["user"],
        "Privileged": flags["privileged"],
        "Tty": flags["tty"],
        "AttachStdin": stdin,
        "AttachStdout": attached,
        "AttachStderr": attached,
        "DetachKeys": keys,
        "Env": environment or None,
        "WorkingDir": flags["workdir"],
        "Cmd": command,
    }


COMMANDS = {"exec": Command(exec_, FLAGS, (2, None), False, {"env": _env})}
