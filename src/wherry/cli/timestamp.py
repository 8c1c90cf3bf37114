"""Moments on the command line: RFC 3339, seconds since the epoch, or a duration before now."""

from __future__ import annotations

import time

from wherry.cli.units import parse_duration
from wherry.errors import InvalidArgument


def timestamp(text: str, name: str) -> str:
    """As the API takes it: seconds.nanoseconds. Raises InvalidArgument."""
    try:
        total = time.time_ns() - parse_duration(text)
        return f"{total // 10**9}.{total % 10**9:09d}"
    except InvalidArgument:
        pass
    if "-" not in text.lstrip("-"):
        seconds, _, fraction = text.partition(".")
        if seconds.isdigit() and (not fraction or fraction.isdigit()):
            return text
        raise InvalidArgument(f'invalid value for "{name}": failed to parse value as time or duration: "{text}"')
    return _calendar(text, name)


def _calendar(text: str, name: str) -> str:
    import datetime

    whole, _, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    zone = rest[len(digits) :] if rest else ""
    if zone or digits:
        whole += zone
    try:
        moment = datetime.datetime.fromisoformat(whole)
    except ValueError:
        raise InvalidArgument(
            f'invalid value for "{name}": failed to parse value as time or duration: "{text}"'
        ) from None
    seconds = int(moment.timestamp())  # without a zone, local time
    return f"{seconds}.{digits.ljust(9, '0')[:9]}"
