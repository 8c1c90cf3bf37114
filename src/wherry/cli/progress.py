"""The engine's progress messages: lines that move on a terminal, plain lines elsewhere."""

from __future__ import annotations

import posix

from wherry.cli.units import decimal_size
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TextIO

_BAR = 50
_CLEAR = "\x1b[2K\r"


def show(messages: Iterable[dict[str, Any]], out: TextIO) -> None:
    """Shows messages until their end. Raises the error that one of them carries."""
    terminal = out.isatty()
    width = posix.get_terminal_size(out.fileno()).columns if terminal else 0
    lines: dict[str, int] = {}
    for message in messages:
        if "error" in message or message.get("errorDetail"):
            detail = message.get("errorDetail") or {}
            raise WherryError(str(detail.get("message") or message.get("error")))
        identity = str(message.get("id", ""))
        up = 0
        if identity and ("progressDetail" in message or message.get("progress")):
            if identity not in lines:
                lines[identity] = len(lines)
                if terminal:
                    out.write("\n")
            up = len(lines) - lines[identity]
            if terminal and up:
                out.write(f"\x1b[{up}A")
        else:
            lines.clear()
        _one(message, out, terminal, width)
        if terminal and up:
            out.write(f"\x1b[{up}B")
        out.flush()


def _one(message: dict[str, Any], out: TextIO, terminal: bool, width: int) -> None:
    text = _bar(message.get("progressDetail") or {}, width)
    moving = "progressDetail" in message and "stream" not in message
    if text and not terminal:
        return
    prefix = f"{message['id']}: " if message.get("id") else ""
    if message.get("from"):
        prefix += f"(from {message['from']}) "
    if terminal and moving:
        out.write(f"{_CLEAR}{prefix}{message.get('status', '')} {text}\r")
    elif "stream" in message:
        out.write(f"{prefix}{message['stream']}")
    else:
        out.write(f"{prefix}{message.get('status', '')}\n")


def _bar(detail: dict[str, Any], width: int) -> str:
    current, total = detail.get("current", 0), detail.get("total", 0)
    if current <= 0 and total <= 0:
        return ""
    size = f"{decimal_size(current):>8}"
    if total <= 0:
        return size
    if current <= total:
        size += f"/{decimal_size(total)}"
    if 0 < width <= 110:
        return size
    done = min(int(current / total * 100) // 2, _BAR)
    return f"[{'=' * done}>{' ' * (_BAR - done)}] {size}"
