"""Signals by the names and numbers docker accepts."""

import signal

from wherry.errors import InvalidArgument

_RTMIN = 34


def parse_signal(text: str) -> int:
    """ "KILL", "SIGKILL", "9", "RTMIN+3" as a number."""
    if text.isdigit():
        number = int(text)
        if 0 < number <= 64:
            return number
        raise InvalidArgument(f"invalid signal: {text}", object=text)
    name = text.upper().removeprefix("SIG")
    if name.startswith(("RTMIN", "RTMAX")):
        return _real_time(name, text)
    found = getattr(signal, f"SIG{name}", None)
    if not isinstance(found, signal.Signals):
        raise InvalidArgument(f"invalid signal: {text}", object=text)
    return int(found)


def _real_time(name: str, text: str) -> int:
    base, offset = (_RTMIN, name[5:]) if name.startswith("RTMIN") else (64, name[5:])
    number = base + int(offset) if offset[:1] in ("+", "-") and offset[1:].isdigit() else base if not offset else 0
    if not _RTMIN <= number <= 64:
        raise InvalidArgument(f"invalid signal: {text}", object=text)
    return number
