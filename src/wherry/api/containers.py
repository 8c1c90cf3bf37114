"""Containers: life cycle, listing, inspection."""

from dataclasses import dataclass, replace
from typing import Any

from wherry.api.call import Call
from wherry.api.reply import Answer, Reply, reply_empty, reply_json
from wherry.api.router import Route
from wherry.errors import InvalidArgument
from wherry.spec.decode import decode, document
from wherry.spec.docker import ContainerConfig, HostConfig, NetworkingConfig, RestartPolicy


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a creation's document holds beside the configuration itself."""

    host_config: HostConfig = HostConfig()
    networking_config: NetworkingConfig = NetworkingConfig()


_PART_KEYS = frozenset(("hostconfig", "networkingconfig"))


async def create(call: Call) -> Answer:
    """POST /containers/create."""
    body = await call.json()
    if body is not None and not isinstance(body, dict):
        raise InvalidArgument(f"invalid JSON: the document must be an object, not {type(body).__name__}")
    if not body or all(name.casefold() in _PART_KEYS for name in body):
        raise InvalidArgument("config cannot be empty in order to create a container")
    parts = decode(Parts, body)
    _refuse_kernel_memory(body.get("HostConfig"))
    created = await call.engine.containers.create(
        call.query.get("name") or None,
        decode(ContainerConfig, body),
        _shape_host(call, parts.host_config),
        parts.networking_config,
        call.query.get("platform") or None,
    )
    return reply_json({"Id": created.id, "Warnings": created.warnings or []}, 201)


def _refuse_kernel_memory(host: object) -> None:
    # No field any more (API 1.42), so dockerd takes it and forgets it.
    if isinstance(host, dict) and host.get("KernelMemory"):
        raise InvalidArgument(
            "KernelMemory cannot be limited: Linux has not been able to since 5.4",
            object="KernelMemory",
            hint="limit Memory, which includes it",
        )


def _shape_host(call: Call, host: HostConfig) -> HostConfig:
    """What older clients mean by what they leave out."""
    if host.pids_limit is not None and host.pids_limit <= 0:
        host = replace(host, pids_limit=None)
    if call.version < (1, 41) and not host.cgroupns_mode:
        host = replace(host, cgroupns_mode="host")
    if call.version < (1, 40) and not host.ipc_mode:
        host = replace(host, ipc_mode="shareable")
    if call.version < (1, 25):
        host = replace(host, auto_remove=False)
    return host


async def start(call: Call) -> Answer:
    """POST /containers/{id}/start."""
    return reply_empty(204 if await call.engine.containers.start(call.name) else 304)


async def stop(call: Call) -> Answer:
    """POST /containers/{id}/stop."""
    timeout, signal = call.query.integer("t"), call.query.get("signal") or None
    notes: list[str] = []
    stopped = await call.engine.containers.stop(call.name, timeout, signal, notes)
    return _noted(reply_empty(204 if stopped else 304), notes)


def _noted(reply: Reply, notes: list[str]) -> Reply:
    """A header that docker's clients do not look at."""
    if notes:
        reply.headers = {"Wherry-Note": "; ".join(notes)}
    return reply


async def restart(call: Call) -> Answer:
    """POST /containers/{id}/restart."""
    timeout, signal = call.query.integer("t"), call.query.get("signal") or None
    notes: list[str] = []
    await call.engine.containers.restart(call.name, timeout, signal, notes)
    return _noted(reply_empty(), notes)


async def kill(call: Call) -> Answer:
    """POST /containers/{id}/kill."""
    await call.engine.containers.kill(call.name, call.query.get("signal") or None)
    return reply_empty()


async def pause(call: Call) -> Answer:
    """POST /containers/{id}/pause."""
    await call.engine.containers.pause(call.name)
    return reply_empty()


async def unpause(call: Call) -> Answer:
    """POST /containers/{id}/unpause."""
    await call.engine.containers.unpause(call.name)
    return reply_empty()


async def rename(call: Call) -> Answer:
    """POST /containers/{id}/rename."""
    name = call.query.get("name")
    if not name:
        raise InvalidArgument("Neither old nor new names may be empty")
    await call.engine.containers.rename(call.name, name)
    return reply_empty()


async def remove(call: Call) -> Answer:
    """DELETE /containers/{id}."""
    query = call.query
    await call.engine.containers.remove(
        call.name, force=query.flag("force"), volumes=query.flag("v"), link=query.flag("link")
    )
    return reply_empty()


