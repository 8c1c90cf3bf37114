"""The build cache as BuildKit's clients see it (`buildx du`, `builder prune`): steps, cache mounts, contexts."""

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from wherry.buildkit.grpc import Call, Handler
from wherry.buildkit.messages import buildkit_pb2 as pb
from wherry.buildkit.report import stamp
from wherry.buildkit.synced import Slot, SyncedDirectories
from wherry.buildkit.threads import finished
from wherry.engine.build_documents import cache_documents
from wherry.errors import InvalidArgument

if TYPE_CHECKING:
    from wherry.engine import Engine

_SERVICE = "/moby.buildkit.v1.Control/"
_FILTER = re.compile(r"(id|type|description|inuse|shared|private|mutable|immutable)(?:(==|=|~=|!=)(.*))?\Z", re.DOTALL)


class Storage:
    """The calls."""

    def __init__(self, engine: "Engine", directories: SyncedDirectories) -> None:
        self._engine, self._directories = engine, directories

    def handlers(self) -> dict[str, Handler]:
        return {f"{_SERVICE}DiskUsage": self._disk_usage, f"{_SERVICE}Prune": self._prune}

    async def _disk_usage(self, call: Call) -> None:
        request = await call.one(pb.DiskUsageRequest)
        filters = [_parse(text) for text in request.filter if text]
        before = time.time_ns() - request.age_limit if request.age_limit else None
        documents = await asyncio.to_thread(self._documents)
        found = [_record(one) for one in documents if _matches(one, filters) and _older(one, before)]
        call.begin()
        await call.send(pb.DiskUsageResponse(record=found))

    async def _prune(self, call: Call) -> None:
        request = await call.one(pb.PruneRequest)
        filters = [_parse(text) for text in request.filter if text]
        if request.min_free_space:
            raise InvalidArgument("min-free-space is not supported", object="min-free-space")
        before = time.time_ns() - request.keep_duration if request.keep_duration else None
        keep = request.reserved_space or request.max_used_space
        gone, shown = await asyncio.to_thread(self._remove, filters, before, keep, request.all)
        for slot in self._directories.slots():
            # On the loop: a build may want it otherwise.
            if not keep and slot.name[:25] in shown and not slot.in_use and self._directories.take_out(slot):
                gone.append(shown[slot.name[:25]])
                await finished(slot.remove)
        self._engine.events.emit("builder", "prune", "", {"reclaimed": str(sum(int(one["Size"]) for one in gone))})
        call.begin()
        await call.send(*(_record(one) for one in gone))

    def _documents(self) -> list[dict[str, Any]]:
        found = cache_documents(self._engine.builds)
        return found + [_slot(slot) for slot in self._directories.slots()]

    def _remove(
        self, filters: Sequence[tuple[str, str, str]], before: int | None, keep: int, everything: bool
    ) -> tuple[list[dict[str, Any]], Mapping[str, dict[str, Any]]]:
        """In a thread: steps and cache mounts that were removed, as they were shown; and all that may be."""
        builds = self._engine.builds
        wanted = [one for one in self._documents() if _matches(one, filters) and _older(one, before)]
        shown = {str(one["ID"]): one for one in wanted if not one["InUse"]}
        pruned = builds.cache.prune(
            unused_since_ns=before, keep_bytes=keep, select=lambda record: record.key[:25] in shown
        )
        gone = [shown[one.record.key[:25]] for one in pruned[0] if one.record.key[:25] in shown]
        if keep:
            return gone, shown
        for cache in builds.caches.list():
            # Their content cannot be made again as a step's can: only when all is meant, or they are.
            if cache.name[:25] in shown and not cache.in_use and (everything or _names_type(filters)):
                builds.caches.remove(cache.name)
                gone.append(shown[cache.name[:25]])
        return gone, shown


def _names_type(filters: Sequence[tuple[str, str, str]]) -> bool:
    return any(name == "type" and "cachemount" in value for name, _, value in filters)


def _slot(slot: Slot) -> dict[str, Any]:
    return {
        "ID": slot.name[:25],
        "Parents": None,
        "Type": "source.local",
        "Description": "local source for a build context",
        "InUse": slot.in_use,
        "Shared": False,
        "Size": slot.size(),
        "CreatedAt": slot.idle_since(),
        "LastUsedAt": slot.idle_since(),
        "UsageCount": 0,
    }


def _record(document: Mapping[str, Any]) -> pb.UsageRecord:
    record = pb.UsageRecord(
        id=document["ID"],
        mutable=document["Type"] != "regular",
        in_use=document["InUse"],
        size=document["Size"],
        usage_count=document["UsageCount"],
        description=document["Description"],
        record_type=document["Type"],
        shared=document["Shared"],
        parents=document["Parents"] or (),
    )
    record.created_at.CopyFrom(stamp(_time_ns(document["CreatedAt"])))
    record.last_used_at.CopyFrom(stamp(_time_ns(document["LastUsedAt"])))
    return record


def _time_ns(value: object) -> int:
    if isinstance(value, float):
        return int(value * 10**9)
    # Nanoseconds are more than a datetime holds, and than anyone prunes by.
    text = re.sub(r"(\.\d{6})\d*", r"\1", str(value))
    return int(datetime.fromisoformat(text).timestamp() * 10**9)


def _older(document: Mapping[str, Any], before: int | None) -> bool:
    return before is None or _time_ns(document["LastUsedAt"]) < before


def _parse(text: str) -> tuple[str, str, str]:
    """containerd's filters: "type==regular", "id~=^abc", "inuse", joined by commas for and."""
    found = _FILTER.match(text.strip())
    if found is None:
        raise InvalidArgument(f"invalid filter {text!r}", object=text)
    name, operator, value = found.groups()
    if operator == "~=":
        try:
            re.compile(value)
        except re.error as error:
            raise InvalidArgument(f"invalid filter {text!r}: {error}", object=text) from None
        if len(value) > 200:
            raise InvalidArgument("a filter's pattern is longer than 200 characters", object=text)
    return name, operator or "", (value or "").strip("\"'")


def _matches(document: Mapping[str, Any], filters: Sequence[tuple[str, str, str]]) -> bool:
    return not filters or any(_matches_one(document, *one) for one in filters)


def _matches_one(document: Mapping[str, Any], name: str, operator: str, value: str) -> bool:
    mutable = document["Type"] != "regular"
    flags = {
        "inuse": document["InUse"],
        "shared": document["Shared"],
        "private": not document["Shared"],
        "mutable": mutable,
        "immutable": not mutable,
    }
    if name in flags:
        return bool(flags[name]) == (value.lower() not in ("false", "0"))
    shown = str(document[{"id": "ID", "type": "Type", "description": "Description"}[name]])
    if operator == "~=":
        return re.search(value, shown) is not None
    return (shown == value) != (operator == "!=")
