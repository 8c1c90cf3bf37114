"""Volumes. What waits for a plugin or for the client does so in a thread of its own."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from wherry.api.bodies import send_written, upload
from wherry.api.call import Call
from wherry.api.reply import Answer, reply_empty, reply_json
from wherry.api.router import Route
from wherry.engine.threads import in_own_thread
from wherry.errors import Conflict, InvalidArgument, Unimplemented
from wherry.spec.decode import decode, document


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class _CreateVolume:
    name: str = ""
    driver: str = ""
    driver_opts: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = None
    cluster_volume_spec: Any = None


async def _users(call: Call) -> Callable[[str], Sequence[str]]:
    """Tells the ids of the containers, running or not, that use a volume."""
    found: dict[str, list[str]] = {}
    for container in await call.engine.containers.list(all=True):
        for mount in container.get("Mounts") or ():
            if mount.get("Type") == "volume" and mount.get("Name"):
                found.setdefault(mount["Name"], []).append(container["Id"])
    return lambda name: found.get(name, [])


async def create(call: Call) -> Answer:
    """POST /volumes/create; an existing one of that name is given back."""
    body = await call.json(optional=True)
    wanted = decode(_CreateVolume, {} if body is None else body)
    if wanted.cluster_volume_spec is not None:
        raise Unimplemented("cluster volumes are not supported")
    volume = await in_own_thread(
        call.engine.volumes.create, wanted.name or None, wanted.driver, wanted.driver_opts or {}, wanted.labels or {}
    )
    return reply_json(volume.to_json(), 201)


async def list_volumes(call: Call) -> Answer:
    """GET /volumes."""
    filters = call.query.filters()
    users = await _users(call) if "dangling" in filters else lambda name: ()
    found = await in_own_thread(call.engine.volumes.list_all, filters, users)
    volumes = [volume.to_json() for volume in found.volumes]
    return reply_json({"Volumes": volumes, "Warnings": list(found.warnings) or None})


async def inspect(call: Call) -> Answer:
    """GET /volumes/{name}."""
    known = call.engine.volumes.known(call.name)
    if known is None or known.driver != "local":
        known = await in_own_thread(call.engine.volumes.get, call.name)
    return reply_json(known.to_json())


async def remove(call: Call) -> Answer:
    """DELETE /volumes/{name}."""
    users = await _users(call)
    work = partial(call.engine.volumes.remove, call.name, call.query.flag("force"), users=users)
    await in_own_thread(work)
    return reply_empty()


async def prune(call: Call) -> Answer:
    """POST /volumes/prune; before API 1.42 named volumes too."""
    filters = call.query.filters()
    if call.version < (1, 42):
        filters.setdefault("all", ["true"])
    pruned = await asyncio.to_thread(call.engine.volumes.prune, filters, await _users(call))
    call.engine.events.emit("volume", "prune", "", {"reclaimed": str(pruned.reclaimed)})
    return reply_json({"VolumesDeleted": pruned.names or None, "SpaceReclaimed": pruned.reclaimed})


async def rename(call: Call) -> Answer:
    """POST /wherry/volumes/{name}/rename?name=NEW."""
    users = await _users(call)
    made = await asyncio.to_thread(call.engine.volumes.rename, call.name, _new_name(call), users)
    return reply_json(made.to_json())


async def clone(call: Call) -> Answer:
    """POST /wherry/volumes/{name}/clone?name=NEW."""
    made = await in_own_thread(call.engine.volumes.clone, call.name, _new_name(call))
    return reply_json(made.to_json(), 201)


async def import_volume(call: Call) -> Answer:
    """POST /wherry/volumes/{name}/import: the body is a tar stream."""
    if call.engine.volumes.known(call.name) is not None:
        raise Conflict(f"a volume named {call.name} exists already", object=call.name)
    async with upload(call) as tar:
        made = await in_own_thread(call.engine.volumes.import_, call.name, tar)
    return reply_json(made.to_json(), 201)


async def export(call: Call) -> Answer:
    """GET /wherry/volumes/{name}/export: a tar stream."""
    return await send_written(call, "application/x-tar", partial(call.engine.volumes.export, call.name))


async def usage(call: Call) -> Answer:
    """GET /wherry/volumes/{name}/du: bytes of the files in it, -1 when only a plugin could tell."""
    return reply_json({"Name": call.name, "Size": await asyncio.to_thread(call.engine.volumes.size, call.name)})


def _new_name(call: Call) -> str:
    name = call.query.get("name")
    if not name:
        raise InvalidArgument("the new name is missing", object="name")
    return name


ROUTES = [
    Route("GET", "/volumes", list_volumes),
    Route("POST", "/volumes/create", create),
    Route("POST", "/volumes/prune", prune),
    Route("GET", "/volumes/{name}", inspect),
    Route("DELETE", "/volumes/{name}", remove),
    Route("POST", "/wherry/volumes/{name}/rename", rename),
    Route("POST", "/wherry/volumes/{name}/clone", clone),
    Route("POST", "/wherry/volumes/{name}/import", import_volume),
    Route("GET", "/wherry/volumes/{name}/export", export),
    Route("GET", "/wherry/volumes/{name}/du", usage),
]
