"""How many bytes a repository may hold: limits by pattern, the first that fits.

What a repository holds is the sum of its blobs, a blob shared with others counted in each. It is counted anew at most
once a minute for each process, and kept up in between by what this process adds; a limit can therefore be overrun by
what other processes take in within that minute.
"""

import fnmatch
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from wherry.errors import InvalidArgument
from wherry.registry.errors import Refused
from wherry.registry.store import Repositories, blob_key

_FRESH_SECONDS = 60.0
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Quotas:
    """Limits in bytes by pattern of repository ("team/*")."""

    def __init__(self, limits: Sequence[tuple[str, int]] = ()) -> None:
        self._limits = tuple(limits)
        self._held: dict[str, tuple[float, int]] = {}

    def limit(self, name: str) -> int | None:
        return next((limit for pattern, limit in self._limits if fnmatch.fnmatchcase(name, pattern)), None)

    async def require(self, repositories: Repositories, name: str, more: int) -> None:
        """Refused(DENIED) when `more` bytes are too many."""
        limit = self.limit(name)
        if limit is None:
            return
        held = await self._count(repositories, name)
        if held + more > limit:
            message = f"quota of {name} exceeded: it holds {held} bytes, {more} more would pass its {limit}"
            raise Refused("DENIED", message, detail={"limit": limit, "held": held})

    def add(self, name: str, size: int) -> None:
        """This process has added a blob."""
        if name in self._held:
            counted, held = self._held[name]
            self._held[name] = (counted, held + size)

    async def _count(self, repositories: Repositories, name: str) -> int:
        counted, held = self._held.get(name, (0.0, 0))
        if time.monotonic() - counted < _FRESH_SECONDS and counted:
            return held
        held = 0
        for digest in await repositories.linked(name, "blobs"):
            found = await repositories.backend.stat(blob_key(digest))
            held += found.size if found is not None else 0
        self._held[name] = (time.monotonic(), held)
        return held


def parse_limits(document: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, int], ...]:
    """The `quota` tables of an access file: repositories = "team/*", size = "10G"; InvalidArgument."""
    found = []
    for number, entry in enumerate(document, 1):
        if entry.keys() != {"repositories", "size"} or not isinstance(entry["repositories"], str):
            raise InvalidArgument(f"quota {number}: wanted repositories (text) and size")
        found.append((entry["repositories"], parse_size(entry["size"], f"quota {number}")))
    return tuple(found)


def parse_size(value: Any, where: str) -> int:
    """Bytes from a number, or a text such as "10G" or "512MB"; InvalidArgument."""
    match = re.fullmatch(r"(\d+)\s*([kmgt]?)i?b?", str(value).lower())
    if match is None:
        raise InvalidArgument(f"{where}: {value!r} is not a size", hint="such as 500M or 10G")
    return int(match[1]) * _UNITS[match[2]]
