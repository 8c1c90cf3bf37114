"""state, kill, delete, pause, resume."""

from __future__ import annotations

from wherry.errors import FailedPrecondition, InvalidArgument, NotFound
from wherry.runtime import launch
from wherry.runtime.container import state_document
from wherry.runtime.state import StateFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.runtime.cli.commands import Context
    from wherry.runtime.cli.flags import Options


def state(context: Context, options: Options, arguments: Sequence[str]) -> int:
    """The state document of the runtime specification."""
    import json

    print(json.dumps(state_document(context.runtime().status(arguments[0])), indent=2))
    return 0


def kill(context: Context, options: Options, arguments: Sequence[str]) -> int:
    """A signal, TERM by default."""
    number = signal_number(arguments[1] if len(arguments) > 1 else "TERM")
    try:
        context.runtime().kill(arguments[0], number, all=options.flag("all"))
    except FailedPrecondition as error:
        # containerd and podman know an ended container by these words.
        raise FailedPrecondition("container not running", object=error.object) from None
    return 0


def signal_number(text: str) -> int:
    """9, KILL and SIGKILL alike."""
    if text.isdigit():
        number = int(text)
    else:
        import _signal  # type: ignore[import-not-found]  # `signal` costs `enum`

        name = text.upper()
        number = getattr(_signal, name if name.startswith("SIG") else "SIG" + name, 0)
    if not isinstance(number, int) or not 0 < number < 65:
        raise InvalidArgument(f"unknown signal {text!r}")
    return number


def delete(context: Context, options: Options, arguments: Sequence[str]) -> int:
    """What is left of a stopped container; with --force of any, and of none."""
    force = options.flag("force")
    try:
        context.warn(launch.drive(context.runtime().delete(arguments[0], force=force)))
    except NotFound:
        if not force:
            raise
        return 0
    # Detached ones, whose end no one of ours was there to see.
    file = StateFile(context.root, arguments[0])
    for exec_id in file.execs():
        file.remove_exec(exec_id)
    return 0


def pause(context: Context, options: Options, arguments: Sequence[str]) -> int:
    """Freeze every process."""
    runtime = context.runtime()
    found = runtime.status(arguments[0]).status
    if found not in ("running", "created"):
        raise FailedPrecondition(f"container not running or created: {found}", object=arguments[0])
    launch.drive(runtime.pause(arguments[0]))
    return 0


def resume(context: Context, options: Options, arguments: Sequence[str]) -> int:
    """Undo pause."""
    runtime = context.runtime()
    if runtime.status(arguments[0]).status != "paused":
        raise FailedPrecondition("container not paused", object=arguments[0])
    runtime.resume(arguments[0])
    return 0
