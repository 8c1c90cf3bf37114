"""The table of commands, and what all of them share: global flags, errors, the log."""

from __future__ import annotations

import os
import sys

from wherry.errors import InvalidArgument, Unimplemented, WherryError
from wherry.runtime.cli.flags import BOOL, LIST, NUMBER, TEXT, Options, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NamedTuple

    from wherry.runtime.container import Runtime
else:
    from wherry.kernel.tuples import NamedTuple

DEFAULT_ROOT = "/run/wherry-runtime"

_GLOBAL = {
    "debug": BOOL,
    "log": TEXT,
    "log-format": TEXT,
    "root": TEXT,
    "systemd-cgroup": BOOL,
    "rootless": TEXT,
    "help": BOOL,
    "version": BOOL,
}
_GLOBAL_SHORT = {"h": "help", "v": "version"}
_CREATE = {
    "bundle": TEXT,
    "console-socket": TEXT,
    "pidfd-socket": TEXT,
    "pid-file": TEXT,
    "no-pivot": BOOL,
    "no-new-keyring": BOOL,
    "preserve-fds": NUMBER,
}
_UPDATE_NUMBERS = (
    "blkio-weight",
    "cpu-period",
    "cpu-quota",
    "cpu-burst",
    "cpu-share",
    "cpu-rt-period",
    "cpu-rt-runtime",
) + ("pids-limit", "cpu-idle")
_UPDATE_TEXTS = (
    "resources",
    "cpuset-cpus",
    "cpuset-mems",
    "kernel-memory",
    "kernel-memory-tcp",
    "memory",
    "memory-reservation",
) + ("memory-swap", "l3-cache-schema", "mem-bw-schema")


class Command(NamedTuple):
    """One command: `module` has a function of the command's name. `most` arguments of -1: any number, left unparsed."""

    module: str
    kinds: dict[str, str]
    least: int
    most: int
    usage: str
    short: dict[str, str] = {}


_ID = "<container-id>"
COMMANDS = {
    "create": Command("create", _CREATE, 1, 1, f"[options] {_ID}", {"b": "bundle"}),
    "run": Command(
        "create", {**_CREATE, "detach": BOOL, "keep": BOOL, "no-subreaper": BOOL}, 1, 1, f"[options] {_ID}",
        {"b": "bundle", "d": "detach"},
    ),
    "start": Command("create", {}, 1, 1, _ID),
    "exec": Command(
        "execute",
        {
            "console-socket": TEXT, "pidfd-socket": TEXT, "cwd": TEXT, "env": LIST, "tty": BOOL, "user": TEXT,
            "additional-gids": LIST, "process": TEXT, "detach": BOOL, "pid-file": TEXT, "process-label": TEXT,
            "apparmor": TEXT, "no-new-privs": BOOL, "cap": LIST, "preserve-fds": NUMBER, "cgroup": LIST,
            "ignore-paused": BOOL,
        },
        1, -1, f"[options] {_ID} <command> [arguments]  or  -p process.json {_ID}",
        {"e": "env", "t": "tty", "u": "user", "g": "additional-gids", "p": "process", "d": "detach", "c": "cap"},
    ),
    "state": Command("lifecycle", {}, 1, 1, _ID),
    "kill": Command("lifecycle", {"all": BOOL}, 1, 2, f"[--all] {_ID} [signal]", {"a": "all"}),
    "delete": Command("lifecycle", {"force": BOOL}, 1, 1, f"[--force] {_ID}", {"f": "force"}),
    "pause": Command("lifecycle", {}, 1, 1, _ID),
    "resume": Command("lifecycle", {}, 1, 1, _ID),
    "list": Command("listing", {"format": TEXT, "quiet": BOOL}, 0, 0, "[options]", {"f": "format", "q": "quiet"}),
    "ps": Command("listing", {"format": TEXT}, 1, -1, f"[--format json] {_ID} [ps options]", {"f": "format"}),
    "update": Command(
        "update",
        {**dict.fromkeys(_UPDATE_NUMBERS, NUMBER), **dict.fromkeys(_UPDATE_TEXTS, TEXT)},
        1, 1, f"[options] {_ID}", {"r": "resources"},
    ),
    "events": Command("events", {"interval": TEXT, "stats": BOOL}, 1, 1, f"[options] {_ID}"),
    "features": Command("features", {}, 0, 0, ""),
    "spec": Command("spec", {"bundle": TEXT, "rootless": BOOL}, 0, 0, "[options]", {"b": "bundle"}),
}  # fmt: skip


