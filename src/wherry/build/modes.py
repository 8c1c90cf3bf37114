"""--chmod: octal, or symbolic as chmod(1) has it, with X (dockerfile/reference.md, "COPY --chmod")."""

import re
import stat
from collections.abc import Callable

_OCTAL = re.compile(r"[0-7]{1,4}\Z")
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=][rwxXst]*|[-+=][ugo])+)\Z")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_SHIFT = {"u": 6, "g": 3, "o": 0}

Mode = Callable[[int], int]
"""From st_mode (with the kind) to the new permission bits."""


def parse_mode(text: str) -> Mode:
    """ValueError for what is neither."""
    if _OCTAL.match(text):
        fixed = int(text, 8)
        return lambda mode: fixed
    clauses = []
    for clause in text.split(","):
        match = _CLAUSE.match(clause)
        if match is None:
            raise ValueError(f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")
        who = match.group(1).replace("a", "ugo") or "ugo"
        clauses += [(who, operator, what) for operator, what in _ACTION.findall(match.group(2))]

    def apply(mode: int) -> int:
        bits = stat.S_IMODE(mode)
        for who, operator, what in clauses:
            bits = _apply(bits, stat.S_ISDIR(mode), who, operator, what)
        return bits

    return apply


def _apply(bits: int, directory: bool, who: str, operator: str, what: str) -> int:
    for one in dict.fromkeys(who):
        shift = _SHIFT[one]
        change = _bits(bits, directory, what) << shift
        mask = 0o7 << shift
        if "s" in what:
            special = {"u": stat.S_ISUID, "g": stat.S_ISGID, "o": 0}[one]
            change |= special
        if "t" in what and one == "o":
            change |= stat.S_ISVTX
        if operator == "+":
            bits |= change
        elif operator == "-":
            bits &= ~change
        else:
            cleared = mask | {"u": stat.S_ISUID, "g": stat.S_ISGID, "o": stat.S_ISVTX}[one]
            bits = (bits & ~cleared) | change
    return bits


def _bits(bits: int, directory: bool, what: str) -> int:
    if what in _SHIFT:
        return bits >> _SHIFT[what] & 0o7
    found = 4 * ("r" in what) | 2 * ("w" in what) | ("x" in what)
    if "X" in what and (directory or bits & 0o111):
        found |= 1
    return found
