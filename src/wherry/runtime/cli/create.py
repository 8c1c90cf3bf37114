"""create, start, run: a container from a bundle."""

from __future__ import annotations

import os

from wherry.errors import FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from wherry.runtime import launch
from wherry.runtime.container import load_config
from wherry.runtime.document import boolean, mapping
from wherry.runtime.plan import Choices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wherry.runtime.cli.commands import Context
    from wherry.runtime.cli.flags import Options
    from wherry.runtime.launch import Launched

_STREAMS = (0, 1, 2)


def create(context: Context, options: Options, arguments: Sequence[str]) -> int:
    """Everything up to, and not including, the program."""
    launched = _make(context, options, arguments[0], wait=True, detach=True)
    _hand_over(options, launched, context, arguments[0])
    return 0


def start(context: Context, options: Options, arguments: Sequence[str]) -> int:
    """Let the program of a created container run."""
    launch.drive(context.runtime().start(arguments[0]))
    return 0


def run(context: Context, options: Options, arguments: Sequence[str]) -> int:
    """Create and start; in the foreground also wait and delete, with the program's status as ours."""
    identifier, detach = arguments[0], options.flag("detach")
    if not detach:
        from wherry.runtime.cli import foreground

        foreground.hold_signals()
    launched = _make(context, options, identifier, wait=False, detach=detach)
    if detach:
        _hand_over(options, launched, context, identifier)
        return 0
    _write_pid(options, launched)
    status = foreground.wait(launched)
    if not options.flag("keep"):
        try:
            context.warn(launch.drive(context.runtime().delete(identifier, force=True)))
        except NotFound:
            pass  # someone else was faster
    return status


def _make(context: Context, options: Options, identifier: str, *, wait: bool, detach: bool) -> Launched:
    if options.text("pidfd-socket"):
        raise Unimplemented("--pidfd-socket is not supported")
    bundle = os.path.abspath(options.text("bundle") or ".")
    preserve = options.number("preserve-fds") or 0
    runtime = context.runtime()
    check_console(load_config(bundle), options, detach)
    choices = Choices(keyring=not options.flag("no-new-keyring"), pivot=not options.flag("no-pivot"))
    return launch.drive(runtime.run(identifier, bundle, (), _STREAMS, wait=wait, preserve=preserve, choices=choices))


def check_console(config: dict[str, Any], options: Options, detach: bool) -> None:
    """A terminal needs someone who holds its other end: us, or who listens at --console-socket."""
    check_terminal(boolean(mapping(config, "process"), "terminal", False, "process."), options, detach)


def check_terminal(terminal: bool, options: Options, detach: bool) -> None:
    """See check_console."""
    socket = options.text("console-socket")
    if terminal and detach and not socket:
        raise InvalidArgument("cannot allocate tty if the runtime will detach without setting console socket")
    if socket and not (terminal and detach):
        raise InvalidArgument("cannot use console socket if the runtime will not detach or allocate tty")


def _hand_over(options: Options, launched: Launched, context: Context, identifier: str) -> None:
    try:
        hand_over(options, launched)
    except OSError as error:
        launch.drive(context.runtime().delete(identifier, force=True))
        raise FailedPrecondition(f"container {identifier}: {error}") from None


def hand_over(options: Options, launched: Launched) -> None:
    """Give the terminal away and say which process it is."""
    socket = options.text("console-socket")
    if socket and launched.console >= 0:
        send_console(socket, launched.console)
    _write_pid(options, launched)


def _write_pid(options: Options, launched: Launched) -> None:
    path = options.text("pid-file")
    if not path:
        return
    directory, name = os.path.split(os.path.abspath(path))
    temporary = f"{directory}/.{name}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(str(launched.process.pid))
    os.rename(temporary, path)


def send_console(path: str, console: int) -> None:
    """Send a terminal's master to the stream socket at `path`, as runc does (SCM_RIGHTS, its name as the data)."""
    import _socket

    sender = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sender.connect(path)
        sender.sendmsg(
            [b"/dev/ptmx"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, console.to_bytes(4, "little", signed=True))]
        )
    finally:
        sender.close()