class Context:
    """What the global flags say."""

    def __init__(self, options: Options) -> None:
        self.root = os.path.abspath(options.text("root") or DEFAULT_ROOT)
        self.log = options.text("log")
        self.json = options.text("log-format") == "json"
        self.debug = options.flag("debug")
        if options.text("log-format") not in (None, "", "text", "json"):
            raise InvalidArgument(f"invalid log-format: {options.text('log-format')}")
        if options.flag("systemd-cgroup"):
            raise Unimplemented("--systemd-cgroup is not supported", hint="choose the cgroupfs cgroup manager")
        if options.text("rootless") not in (None, "auto", "false", "0"):
            raise Unimplemented("--rootless is not supported", hint="run as root")

    def warn(self, message: str) -> None:
        """Log what went wrong and changes nothing; "" is nothing."""
        if message:
            _report(self, message, "warning")

    def runtime(self) -> Runtime:
        """The runtime on the chosen root."""
        from wherry.runtime.container import Runtime

        return Runtime(self.root)


def run(arguments: Sequence[str]) -> int:
    """Run a command line; the exit status. Errors are written as runc writes them: to the log, and to stderr."""
    context: Context | None = None
    try:
        options, rest = parse(arguments, _GLOBAL, _GLOBAL_SHORT, stop=True)
        if options.flag("version"):
            return _version()
        if options.flag("help") or not rest or rest[0] in ("help", "h"):
            return _help()
        context = Context(options)
        name = rest[0]
        command = COMMANDS.get(name)
        if command is None:
            raise InvalidArgument(f"no such command: {name}", hint="wherry-runtime help lists them")
        kinds = {**command.kinds, "help": BOOL}
        flags, left = parse(rest[1:], kinds, {**command.short, "h": "help"}, stop=command.most < 0)
        if flags.flag("help"):
            print(f"usage: wherry-runtime {name} {command.usage}")
            return 0
        if len(left) < command.least or 0 <= command.most < len(left):
            raise InvalidArgument(f'"{name}" takes other arguments', hint=f"wherry-runtime {name} {command.usage}")
        module = __import__(f"wherry.runtime.cli.{command.module}", fromlist=(name,))
        status: int = getattr(module, name if name not in ("exec", "list") else name + "_")(context, flags, left)
        return status
    except WherryError as error:
        _report(context, str(error))
        return 255 if "exec" in arguments[:8] and not isinstance(error, InvalidArgument) else 1
    except OSError as error:
        _report(context, str(error))
        return 1
    except Exception as error:
        _report(context, f"internal error: {type(error).__name__}: {error}")
        if context is not None and context.debug:
            raise
        return 1


def _report(context: Context | None, message: str, level: str = "error") -> None:
    """One line in the log (runc's format, which containerd and podman read), and the message on stderr."""
    import time

    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    from wherry.spec.fastjson import dumps

    if context is not None and context.json:
        line = dumps({"level": level, "msg": message, "time": now})
    else:
        line = f'time="{now}" level={level} msg={dumps(message)}'
    if context is None or not context.log:
        print(line, file=sys.stderr)
        return
    with open(context.log, "a", encoding="utf-8") as log:
        log.write(line + "\n")
    print(message, file=sys.stderr)


def _version() -> int:
    from wherry import __version__

    # The form of runc's, which callers take apart.
    print(f"wherry-runtime version {__version__}\nspec: 1.2.1")
    return 0


def _help() -> int:
    print("usage: wherry-runtime [global options] command [options] [arguments]\n\ncommands:")
    for name, command in COMMANDS.items():
        print(f"  {name:9} {command.usage}")
    names = " ".join([f"--{name}" for name in _GLOBAL])
    print(f"\nglobal options: {names}")
    return 0
