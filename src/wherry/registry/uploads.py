"""Uploads (distribution-spec "Pushing blobs"): at once, in chunks, resumed, or mounted from another repository."""

import asyncio
import hashlib
import re
import uuid
from collections import OrderedDict
from typing import Any

import aiohttp
from aiohttp import web

from wherry.registry.backend import Busy, Missing, Upload
from wherry.registry.errors import Refused
from wherry.registry.service import Call
from wherry.registry.store import blob_key, check_digest, check_name
from wherry.spec.digest import Digest

_TYPE = "application/octet-stream"
_RANGE = re.compile(r"(\d+)-(\d+)")
_PIECE = 1 << 20
_REMEMBERED = 256


class _Hashes:
    """Digests of uploads as far as this process has seen them from their beginning: `hashlib` cannot be put down and
    taken up by another. Who finds none here reads the upload again."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[int, Any]] = OrderedDict()

    def take(self, id: str, size: int, algorithm: str) -> Any | None:
        """The digest of the first `size` bytes, if it is known."""
        known = self._known.pop(id, None)
        if known is not None and known[0] == size and known[1].name == algorithm:
            return known[1]
        return hashlib.new(algorithm) if size == 0 else None

    def keep(self, id: str, size: int, hasher: Any) -> None:
        self._known[id] = (size, hasher)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


_hashes = _Hashes()


async def begin(call: Call) -> web.StreamResponse:
    """POST: mount, or begin; with `digest`, the whole blob is in this request."""
    query = call.request.query
    algorithm = query.get("digest-algorithm", "sha256")
    if algorithm not in ("sha256", "sha512"):
        raise Refused("DIGEST_INVALID", f"digest algorithm {algorithm[:50]!r} is not supported")
    if (mount := query.get("mount")) and await _mount(call, check_digest(mount), query.get("from", "")):
        return _created(call, Digest(mount))
    wanted = check_digest(query["digest"]) if "digest" in query else None
    id = str(uuid.uuid4())
    backend = call.service.repositories.backend
    upload = await backend.begin(id)
    try:
        await backend.write(f"_uploads/{id}/repository", call.name.encode())
        if wanted is not None:
            return await _finish(call, id, upload, wanted)
        return _accepted(call, id, upload.size)
    except BaseException:
        await upload.discard()
        raise
    finally:
        await upload.close()


async def status(call: Call) -> web.StreamResponse:
    """GET: how far an upload is."""
    upload = await _resume(call)
    try:
        return _accepted(call, call.reference, upload.size, status=204)
    finally:
        await upload.close()


async def append(call: Call) -> web.StreamResponse:
    """PATCH: the next chunk."""
    upload = await _resume(call)
    try:
        await _receive(call, call.reference, upload, "sha256")
        return _accepted(call, call.reference, upload.size)
    finally:
        await upload.close()


async def finish(call: Call) -> web.StreamResponse:
    """PUT: the last chunk, if any, and the digest of all."""
    if "digest" not in call.request.query:
        raise Refused("DIGEST_INVALID", "the request lacks the digest of the blob", detail="digest")
    digest = check_digest(call.request.query["digest"])
    upload = await _resume(call)
    try:
        return await _finish(call, call.reference, upload, digest)
    finally:
        await upload.close()


async def cancel(call: Call) -> web.StreamResponse:
    """DELETE: forget it."""
    upload = await _resume(call)
    await upload.discard()
    return web.Response(status=204)


async def _mount(call: Call, digest: Digest, source: str) -> bool:
    """Without `from`, from wherever it is, as long as that may be read: it may not be known."""
    repositories = call.service.repositories
    if not source or check_name(source) == call.name:
        return False
    if "pull" not in call.service.access.actions(call.identity, source):
        return False
    try:
        entry = await repositories.blob(source, digest)
    except Refused:
        return False
    await call.service.quotas.require(repositories, call.name, entry.size)
    if not await repositories.link(call.name, digest):
        return False
    call.service.quotas.add(call.name, entry.size)
    call.tell("mount", _TYPE, digest, entry.size)
    return True


async def _resume(call: Call) -> Upload:
    id = call.reference
    unknown = Refused("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry", detail={"id": id[:100]})
    try:
        if str(uuid.UUID(id)) != id:
            raise unknown
        owner = (await call.service.repositories.backend.read(f"_uploads/{id}/repository")).decode()
        # Another repository's upload is nobody's business here, whatever its id.
        if owner != call.name:
            raise unknown
        return await call.service.repositories.backend.resume(id)
    except (Missing, ValueError):
        raise unknown from None
    except Busy:
        raise Refused("BLOB_UPLOAD_INVALID", "another request writes to this upload", status=409) from None


async def _receive(call: Call, id: str, upload: Upload, algorithm: str) -> Any | None:
    """Take the body in; the digest of everything so far, if it is known."""
    _check_range(call, upload.size)
    await call.service.quotas.require(
        call.service.repositories, call.name, upload.size + (call.request.content_length or 0)
    )
    hasher = _hashes.take(id, upload.size, algorithm)
    expected, begun = call.request.content_length, upload.size
    pending = bytearray()
    try:
        async for data in call.request.content.iter_any():
            pending += data
            if len(pending) >= _PIECE:
                await _store(upload, hasher, bytes(pending))
                pending.clear()
    except (aiohttp.ClientError, ConnectionError, asyncio.IncompleteReadError) as error:
        raise Refused("SIZE_INVALID", f"the body ended early: {error}") from None
    finally:
        # Kept even when the client is gone: it may come back for the rest.
        await _store(upload, hasher, bytes(pending))
        if hasher is not None:
            _hashes.keep(id, upload.size, hasher)
        call.service.metrics.add("received_bytes_total", upload.size - begun)
    if expected is not None and upload.size - begun != expected:
        raise Refused("SIZE_INVALID", "provided length did not match content length")
    return hasher


async def _store(upload: Upload, hasher: Any | None, data: bytes) -> None:
    if not data:
        return
    if hasher is None:
        await upload.write(data)
    else:
        await asyncio.gather(upload.write(data), asyncio.to_thread(hasher.update, data))


def _check_range(call: Call, size: int) -> None:
    """The chunk must begin where the upload ends."""
    header = call.request.headers.get("Content-Range")
    if header is None:
        return
    match = _RANGE.fullmatch(header.removeprefix("bytes ").partition("/")[0])
    length = call.request.content_length
    if match is None or (length is not None and int(match[2]) - int(match[1]) + 1 != length):
        raise Refused("BLOB_UPLOAD_INVALID", f"Content-Range {header[:100]!r} does not fit the body", status=416)
    if int(match[1]) != size:
        raise Refused(
            "RANGE_INVALID",
            f"the chunk begins at {match[1]}, the upload ends at {size}",
            headers={"Location": call.url("blobs/uploads", call.reference), "Range": _range(size)},
        )


async def _finish(call: Call, id: str, upload: Upload, digest: Digest) -> web.StreamResponse:
    algorithm = digest.partition(":")[0]
    hasher = await _receive(call, id, upload, algorithm)
    if hasher is None:
        hasher = hashlib.new(algorithm)
        async for piece in upload.chunks():
            await asyncio.to_thread(hasher.update, piece)
    if hasher.hexdigest() != digest.partition(":")[2]:
        await upload.discard()
        raise Refused("DIGEST_INVALID", "provided digest did not match uploaded content", detail={"digest": digest})
    size = upload.size
    repositories = call.service.repositories
    if await repositories.link(call.name, digest):
        await upload.discard()
    else:
        await upload.commit(blob_key(digest))
        if not await repositories.link(call.name, digest):
            raise Refused("UNAVAILABLE", "the blob went as it came; send it again")
    call.service.quotas.add(call.name, size)
    call.tell("push", _TYPE, digest, size)
    return _created(call, digest)


def _created(call: Call, digest: Digest) -> web.Response:
    headers = {"Location": call.url("blobs", digest), "Docker-Content-Digest": digest}
    return web.Response(status=201, headers=headers)


def _accepted(call: Call, id: str, size: int, status: int = 202) -> web.Response:
    headers = {"Location": call.url("blobs/uploads", id), "Range": _range(size), "Docker-Upload-UUID": id}
    return web.Response(status=status, headers=headers)


def _range(size: int) -> str:
    return f"0-{max(0, size - 1)}"
