"""Owners of bind mounts changed on the way in: `-v source:target:idmap`.

Without numbers, what belongs to the source's owner belongs to root in the container and the reverse; all other ids are
as they are, but that the owner's own id and root's are nobody's. With numbers: "uids=C-S-N;gids=C-S-N", ids from C on
in the container are those from S on in the source, N of them; several separated by "#".
"""

import os
import re
from typing import Any

from wherry.engine.userns import Remap
from wherry.errors import InvalidArgument

AUTO = "auto"
_PART = re.compile(r"(uids|gids)=(\d+-\d+-\d+(?:#\d+-\d+-\d+)*)")
_MAX = 2**32 - 1
_LAST = 65536


def check_idmap(text: str) -> None:
    """InvalidArgument when `text` says nothing that can be mapped."""
    if text not in ("", AUTO):
        _parse(text)


def document(text: str, source: str, remap: Remap | None) -> dict[str, Any]:
    """`uidMappings` and `gidMappings` of a mount of the runtime specification: from the source's ids to the host's,
    which a container in a user namespace sees through its own."""
    status = os.stat(source)
    found = {"uids": _owners(status.st_uid), "gids": _owners(status.st_gid)} if text == AUTO else _parse(text)
    return {
        "uidMappings": _mappings(found["uids"], remap.host_uid if remap else None),
        "gidMappings": _mappings(found["gids"], remap.host_gid if remap else None),
    }


def _owners(id: int) -> list[tuple[int, int, int]]:
    """(container, source, count)."""
    if id == 0:
        return [(0, 0, _LAST)]
    below, above = (1, 1, min(id, _LAST) - 1), (id + 1, id + 1, _LAST - id - 1)
    return [(0, id, 1), *(part for part in (below, above) if part[2] > 0)]


def _parse(text: str) -> dict[str, list[tuple[int, int, int]]]:
    found: dict[str, list[tuple[int, int, int]]] = {}
    for part in text.split(";"):
        match = _PART.fullmatch(part)
        if match is None or match[1] in found:
            raise InvalidArgument(f"invalid idmap: {text!r}", object=text, hint="uids=0-1000-1;gids=0-1000-1")
        found[match[1]] = [_numbers(item, text) for item in match[2].split("#")]
    if len(found) != 2:
        raise InvalidArgument(f"invalid idmap: {text!r}: uids and gids go together", object=text)
    return found


def _numbers(item: str, text: str) -> tuple[int, int, int]:
    first, source, count = (int(word) for word in item.split("-"))
    if not count or max(first, source) + count > _MAX:
        raise InvalidArgument(f"invalid idmap: {text!r}: {item} is no range of ids", object=text)
    return first, source, count


def _mappings(found: list[tuple[int, int, int]], to_host: Any) -> list[dict[str, int]]:
    rows = []
    for container, source, count in found:
        if to_host is None:
            rows.append({"containerID": source, "hostID": container, "size": count})
            continue
        # Subordinate ids come in few ranges and may end early: what has no id in there is left out.
        try:
            host = to_host(container)
            to_host(container + count - 1)
        except InvalidArgument:
            if container == 0:
                raise
            continue
        rows.append({"containerID": source, "hostID": host, "size": count})
    return rows
