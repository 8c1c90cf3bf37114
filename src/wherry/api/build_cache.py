"""POST /build/prune."""

import asyncio
from typing import Any

from wherry.api.call import Call
from wherry.api.images import parse_until
from wherry.api.reply import Answer, reply_json
from wherry.build.cache import CacheRecord
from wherry.errors import InvalidArgument


async def prune(call: Call) -> Answer:
    """POST /build/prune."""
    builds, query = call.engine.builds, call.query
    filters = query.filters()
    keep = query.get("reserved-space") or query.get("keep-storage") or query.get("max-used-space")
    until = [parse_until(text) for text in filters.get("until") or ()]

    def select(record: CacheRecord) -> bool:
        return all(_matches(builds.cache, record, name, values) for name, values in filters.items() if name != "until")

    def work() -> tuple[list[str], int]:
        gone, freed = builds.cache.prune(
            unused_since_ns=min(until) * 10**9 if until else None,
            keep_bytes=int(keep) if keep else 0,
            select=select,
        )
        names = [one.record.key[:25] for one in gone]
        kinds = filters.get("type") or ()
        if (query.flag("all") or "exec.cachemount" in kinds) and not keep:
            for found in builds.caches.list():
                if not found.in_use and (not until or found.used_ns < min(until) * 10**9):
                    builds.caches.remove(found.name)
                    names.append(found.name[:25])
                    freed += found.size
        if query.flag("all") and not keep and not until:
            builds.kept.prune(0)
        return names, freed

    names, freed = await asyncio.to_thread(work)
    call.engine.events.emit("builder", "prune", "", {"reclaimed": str(freed)})
    return reply_json({"CachesDeleted": names or None, "SpaceReclaimed": freed})


def _matches(cache: Any, record: CacheRecord, name: str, values: list[str]) -> bool:
    if name == "id":
        return any(record.key.startswith(value.rstrip("*")) for value in values)
    if name in ("type", "description"):
        shown = record.kind if name == "type" else record.title
        return any(value.lstrip("~") in shown for value in values)
    if name in ("inuse", "shared", "private"):
        return (name == "private") == (not cache.in_use(record))
    raise InvalidArgument(f"invalid filter '{name}'", object=name)
