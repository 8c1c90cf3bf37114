"""GET, HEAD and DELETE of blobs (distribution-spec "Pulling blobs", "Deleting Blobs")."""

import re

from aiohttp import web

from wherry.registry.blob_headers import BLOB_TYPE, blob_headers
from wherry.registry.errors import Refused
from wherry.registry.service import Call
from wherry.registry.store import blob_key, check_digest
from wherry.spec.digest import Digest

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


async def get(call: Call) -> web.StreamResponse:
    """GET and HEAD."""
    digest = check_digest(call.reference)
    try:
        entry = await call.service.repositories.blob(call.name, digest)
    except Refused:
        if call.service.proxy is None:
            raise
        call.service.metrics.add("proxy_misses_total")
        return await call.service.proxy.blob(call.request, call.name, digest)
    if call.service.proxy is not None:
        call.service.metrics.add("proxy_hits_total")
    headers = blob_headers(digest)
    if call.request.method == "GET":
        call.tell("pull", BLOB_TYPE, digest, entry.size)
    path = call.service.repositories.backend.path(blob_key(digest))
    if path is not None:
        # Ranges and conditions are dealt with there, and the bytes go from file to socket within the kernel.
        call.service.metrics.add("sent_bytes_total", entry.size if call.request.method == "GET" else 0)
        return web.FileResponse(path, headers=headers)
    return await _stream(call, digest, entry.size, headers)


async def _stream(call: Call, digest: Digest, size: int, headers: dict[str, str]) -> web.StreamResponse:
    start, end = _range(call.request.headers.get("Range", ""), size)
    response = web.StreamResponse(status=200 if end - start == size else 206, headers=headers)
    response.content_length = end - start
    if response.status == 206:
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    await response.prepare(call.request)
    if call.request.method == "GET":
        async for piece in call.service.repositories.backend.stream(blob_key(digest), start, end):
            await response.write(piece)
            call.service.metrics.add("sent_bytes_total", len(piece))
    await response.write_eof()
    return response


def _range(header: str, size: int) -> tuple[int, int]:
    """One range of bytes (RFC 9110 section 14.1.2); what is no such range is ignored, as that says."""
    match = _RANGE.fullmatch(header)
    if match is None or match[1] == match[2] == "":
        return 0, size
    if not match[1]:
        return max(0, size - int(match[2])), size
    start, end = int(match[1]), min(int(match[2]) + 1 if match[2] else size, size)
    if start >= size or end <= start:
        headers = {"Content-Range": f"bytes */{size}"}
        raise Refused("RANGE_INVALID", "the blob has no such range", headers=headers)
    return start, end


async def delete(call: Call) -> web.StreamResponse:
    """DELETE: from this repository; the bytes go with the next collection, when no other has them."""
    digest = check_digest(call.reference)
    await call.service.repositories.unlink(call.name, digest)
    call.tell("delete", BLOB_TYPE, digest, 0)
    return web.Response(status=202)
