"""Volumes."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from wherry.api.bodies import send_pipe, upload
from wherry.api.call import Call
from wherry.api.connection import cancelled_when_gone
from wherry.api.reply import Answer, Stream, reply_empty, reply_json
from wherry.api.router import Route
from wherry.errors import Conflict, InvalidArgument, Unimplemented
from wherry.spec.decode import decode, document
from wherry.volumes import Volume


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
    volumes = call.engine.volumes
    there = bool(wanted.name) and volumes.known(wanted.name) is not None
    volume = await asyncio.to_thread(
        volumes.create, wanted.name or None, wanted.driver, wanted.driver_opts or {}, wanted.labels or {}
    )
    if not there:
        call.engine.events.emit("volume", "create", volume.name, {"driver": volume.driver})
    return reply_json(volume.to_json(), 201)


async def list_volumes(call: Call) -> Answer:
    """GET /volumes."""
    filters = call.query.filters()
    users = await _users(call) if "dangling" in filters else lambda name: ()
    found = await asyncio.to_thread(call.engine.volumes.list_all, filters, users)
    volumes = [volume.to_json() for volume in found.volumes]
    return reply_json({"Volumes": volumes, "Warnings": list(found.warnings) or None})


async def inspect(call: Call) -> Answer:
    """GET /volumes/{name}."""
    known = call.engine.volumes.known(call.name)
    if known is None or known.driver != "local":
        known = await asyncio.to_thread(call.engine.volumes.get, call.name)
    return reply_json(known.to_json())


async def remove(call: Call) -> Answer:
    """DELETE /volumes/{name}."""
    users = await _users(call)
    known = call.engine.volumes.known(call.name)
    await asyncio.to_thread(call.engine.volumes.remove, call.name, call.query.flag("force"), users=users)
    if known is not None:
        call.engine.events.emit("volume", "destroy", call.name, {"driver": known.driver})
    return reply_empty()


async def prune(call: Call) -> Answer:
    """POST /volumes/prune; before API 1.42 named volumes too."""
    filters = call.query.filters()
    if call.version < (1, 42):
        filters.setdefault("all", ["true"])
    pruned = await asyncio.to_thread(call.engine.volumes.prune, filters, await _users(call))
    for name in pruned.names:
        call.engine.events.emit("volume", "destroy", name, {"driver": "local"})
    call.engine.events.emit("volume", "prune", "", {"reclaimed": str(pruned.reclaimed)})
    return reply_json({"VolumesDeleted": pruned.names or None, "SpaceReclaimed": pruned.reclaimed})


async def rename(call: Call) -> Answer:
    """POST /wherry/volumes/{name}/rename?name=NEW."""
    users = await _users(call)
    made = await asyncio.to_thread(call.engine.volumes.rename, call.name, _new_name(call), users)
    call.engine.events.emit("volume", "rename", made.name, {"driver": "local", "oldName": call.name})
    return reply_json(made.to_json())


async def clone(call: Call) -> Answer:
    """POST /wherry/volumes/{name}/clone?name=NEW."""
    return _made(call, await asyncio.to_thread(call.engine.volumes.clone, call.name, _new_name(call)))


async def import_volume(call: Call) -> Answer:
    """POST /wherry/volumes/{name}/import: the body is a tar stream."""
    if call.engine.volumes.known(call.name) is not None:
        raise Conflict(f"a volume named {call.name} exists already", object=call.name)
    async with upload(call) as tar:
        return _made(call, await asyncio.to_thread(call.engine.volumes.import_, call.name, tar))


async def export(call: Call) -> Answer:
    """GET /wherry/volumes/{name}/export: a tar stream."""
    volumes, name = call.engine.volumes, call.name
    await asyncio.to_thread(volumes.get, name)
    reading, writing = os.pipe()

    def work() -> None:
        with suppress(BrokenPipeError), open(writing, "wb", buffering=1 << 18) as out:
            volumes.export(name, out)

    packing = asyncio.create_task(asyncio.to_thread(work))
    stream = Stream(call.request).open("application/x-tar")
    with cancelled_when_gone(call.request):
        await send_pipe(stream, reading)
        # A failure breaks the answer off: a tar without its end is none.
        await packing
    return await stream.end()


async def usage(call: Call) -> Answer:
    """GET /wherry/volumes/{name}/du: bytes of the files in it, -1 when only a plugin could tell."""
    return reply_json({"Name": call.name, "Size": await asyncio.to_thread(call.engine.volumes.size, call.name)})


def _new_name(call: Call) -> str:
    name = call.query.get("name")
    if not name:
        raise InvalidArgument("the new name is missing", object="name")
    return name


def _made(call: Call, volume: Volume) -> Answer:
    call.engine.events.emit("volume", "create", volume.name, {"driver": volume.driver})
    return reply_json(volume.to_json(), 201)


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
