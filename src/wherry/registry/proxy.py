"""A pull-through cache: what is not here is fetched from another registry, kept, and served from here the next time.

A tag is asked for upstream again when it was not within `fresh` seconds; while upstream does not answer, what is here
is served. A blob streams through to the first client while it is kept; others who want it meanwhile wait for it.
"""

import asyncio
import hashlib
import logging
import uuid
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

from wherry.errors import WherryError
from wherry.images.auth import RegistryAuth
from wherry.images.endpoint import Endpoint
from wherry.images.registry import Registry, RegistryRefusal
from wherry.registry.backend import Upload
from wherry.registry.blob_headers import blob_headers
from wherry.registry.errors import Refused
from wherry.registry.manifest import parse_manifest
from wherry.registry.store import Repositories, blob_key, is_tag, manifest_link
from wherry.spec.digest import Digest

log = logging.getLogger(__name__)
_WAITING = 16


class Proxy:
    """The cache of one upstream registry."""

    def __init__(
        self, repositories: Repositories, address: str, auth: RegistryAuth | None = None, *, fresh: float = 60.0
    ) -> None:
        self._repositories = repositories
        self._endpoint = Endpoint(address.rstrip("/"), True)
        self._auth = auth
        self._fresh = fresh
        self._fetching: dict[str, asyncio.Task[None]] = {}
        self._asked: dict[tuple[str, str], float] = {}

    async def refresh(self, name: str, reference: str) -> None:
        """Have the manifest here, as new as it must be. Refused when it is nowhere."""
        loop = asyncio.get_running_loop()
        here = await self._is_here(name, reference)
        asked = self._asked.get((name, reference), float("-inf"))
        if here and (not is_tag(reference) or loop.time() - asked < self._fresh):
            return
        upstream = Registry(self._endpoint, name, self._auth)
        try:
            data, media_type, _ = await upstream.manifest(reference)
        except WherryError as error:
            if here and not isinstance(error, RegistryRefusal):
                log.warning("%s:%s is served as it is here: %s", name, reference, error)
                return
            raise _refused(error, "MANIFEST_UNKNOWN") from None
        finally:
            await upstream.close()
        manifest = parse_manifest(data, media_type, Digest(reference) if not is_tag(reference) else None)
        tags = [reference] if is_tag(reference) else []
        await self._repositories.put_manifest(name, manifest, tags, complete=False)
        self._asked[name, reference] = loop.time()

    async def blob(self, request: web.Request, name: str, digest: Digest) -> web.StreamResponse:
        """Answer with a blob that is not here, and keep it."""
        running = self._fetching.get(digest)
        if running is not None:
            await asyncio.shield(running)
            return await self._serve(request, name, digest)
        upstream = Registry(self._endpoint, name, self._auth)
        opened = upstream.blob(digest)
        try:
            source, _ = await opened.__aenter__()
        except WherryError as error:
            await upstream.close()
            raise _refused(error, "BLOB_UNKNOWN") from None
        headers = blob_headers(digest)
        response = web.StreamResponse(headers=headers)
        if source.content_length is not None:
            response.content_length = source.content_length
        if request.method == "HEAD":
            await opened.__aexit__(None, None, None)
            await upstream.close()
            await response.prepare(request)
            return response
        pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING)
        fetch = _Fetch(self._repositories, name, digest, source, pieces)

        async def run() -> None:
            try:
                await fetch.run()
            finally:
                self._fetching.pop(digest, None)
                await opened.__aexit__(None, None, None)
                await upstream.close()

        self._fetching[digest] = asyncio.create_task(run(), name=f"fetching {digest}")
        await response.prepare(request)
        try:
            async for piece in fetch.pieces():
                await response.write(piece)
        finally:
            # The client may go; what it began is finished, for the next one.
            fetch.detach()
        await response.write_eof()
        return response

    async def close(self) -> None:
        """Give up what is being fetched."""
        for task in list(self._fetching.values()):
            task.cancel()
        await asyncio.gather(*self._fetching.values(), return_exceptions=True)

    async def _is_here(self, name: str, reference: str) -> bool:
        try:
            digest = await self._repositories.resolve(name, reference)
        except Refused:
            return False
        # Touched: what is used is not what a collection may expire.
        return await self._repositories.backend.touch(manifest_link(name, digest))

    async def _serve(self, request: web.Request, name: str, digest: Digest) -> web.StreamResponse:
        entry = await self._repositories.blob(name, digest)
        path = self._repositories.backend.path(blob_key(digest))
        if path is not None:
            return web.FileResponse(path, headers=blob_headers(digest))
        response = web.StreamResponse(headers=blob_headers(digest))
        response.content_length = entry.size
        await response.prepare(request)
        async for piece in self._repositories.backend.stream(blob_key(digest), 0, entry.size):
            await response.write(piece)
        return response


class _Fetch:
    """One blob on its way here, and through to one client as long as that one listens."""

    def __init__(
        self,
        repositories: Repositories,
        name: str,
        digest: Digest,
        source: aiohttp.ClientResponse,
        queue: "asyncio.Queue[bytes | None]",
    ) -> None:
        self._repositories, self._name, self._digest = repositories, name, digest
        self._source, self._queue = source, queue
        self._listening = True
        self._failed = False

    async def run(self) -> None:
        upload = await self._repositories.backend.begin(str(uuid.uuid4()))
        try:
            await self._receive(upload)
            await upload.commit(blob_key(self._digest))
            await self._repositories.link(self._name, self._digest)
        except BaseException:
            self._failed = True
            await upload.discard()
            raise
        finally:
            await upload.close()
            await self._give(None)

    async def _receive(self, upload: Upload) -> None:
        algorithm, _, encoded = self._digest.partition(":")
        hasher = hashlib.new(algorithm)
        async for piece in self._source.content.iter_chunked(1 << 20):
            await asyncio.gather(upload.write(piece), asyncio.to_thread(hasher.update, piece))
            await self._give(piece)
        if hasher.hexdigest() != encoded:
            raise Refused("DIGEST_INVALID", f"upstream sent something else than {self._digest}", status=502)

    async def pieces(self) -> AsyncIterator[bytes]:
        while (piece := await self._queue.get()) is not None:
            yield piece
        if self._failed:
            # Too late for a status: a connection that breaks off is what tells the client.
            raise ConnectionResetError("the upstream registry failed")

    def detach(self) -> None:
        """Nobody listens any more."""
        self._listening = False
        while not self._queue.empty():
            self._queue.get_nowait()

    async def _give(self, piece: bytes | None) -> None:
        if self._listening:
            await self._queue.put(piece)


def _refused(error: WherryError, code: str) -> Refused:
    if isinstance(error, RegistryRefusal):
        return Refused(code, error.message, status=404 if error.status in (401, 403, 404) else 502)
    return Refused("UNAVAILABLE", f"the upstream registry does not answer: {error}", status=502)
