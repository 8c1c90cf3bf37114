"""The daemon itself: _ping, version, info, events, disk usage, auth."""

from typing import Any

from wherry.api.call import Call
from wherry.api.connection import cancelled_when_gone
from wherry.api.reply import MAXIMUM_VERSION, MINIMUM_VERSION, Answer, Reply, Stream, dump_json, reply_json
from wherry.api.router import Route
from wherry.errors import InvalidArgument
from wherry.images import RegistryAuth
from wherry.spec.docker import AuthConfig

_PING_HEADERS = {
    "Builder-Version": "2",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
    "Swarm": "inactive",
}
_PLAIN = "text/plain; charset=utf-8"


async def ping(call: Call) -> Answer:
    """GET and HEAD /_ping."""
    if call.request.method == "HEAD":
        return Reply(200, b"", _PLAIN, {**_PING_HEADERS, "Content-Type": _PLAIN})
    return Reply(200, b"OK", _PLAIN, _PING_HEADERS)


async def version(call: Call) -> Answer:
    """GET /version."""
    document = dict(await call.engine.version())
    document["ApiVersion"] = MAXIMUM_VERSION
    document["MinAPIVersion"] = MINIMUM_VERSION
    for component in document.get("Components") or ():
        if component.get("Name") == "Engine":
            component["Details"] = {
                **(component.get("Details") or {}),
                "ApiVersion": MAXIMUM_VERSION,
                "MinAPIVersion": MINIMUM_VERSION,
            }
    return reply_json(document)


async def info(call: Call) -> Answer:
    """GET /info."""
    document = dict(await call.engine.info())
    if call.version >= (1, 52):
        document.pop("KernelMemoryTCP", None)
    if call.version < (1, 50):
        document.setdefault("BridgeNfIptables", False)
        document.setdefault("BridgeNfIp6tables", False)
    else:
        document.pop("BridgeNfIptables", None)
        document.pop("BridgeNfIp6tables", None)
    if call.version < (1, 49):
        document.pop("FirewallBackend", None)
    return reply_json(document)


_JSON_SEQ, _NDJSON, _JSONL, _JSON = (
    "application/json-seq",
    "application/x-ndjson",
    "application/jsonl",
    "application/json",
)


async def events(call: Call) -> Answer:
    """GET /events: one JSON document per event, as they happen."""
    query = call.query
    since = query.seconds("since") if query.get("since") else None
    until = query.seconds("until") if query.get("until") else None
    if since is not None and until is not None and since > until:
        raise InvalidArgument(
            f"`since` time ({query.get('since')}) cannot be after `until` time ({query.get('until')})"
        )
    feed = call.engine.events.subscribe(since, until, query.filters())
    content_type = _events_type(call)
    prefix = b"\x1e" if content_type == _JSON_SEQ else b""
    stream = Stream(call.request).open(content_type)
    with cancelled_when_gone(call.request):
        async for event in feed:
            if call.sees is not None and not call.sees(event):
                continue
            await stream.write(prefix + dump_json(_shape_event(call, event)))
    return await stream.end()


def _events_type(call: Call) -> str:
    if call.version < (1, 52):
        return _JSON
    accepted = call.request.headers.get("Accept", "")
    known = (_JSON_SEQ, _NDJSON, _JSONL) if call.version >= (1, 53) else (_JSON_SEQ, _NDJSON)
    return next((kind for kind in known if kind in accepted), _JSON)


def _shape_event(call: Call, event: dict[str, Any]) -> dict[str, Any]:
    if call.version >= (1, 52) and "status" in event:
        return {name: value for name, value in event.items() if name not in ("status", "id", "from")}
    return event


_USAGE = (
    ("container", "Containers", "ContainerUsage"),
    ("image", "Images", "ImageUsage"),
    ("volume", "Volumes", "VolumeUsage"),
    ("build-cache", "BuildCache", "BuildCacheUsage"),
)


async def disk_usage(call: Call) -> Answer:
    """GET /system/df."""
    wanted = call.query.all("type")
    for kind in wanted:
        if kind not in [name for name, _, _ in _USAGE]:
            raise InvalidArgument(f"unknown object type: {kind}")
    document = dict(await call.engine.disk_usage())
    if wanted:
        for kind, field, _ in _USAGE:
            if kind not in wanted:
                document.pop(field, None)
        if "image" not in wanted:
            document.pop("LayersSize", None)
    return reply_json(document if call.version < (1, 52) else _usage_by_kind(call, document))


def _usage_by_kind(call: Call, document: dict[str, Any]) -> dict[str, Any]:
    """The form of API 1.52: totals per kind, items only when verbose; 1.52 itself carries the old form too."""
    verbose = call.query.flag("verbose")
    shaped: dict[str, Any] = dict(document) if call.version < (1, 53) and not verbose else {}
    for kind, field, name in _USAGE:
        if field not in document:
            continue
        items = document[field] or []
        shaped[name] = _totals(kind, items, document)
        if verbose:
            shaped[name]["Items"] = items
    return shaped


def _totals(kind: str, items: list[dict[str, Any]], document: dict[str, Any]) -> dict[str, Any]:
    if kind == "image":
        active = [item for item in items if item.get("Containers", 0) > 0]
        total = document.get("LayersSize", 0)
        used = sum(item.get("Size", 0) - max(item.get("SharedSize", 0), 0) for item in active)
        shared = max((item.get("SharedSize", 0) for item in active), default=0)
        reclaimable = max(total - used - max(shared, 0), 0)
    elif kind == "container":
        active = [item for item in items if item.get("State") in ("running", "paused", "restarting")]
        total = sum(item.get("SizeRw", 0) for item in items)
        reclaimable = total - sum(item.get("SizeRw", 0) for item in active)
    elif kind == "volume":
        usage = [item.get("UsageData") or {} for item in items]
        active = [item for item in items if (item.get("UsageData") or {}).get("RefCount", 0) > 0]
        total = sum(max(use.get("Size", 0), 0) for use in usage)
        reclaimable = sum(max(use.get("Size", 0), 0) for use in usage if use.get("RefCount", 0) == 0)
    else:
        active = [item for item in items if item.get("InUse")]
        total = sum(item.get("Size", 0) for item in items if not item.get("Shared"))
        reclaimable = sum(item.get("Size", 0) for item in items if not item.get("InUse") and not item.get("Shared"))
    return {"ActiveCount": len(active), "TotalCount": len(items), "Reclaimable": reclaimable, "TotalSize": total}


async def fsck(call: Call) -> Answer:
    """POST /wherry/system/fsck?mend=1&deep=0: state, disk and kernel against each other."""
    return reply_json(await call.engine.fsck(mend=call.query.flag("mend"), deep=call.query.flag("deep")))


async def auth(call: Call) -> Answer:
    """POST /auth: whether a registry takes these credentials."""
    given = await call.document(AuthConfig)
    auth = RegistryAuth(
        username=given.username,
        password=given.password,
        identity_token=given.identity_token,
        server=given.server_address,
    )
    with cancelled_when_gone(call.request):
        token = await call.engine.images.login(auth)
    return reply_json({"IdentityToken": token, "Status": "Login Succeeded"})


ROUTES = [
    Route("GET", "/_ping", ping),
    Route("HEAD", "/_ping", ping),
    Route("GET", "/version", version),
    Route("GET", "/info", info),
    Route("GET", "/events", events),
    Route("GET", "/system/df", disk_usage),
    Route("POST", "/auth", auth),
    Route("POST", "/wherry/system/fsck", fsck),
]
