"""exec: another process in a running container."""

from __future__ import annotations

import os

from wherry.errors import FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from wherry.runtime import launch
from wherry.runtime.cli.create import check_terminal, hand_over
from wherry.runtime.container import load_config
from wherry.runtime.document import boolean, mapping
from wherry.runtime.state import StateFile
from wherry.spec import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wherry.runtime.cli.commands import Context
    from wherry.runtime.cli.flags import Options


def exec_(context: Context, options: Options, arguments: Sequence[str]) -> int:
    """In the foreground the program's status is ours."""
    for refused in ("cgroup", "pidfd-socket"):
        if options.texts(refused) if refused == "cgroup" else options.text(refused):
            raise Unimplemented(f"exec --{refused} is not supported")
    runtime = context.runtime()
    status = runtime.status(arguments[0])
    if status.status == "paused" and not options.flag("ignore-paused"):
        raise FailedPrecondition("cannot exec in a paused container", hint="resume it, or use --ignore-paused")
    if status.status == "stopped":
        raise FailedPrecondition("cannot exec in a stopped container")
    process = _process(options, arguments, load_config(status.record.bundle))
    detach = options.flag("detach")
    check_terminal(boolean(process, "terminal", False, "process."), options, detach)
    name = f"exec-{os.getpid()}"
    preserve = options.number("preserve-fds") or 0
    if not detach:
        from wherry.runtime.cli import foreground

        foreground.hold_signals()
    launched = launch.drive(runtime.exec(arguments[0], name, process, (0, 1, 2), preserve=preserve))
    try:
        hand_over(options, launched)
    except OSError as error:
        os.kill(launched.process.pid, 9)
        raise FailedPrecondition(f"exec: {error}") from None
    if detach:
        return 0
    result = foreground.wait(launched)
    StateFile(context.root, arguments[0]).remove_exec(name)
    return result


def _process(options: Options, arguments: Sequence[str], config: dict[str, Any]) -> dict[str, Any]:
    path = options.text("process")
    if path:
        return _read_process(path)
    if len(arguments) < 2:
        raise InvalidArgument("process args cannot be empty")
    process = dict(mapping(config, "process"))
    process["args"] = list(arguments[1:])
    process["terminal"] = options.flag("tty")
    process["env"] = [*(process.get("env") or ()), *options.texts("env")]
    if options.text("cwd"):
        process["cwd"] = options.text("cwd")
    if options.flag("no-new-privs"):
        process["noNewPrivileges"] = True
    for flag, key in (("process-label", "selinuxLabel"), ("apparmor", "apparmorProfile")):
        if options.text(flag):
            process[key] = options.text(flag)
    process["user"] = _user(options, mapping(process, "user"))
    if options.texts("cap"):
        process["capabilities"] = _with_capabilities(mapping(process, "capabilities"), options.texts("cap"))
    return process


def _read_process(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            process = fastjson.loads(file.read())
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist", object=path) from None
    except ValueError as error:
        raise InvalidArgument(f"{path}: {error}") from None
    if not isinstance(process, dict):
        raise InvalidArgument(f"{path}: not an object")
    return process


def _user(options: Options, user: dict[str, Any]) -> dict[str, Any]:
    made = dict(user)
    text = options.text("user")
    if text:
        uid, _, gid = text.partition(":")
        made.update(uid=_number(uid, "user"), additionalGids=[])
        if gid:
            made["gid"] = _number(gid, "user")
    if options.texts("additional-gids"):
        extra = [_number(gid, "additional-gids") for gid in options.texts("additional-gids")]
        made["additionalGids"] = [*(made.get("additionalGids") or ()), *extra]
    return made


def _number(text: str, flag: str) -> int:
    if not text.isdigit():
        raise InvalidArgument(f"--{flag}: {text!r} is not a number", hint="names are not looked up in the container")
    return int(text)


def _with_capabilities(sets: dict[str, Any], added: Sequence[str]) -> dict[str, Any]:
    made = dict(sets)
    for name in ("bounding", "effective", "permitted"):
        made[name] = [*(made.get(name) or ()), *added]
    # Ambient ones need to be inheritable; who had such sets keeps them in step.
    for name in ("inheritable", "ambient"):
        if made.get(name):
            made[name] = [*made[name], *added]
    return made
