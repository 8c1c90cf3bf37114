"""A container or exec in the foreground: signals passed on, a terminal relayed, the exit status ours."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` costs `enum`
import fcntl
import os
import select
import termios

from wherry.kernel import processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.runtime.launch import Launched

_SIGCHLD, _SIGWINCH = 17, 28
# Those that say something about this process, or that no one can catch, stay here.
_OURS = frozenset((4, 6, 8, 9, 11, 7, 5, 13, _SIGCHLD, 19, 20, 21, 22, 23, _SIGWINCH))


def hold_signals() -> None:
    """Before the program starts: what is sent to us from its first moment on waits until it can be passed on."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, [number for number in range(1, 32) if number not in _OURS])


def wait(launched: Launched) -> int:
    """Wait for the process's end; its status as a shell gives it. Takes the descriptors over."""
    pidfd = launched.pidfd

    def forward(number: int, _: object) -> None:
        try:
            processes.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            pass

    for number in range(1, 32):
        if number not in _OURS:
            _signal.signal(number, forward)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    if launched.console >= 0:
        _relay(launched.console, pidfd)
    _, status = os.waitpid(launched.process.pid, 0)
    return processes.shell_status(status)


def _relay(console: int, pidfd: int) -> None:
    """Between our terminal and the container's, until its process has ended and all its output is out."""
    saved = _make_raw(0)
    _copy_size(console)
    _signal.signal(_SIGWINCH, lambda *_: _copy_size(console))
    poll = select.poll()
    poll.register(console, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    poll.register(0, select.POLLIN)
    ended = False
    try:
        while True:
            ready = [fd for fd, _ in poll.poll(0 if ended else None)]
            if ended and console not in ready:
                return
            if 0 in ready and not _copy(0, console):
                poll.unregister(0)
            if console in ready and not _copy(console, 1):
                return
            if pidfd in ready:
                ended = True
                poll.unregister(pidfd)
    finally:
        if saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)
        os.close(console)


def _copy(source: int, target: int) -> bool:
    """False at the end of `source`."""
    try:
        data = os.read(source, 65536)
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]
    except OSError:  # EIO: the last holder of the other side is gone
        return False
    return bool(data)


def _copy_size(console: int) -> None:
    try:
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(console, termios.TIOCSWINSZ, size)
    except OSError:
        pass  # our input is no terminal: the container's keeps its size


def _make_raw(fd: int) -> list[Any] | None:
    """Raw mode, as cfmakeraw(3); the former state, or None when `fd` is no terminal."""
    try:
        saved = termios.tcgetattr(fd)
    except termios.error:
        return None
    raw = [*saved[:6], list(saved[6])]
    raw[0] &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR
        | termios.ICRNL | termios.IXON
    )  # fmt: skip
    raw[1] &= ~termios.OPOST
    raw[2] = raw[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSADRAIN, raw)
    return saved
