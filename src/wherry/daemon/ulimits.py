"""Ulimits as flags have them: `name=soft[:hard]`."""

import re

from wherry.errors import InvalidArgument
from wherry.spec.docker import Ulimit

_NAMES = frozenset(
    (
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    )
)


def parse_ulimit(text: str) -> Ulimit:
    """`nofile=1024:2048`; -1 is unlimited; without a hard limit it is the soft one."""
    name, equals, limits = text.partition("=")
    match = re.fullmatch(r"(-?[0-9]{1,18})(?::(-?[0-9]{1,18}))?", limits)
    if not equals or not match:
        raise InvalidArgument(f"invalid ulimit argument: {text}", object=text, hint="name=soft[:hard]")
    if name not in _NAMES:
        raise InvalidArgument(f"invalid ulimit type: {name}", object=name)
    soft = int(match[1])
    hard = int(match[2]) if match[2] else soft
    if hard != -1 and (soft == -1 or soft > hard):
        raise InvalidArgument(
            f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}", object=text
        )
    return Ulimit(name=name, soft=soft, hard=hard)
