"""Files of a container as tar archives: docker cp and docker export."""

import base64
import json
from typing import Any

from wherry.api.bodies import send_pipe, upload
from wherry.api.call import Call
from wherry.api.connection import cancelled_when_gone
from wherry.api.reply import Answer, Reply, Stream
from wherry.api.router import Route
from wherry.errors import InvalidArgument

_TAR = "application/x-tar"


def _path(call: Call) -> str:
    path = call.query.get("path")
    if not path:
        raise InvalidArgument("bad parameter: path cannot be empty", object="path")
    return path


def _stat_header(stat: Any) -> dict[str, str]:
    document = {
        "name": stat.name,
        "size": stat.size,
        "mode": stat.mode,
        "mtime": stat.mtime,
        "linkTarget": stat.link_target,
    }
    return {"X-Docker-Container-Path-Stat": base64.b64encode(json.dumps(document).encode()).decode()}


async def head(call: Call) -> Answer:
    """HEAD /containers/{id}/archive."""
    stat = await call.engine.containers.archive_stat(call.name, _path(call))
    return Reply(200, headers=_stat_header(stat))


async def get(call: Call) -> Answer:
    """GET /containers/{id}/archive."""
    stat, pipe = await call.engine.containers.archive_get(call.name, _path(call))
    return await _send_tar(call, pipe, _TAR, _stat_header(stat))


async def export(call: Call) -> Answer:
    """GET /containers/{id}/export."""
    pipe = await call.engine.containers.export(call.name)
    return await _send_tar(call, pipe, "application/octet-stream", {})


async def _send_tar(call: Call, pipe: int, content_type: str, headers: dict[str, str]) -> Answer:
    stream = Stream(call.request).open(content_type, headers=headers)
    with cancelled_when_gone(call.request):
        await send_pipe(stream, pipe)
    return await stream.end()


async def put(call: Call) -> Answer:
    """PUT /containers/{id}/archive."""
    path = _path(call)
    # Before the body is asked for: a client that waits for "100 Continue" need not send it in vain.
    call.engine.containers.resolve(call.name)
    async with upload(call) as tar:
        await call.engine.containers.archive_put(
            call.name,
            path,
            tar,
            no_overwrite_dir_non_dir=call.query.flag("noOverwriteDirNonDir"),
            copy_uid_gid=call.query.flag("copyUIDGID"),
        )
    return Reply(200)


ROUTES = [
    Route("HEAD", "/containers/{id}/archive", head),
    Route("GET", "/containers/{id}/archive", get),
    Route("PUT", "/containers/{id}/archive", put),
    Route("GET", "/containers/{id}/export", export),
]
