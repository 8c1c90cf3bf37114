"""Sizes and durations as docker reads and writes them."""

from __future__ import annotations

from wherry.errors import InvalidArgument

_BINARY = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_IEC = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")
_DURATION = {
    "ns": 1,
    "us": 10**3,
    "\u00b5s": 10**3,
    "\u03bcs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
HOUR = 3600


def ram_bytes(text: str) -> int:
    """`512m`, `1.5GiB`, `1kb`: powers of 1024, whatever the letters' case. Raises InvalidArgument."""
    error = InvalidArgument(f"invalid size: '{text}'")
    end = max((index for index, char in enumerate(text) if char in "0123456789. "), default=-1) + 1
    number, unit = text[:end], text[end:].lower()
    number = number.removesuffix(" ")
    if (unit.endswith("ib") and len(unit) == 3) or (unit.endswith("b") and len(unit) == 2):
        unit = unit[0]
    try:
        size = float(number)
    except ValueError:
        raise error from None
    if " " in number or size < 0:
        raise error
    if unit not in _BINARY:
        raise InvalidArgument(f"invalid suffix: '{unit}'")
    return int(number) * _BINARY[unit] if number.isdigit() else int(size * _BINARY[unit])


def swap_bytes(text: str) -> int:
    """As ram_bytes; -1 is "unlimited"."""
    return -1 if text == "-1" else ram_bytes(text)


def nano_cpus(text: str) -> int:
    """A number of processors, `1.5` or `3/2`, in billionths."""
    from fractions import Fraction

    try:
        value = Fraction(text) * 10**9
    except (ValueError, ZeroDivisionError):
        raise InvalidArgument(f"failed to parse {text} as a rational number") from None
    if value.denominator != 1:
        raise InvalidArgument("value is too precise")
    return value.numerator


def parse_duration(text: str) -> int:
    """Go's durations, `1h2m3.5s`, in nanoseconds. Raises InvalidArgument."""
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    total = 0
    while rest:
        end = 0
        while end < len(rest) and rest[end] in "0123456789.":
            end += 1
        number, rest = rest[:end], rest[end:]
        end = 0
        while end < len(rest) and rest[end] not in "0123456789.":
            end += 1
        unit, rest = rest[:end], rest[end:]
        if not number.strip(".") or number.count(".") > 1:
            raise InvalidArgument(f'time: invalid duration "{text}"')
        if unit not in _DURATION:
            what = f'unknown unit "{unit}" in' if unit else "missing unit in"
            raise InvalidArgument(f'time: {what} duration "{text}"')
        whole, _, part = number.partition(".")
        total += int(whole or 0) * _DURATION[unit] + int(part or 0) * _DURATION[unit] // 10 ** len(part)
    if not text.strip("+-"):
        raise InvalidArgument(f'time: invalid duration "{text}"')
    return -total if text[0] == "-" else total


def go_float(value: float, precision: int) -> str:
    """Go's %.{precision}g: like C's, but exponents begin at 21 digits only when precision allows."""
    return f"{value:.{precision}g}"


def decimal_size(size: float, precision: int = 4) -> str:
    """1234567 -> 1.235MB (powers of 1000)."""
    return _scaled(size, 1000.0, _DECIMAL, precision)


def binary_size(size: float, precision: int = 4) -> str:
    """1234567 -> 1.177MiB."""
    return _scaled(size, 1024.0, _IEC, precision)


def _scaled(size: float, base: float, names: tuple[str, ...], precision: int) -> str:
    index = 0
    while size >= base and index < len(names) - 1:
        size /= base
        index += 1
    return f"{size:.{precision}g}{names[index]}"


def human_duration(seconds: float) -> str:
    """`5 minutes`, `About an hour`: how long ago, roughly, in docker's steps."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / HOUR + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds / HOUR) // 24 // 365} years"


def ago(then: float, now: float) -> str:
    return f"{human_duration(now - then)} ago"