async def update(call: Call) -> Answer:
    """POST /containers/{id}/update."""
    body = await call.json()
    host = decode(HostConfig, body)
    _refuse_kernel_memory(body)
    restart_policy: RestartPolicy | None = None
    if isinstance(body, dict) and body.get("RestartPolicy"):
        restart_policy = host.restart_policy
    warnings = await call.engine.containers.update(call.name, host, restart_policy)
    return reply_json({"Warnings": warnings or None})


_OLD_NETWORK = (
    "Bridge",
    "HairpinMode",
    "LinkLocalIPv6Address",
    "LinkLocalIPv6PrefixLen",
    "SecondaryIPAddresses",
    "SecondaryIPv6Addresses",
    "EndpointID",
    "Gateway",
    "GlobalIPv6Address",
    "GlobalIPv6PrefixLen",
    "IPAddress",
    "IPPrefixLen",
    "IPv6Gateway",
    "MacAddress",
)


async def inspect(call: Call) -> Answer:
    """GET /containers/{id}/json."""
    document = await call.engine.containers.inspect(call.name, call.query.flag("size"))
    return reply_json(_shape_inspect(call, document))


def _shape_inspect(call: Call, document: dict[str, Any]) -> dict[str, Any]:
    if call.version < (1, 52):
        return document
    document = dict(document)
    network = document.get("NetworkSettings")
    if isinstance(network, dict):
        document["NetworkSettings"] = {name: value for name, value in network.items() if name not in _OLD_NETWORK}
    host = document.get("HostConfig")
    if isinstance(host, dict):
        document["HostConfig"] = {name: value for name, value in host.items() if name != "KernelMemoryTCP"}
    config = document.get("Config")
    if isinstance(config, dict) and not config.get("OnBuild"):
        document["Config"] = {name: value for name, value in config.items() if name != "OnBuild"}
    return document


async def list_containers(call: Call) -> Answer:
    """GET /containers/json."""
    query = call.query
    body = await call.engine.containers.list_json(
        all=query.flag("all"), limit=query.integer("limit") or 0, size=query.flag("size"), filters=query.filters()
    )
    return Reply(200, body if body.endswith(b"\n") else body + b"\n")


async def top(call: Call) -> Answer:
    """GET /containers/{id}/top."""
    return reply_json(await call.engine.containers.top(call.name, call.query.get("ps_args") or "-ef"))


async def changes(call: Call) -> Answer:
    """GET /containers/{id}/changes."""
    return reply_json(await call.engine.containers.changes(call.name) or None)


async def resize(call: Call) -> Answer:
    """POST /containers/{id}/resize."""
    height, width = terminal_size(call)
    await call.engine.containers.resize(call.name, height, width)
    return Reply(200)


async def prune(call: Call) -> Answer:
    """POST /containers/prune."""
    return reply_json(await call.engine.containers.prune(call.query.filters()))


def terminal_size(call: Call) -> tuple[int, int]:
    """(height, width) of the query's `h` and `w`."""
    return _dimension(call, "h", "height"), _dimension(call, "w", "width")


def _dimension(call: Call, name: str, meaning: str) -> int:
    value = call.query.get(name)
    if not value.isascii() or not value.isdigit():
        raise InvalidArgument(f'invalid resize {meaning} "{value}": invalid syntax', object=name)
    if len(value) > 9 or int(value) > 65535:
        raise InvalidArgument(f'invalid resize {meaning} "{value}": value out of range', object=name)
    return int(value)


ROUTES = [
    Route("POST", "/containers/create", create),
    Route("GET", "/containers/json", list_containers),
    Route("POST", "/containers/prune", prune),
    Route("GET", "/containers/{id}/json", inspect),
    Route("GET", "/containers/{id}/top", top),
    Route("GET", "/containers/{id}/changes", changes),
    Route("POST", "/containers/{id}/start", start),
    Route("POST", "/containers/{id}/stop", stop),
    Route("POST", "/containers/{id}/restart", restart),
    Route("POST", "/containers/{id}/kill", kill),
    Route("POST", "/containers/{id}/pause", pause),
    Route("POST", "/containers/{id}/unpause", unpause),
    Route("POST", "/containers/{id}/rename", rename),
    Route("POST", "/containers/{id}/resize", resize),
    Route("POST", "/containers/{id}/update", update),
    Route("DELETE", "/containers/{id}", remove),
]
