"""What builds keep, as docker's system/df has it."""

from typing import Any

from wherry.build.cache_mounts import CacheDirectory
from wherry.images.image import now_rfc3339


def cache_documents(builds: Any) -> list[dict[str, Any]]:
    """In a thread: the records as docker's system/df has them."""
    found = []
    by_chain = {record.chain: record for record in builds.cache.records()}
    for record in by_chain.values():
        parent = by_chain.get(record.parent)
        found.append(
            {
                "ID": record.key[:25],
                "Parents": [parent.key[:25]] if parent is not None else None,
                "Type": "regular" if record.kind == "exec" else record.kind,
                "Description": record.title,
                "InUse": builds.cache.in_use(record),
                "Shared": False,
                "Size": record.size,
                "CreatedAt": now_rfc3339(record.created_ns),
                "LastUsedAt": now_rfc3339(record.used_ns),
                "UsageCount": record.uses,
            }
        )
    found += [_cache_mount(cache) for cache in builds.caches.list()]
    return sorted(found, key=lambda document: str(document["CreatedAt"]))


def _cache_mount(cache: CacheDirectory) -> dict[str, Any]:
    return {
        "ID": cache.name[:25],
        "Parents": None,
        "Type": "exec.cachemount",
        "Description": f"cached mount {cache.id}",
        "InUse": cache.in_use,
        "Shared": False,
        "Size": cache.size,
        "CreatedAt": now_rfc3339(cache.created_ns),
        "LastUsedAt": now_rfc3339(cache.used_ns),
        "UsageCount": 0,
    }
