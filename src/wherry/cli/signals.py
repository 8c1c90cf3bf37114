"""Signals as bytes in a pipe, so that one poll loop sees them; `_signal` because `signal` imports enum."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_NEVER = {_signal.SIGKILL, _signal.SIGSTOP, _signal.SIGCHLD, _signal.SIGPIPE, _signal.SIGURG}
# Stopping and continuing the client is the shell's affair; a fault of our own is not the container's.
_OURS = {_signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL}


def _ignore(number: int, frame: object) -> None:
    """Having a handler of Python's is what makes the byte appear in the pipe."""


class SignalPipe:
    """`fd` can be read when a signal of `numbers` came; `take` gives the numbers."""

    def __init__(self, numbers: set[int]) -> None:
        self.fd, self._write = posix.pipe2(posix.O_NONBLOCK | posix.O_CLOEXEC)
        _signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in numbers:
            _signal.signal(number, _ignore)

    def take(self) -> list[int]:
        try:
            return list(posix.read(self.fd, 512))
        except BlockingIOError:
            return []


def proxied() -> set[int]:
    """The signals that `run` and `attach` pass on to the container's process."""
    return {number for number in range(1, _signal.NSIG) if number in _signal.valid_signals()} - _NEVER - _OURS


def dispatcher(
    pipe: SignalPipe, on_resize: Callable[[], None] | None, forward: Callable[[int], None] | None
) -> Callable[[], None]:
    def wake() -> None:
        for number in pipe.take():
            if number == _signal.SIGWINCH:
                if on_resize:
                    on_resize()
            elif forward:
                forward(number)

    return wake


def ignore(number: int) -> None:
    _signal.signal(number, _signal.SIG_IGN)


WINCH = _signal.SIGWINCH
