"""Volumes."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wherry.api.call import Call
from wherry.api.reply import Answer, reply_empty, reply_json
from wherry.api.router import Route
from wherry.errors import Conflict, InvalidArgument, Unimplemented
from wherry.spec.decode import document


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class _CreateVolume:
    name: str = ""
    driver: str = ""
    driver_opts: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = None
    cluster_volume_spec: Any = None


def volume_document(volume: Any) -> dict[str, Any]:
    """A volume as docker shows it."""
    return {
        "CreatedAt": volume.created,
        "Driver": volume.driver,
        "Labels": dict(volume.labels) if volume.labels else None,
        "Mountpoint": str(volume.mountpoint),
        "Name": volume.name,
        "Options": dict(volume.options) if volume.options else None,
        "Scope": "local",
    }


async def users(call: Call) -> dict[str, list[str]]:
    """The ids of the containers, running or not, that use each volume."""
    found: dict[str, list[str]] = {}
    for container in await call.engine.containers.list(all=True):
        for mount in container.get("Mounts") or ():
            if mount.get("Type") == "volume" and mount.get("Name"):
                found.setdefault(mount["Name"], []).append(container["Id"])
    return found


async def create(call: Call) -> Answer:
    """POST /volumes/create; an existing one of that name is given back."""
    wanted = await call.document(_CreateVolume)
    if wanted.cluster_volume_spec is not None:
        raise Unimplemented("cluster volumes are not supported")
    volumes = call.engine.volumes
    volume = await asyncio.to_thread(
        volumes.create, wanted.name or None, wanted.driver or "local", wanted.driver_opts or {}, wanted.labels or {}
    )
    return reply_json(volume_document(volume), 201)


_FILTERS = frozenset(("dangling", "driver", "label", "name"))


async def list_volumes(call: Call) -> Answer:
    """GET /volumes."""
    filters = call.query.filters()
    unknown = filters.keys() - _FILTERS
    if unknown:
        raise InvalidArgument(f"invalid filter '{min(unknown)}'")
    used = await users(call) if "dangling" in filters else {}
    found = await asyncio.to_thread(call.engine.volumes.list)
    selected = [volume for volume in found if _selects(filters, volume, used)]
    return reply_json({"Volumes": [volume_document(volume) for volume in selected], "Warnings": None})


def _selects(filters: Mapping[str, list[str]], volume: Any, used: Mapping[str, list[str]]) -> bool:
    dangling = filters.get("dangling")
    if dangling:
        if dangling[0].lower() not in ("1", "0", "true", "false"):
            raise InvalidArgument(f"invalid filter 'dangling={dangling}'")
        if (dangling[0].lower() in ("1", "true")) == (volume.name in used):
            return False
    if filters.get("driver") and volume.driver not in filters["driver"]:
        return False
    if filters.get("name") and not any(part in volume.name for part in filters["name"]):
        return False
    return has_labels(volume.labels or {}, filters.get("label") or ())


def has_labels(labels: Mapping[str, str], wanted: Iterable[str]) -> bool:
    """Whether all of `wanted` ("name" or "name=value") are there."""
    for item in wanted:
        name, equals, value = item.partition("=")
        if name not in labels or (equals and labels[name] != value):
            return False
    return True


async def inspect(call: Call) -> Answer:
    """GET /volumes/{name}."""
    return reply_json(volume_document(await asyncio.to_thread(call.engine.volumes.get, call.name)))


async def remove(call: Call) -> Answer:
    """DELETE /volumes/{name}."""
    used = (await users(call)).get(call.name)
    if used:
        await asyncio.to_thread(call.engine.volumes.get, call.name)
        raise Conflict(f"remove {call.name}: volume is in use - [{', '.join(used)}]", object=call.name)
    await asyncio.to_thread(call.engine.volumes.remove, call.name, call.query.flag("force"))
    call.engine.events.emit("volume", "destroy", call.name, {"driver": "local"})
    return reply_empty()


ROUTES = [
    Route("GET", "/volumes", list_volumes),
    Route("POST", "/volumes/create", create),
    Route("GET", "/volumes/{name}", inspect),
    Route("DELETE", "/volumes/{name}", remove),
]
