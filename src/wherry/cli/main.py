"""`wherry`: from the command line to a command, and from its outcome to an exit code.

Start-up time is a feature here: this runs under `python -I -S`, imports only what the command at hand needs, and
ends with `_exit`, for tearing the interpreter down costs as much as a request to the engine.
"""

from __future__ import annotations

import posix
import sys

from wherry.cli import commands
from wherry.cli.flags import Command, Flags, HelpRequested, StatusError, UsageError, check_count, parse
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wherry.client.engine import EngineClient

_LEVELS = '("debug", "info", "warn", "error", "fatal")'
GLOBAL_FLAGS = (
    ("config", "", "string", "", "Directory of the client's configuration files"),
    ("context", "c", "string", "", "Context to use for this command, whatever DOCKER_HOST and the current context say"),
    ("debug", "D", "bool", False, "Show where an error comes from"),
    ("host", "H", "list", None, "Address of the engine"),
    ("log-level", "l", "string", "info", f"Level of messages to log {_LEVELS}"),
    ("tls", "", "bool", False, "Use TLS; --tlsverify implies it"),
    ("tlscacert", "", "string", "", "Trust only certificates signed by this authority"),
    ("tlscert", "", "string", "", "Path of the client's TLS certificate"),
    ("tlskey", "", "string", "", "Path of the client's TLS key"),
    ("tlsverify", "", "bool", False, "Use TLS and verify the engine's certificate"),
    ("version", "v", "bool", False, "Print the client's version and quit"),
)


class Cli:
    """What a command gets: the global flags, and the engine they mean, connected to at first use."""

    def __init__(self, flags: Flags) -> None:
        self.flags = flags
        self.name = ""  # the command as the user called it
        self.arguments: list[str] = []
        self._engine: EngineClient | None = None

    @property
    def config_directory(self) -> str:
        from wherry.client.context import config_directory

        return str(self.flags["config"]) or config_directory()

    @property
    def engine(self) -> EngineClient:
        if self._engine is None:
            self._engine = self.connect()
        return self._engine

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()

    def connect(self) -> EngineClient:
        """Raises StatusError when it is not clear which engine is meant."""
        from wherry.client.engine import EngineClient

        version = posix.environ.get(b"DOCKER_API_VERSION", b"").decode()
        try:
            return EngineClient(self.endpoint(), version)
        except WherryError as error:
            raise StatusError(f"Failed to initialize: unable to resolve docker endpoint: {error}", 1) from None

    def endpoint(self) -> Any:
        from wherry.client import context
        from wherry.client.dial import Endpoint

        flags = self.flags
        if len(flags["host"]) > 1:
            raise WherryError("Specify only one -H")
        if flags["host"] and flags["context"]:
            raise WherryError("conflicting options: cannot specify both --host and --context")
        host = flags["host"][0] if flags["host"] else ""
        secure = {"tls", "tlsverify", "tlscacert", "tlscert", "tlskey"} & flags.changed
        if not secure:
            return context.from_environment(host) if host else context.resolve(self.config_directory, flags["context"])
        if not flags["tls"] and not flags["tlsverify"]:
            return Endpoint(host or context.environment("DOCKER_HOST") or context.DEFAULT_HOST)
        base = context.environment("DOCKER_CERT_PATH") or self.config_directory
        files = [
            flags["tlscacert"] or f"{base}/ca.pem",
            flags["tlscert"] or f"{base}/cert.pem",
            flags["tlskey"] or f"{base}/key.pem",
        ]
        host = host or context.environment("DOCKER_HOST") or context.DEFAULT_HOST
        return Endpoint(host, context.present(*files), flags["tlsverify"])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Ends the process when called without arguments of its own, as the launcher does."""
    if argv is not None:
        return run(list(argv))
    _prepare()
    status = run(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = status or 1
    posix._exit(status)


def _prepare() -> None:
    import _signal  # type: ignore[import-not-found]  # `signal` would import enum
    import gc

    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    # A listing of hundreds of containers makes many objects and no cycles.
    gc.set_threshold(100_000)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]


def run(argv: list[str]) -> int:
    try:
        flags, rest = parse(Command(_nothing, GLOBAL_FLAGS, (0, None), interspersed=False), argv)
        if flags["version"]:
            print(_version())
            return 0
        if not rest:
            return _show_root_help()
        if rest[0] == "help":
            rest = [*rest[1:], "--help"]
            if len(rest) == 1:
                return _show_root_help()
        cli = Cli(flags)
        try:
            return dispatch(cli, rest)
        finally:
            cli.close()
    except HelpRequested:
        return _show_root_help()
    except StatusError as error:
        return _fail(str(error), error.code)
    except UsageError as error:
        return _fail(
            f"{error}\n\nUsage:  wherry [OPTIONS] COMMAND [ARG...]\n\nRun 'wherry --help' for more information",
            error.code,
        )
    except WherryError as error:
        return _fail(str(error), 1)


def dispatch(cli: Cli, words: list[str]) -> int:
    name, arguments = words[0], words[1:]
    if name in commands.GROUPS:
        first = arguments[0] if arguments else ""
        if first in ("", "--help", "-h", "help"):
            from wherry.cli.help import group_help

            (sys.stdout if first else sys.stderr).write(group_help(name))
            return 0
        name, arguments = f"{name} {first}", arguments[1:]
    target = commands.resolve(name)
    if not target:
        from wherry.cli.suggest import unknown_command

        raise StatusError(unknown_command(name), 1)
    module = __import__(f"wherry.cli.{commands.TABLE[target][0]}", fromlist=["COMMANDS"])
    command: Command = module.COMMANDS[target]
    cli.name = name
    try:
        flags, rest = parse(command, arguments)
        check_count(f"wherry {name}", command, len(rest))
    except HelpRequested:
        from wherry.cli.help import command_help

        sys.stdout.write(command_help(name, command))
        return 0
    except UsageError as error:
        from wherry.cli.help import usage_line

        prefix = "wherry: " if error.code == 1 else ""
        text = (
            f"{prefix}{error}\n\nUsage:  {usage_line(name)}\n\n{error.verb} 'wherry {name} --help' for more information"
        )
        raise StatusError(text, error.code) from None
    cli.arguments = rest
    return command.run(cli, flags, rest)


def _nothing(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    return 0


def _version() -> str:
    from wherry.cli.version import VERSION

    return f"Wherry version {VERSION}"


def _show_root_help() -> int:
    from wherry.cli.help import root_help

    sys.stdout.write(root_help(GLOBAL_FLAGS))
    return 0


def _fail(message: str, code: int) -> int:
    sys.stdout.flush()
    if message:
        sys.stderr.write(message + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
