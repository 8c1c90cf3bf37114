"""The terminal we run in: is it one, how large, raw mode, and the keys that detach."""

from __future__ import annotations

import posix

from wherry.cli.flags import StatusError
from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DEFAULT_KEYS = b"\x10\x11"  # ctrl-p, ctrl-q
_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def check(attach_stdin: bool, tty: bool) -> None:
    """A pseudo-TTY that is fed from what is none loses input; docker refuses it, and so do we."""
    if tty and attach_stdin and not posix.isatty(0):
        raise StatusError("the input device is not a TTY", 1)


def size() -> tuple[int, int] | None:
    """(rows, columns) of the terminal behind our output, or input."""
    for fd in (1, 0, 2):
        try:
            found = posix.get_terminal_size(fd)
        except OSError:
            continue
        if found.lines or found.columns:
            return found.lines, found.columns
    return None


class Raw:
    """Raw mode on standard input while the block runs."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted and posix.isatty(0)
        self._saved: list[Any] = []

    def __enter__(self) -> None:
        if not self._wanted:
            return
        import termios

        self._saved = termios.tcgetattr(0)
        raw = termios.tcgetattr(0)
        raw[0] &= ~(
            termios.IGNBRK
            | termios.BRKINT
            | termios.PARMRK
            | termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
        )
        raw[2] = raw[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
        # Output processing stays, as docker's client leaves it.
        termios.tcsetattr(0, termios.TCSANOW, raw)

    def __exit__(self, *_exception: object) -> None:
        if self._saved:
            import termios

            termios.tcsetattr(0, termios.TCSANOW, self._saved)


def detach_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` as bytes. Raises InvalidArgument."""
    if not text:
        return _DEFAULT_KEYS
    keys = bytearray()
    for key in text.split(","):
        name = key.removeprefix("ctrl-")
        if key != name and len(name) == 1 and ((name.isascii() and name.isalpha()) or name in _CONTROL):
            keys.append(_CONTROL[name] if name in _CONTROL else ord(name.lower()) - 96)
        elif len(key.encode()) == 1:
            keys += key.encode()
        else:
            raise InvalidArgument(f"invalid detach keys ({text}): Unknown character: '{key}'")
    return bytes(keys)
