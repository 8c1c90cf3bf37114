"""One request for each of many names, a window of them on the way at a time."""

from __future__ import annotations

from wherry.cli.flags import StatusError
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wherry.client.engine import EngineClient, Pending

WINDOW = 32


def each(
    names: Sequence[str], send: Callable[[str], Pending], done: Callable[[str, Pending], None], window: int = WINDOW
) -> None:
    """Sends for every name and hands each answer to `done`, in order. Errors are shown together at the end."""
    waiting: list[tuple[str, Pending]] = []
    errors: list[str] = []
    left = list(names)
    while left or waiting:
        while left and len(waiting) < window:
            name = left.pop(0)
            waiting.append((name, send(name)))
        name, pending = waiting.pop(0)
        try:
            done(name, pending)
        except WherryError as error:
            errors.append(str(error))
    if errors:
        raise StatusError("\n".join(errors), 1)


def act(engine: EngineClient, names: Sequence[str], send: Callable[[str], Pending]) -> int:
    """The usual case: print each name once it is done."""

    def done(name: str, pending: Pending) -> None:
        pending.value()
        print(name)

    each(names, send, done, WINDOW)
    return 0
