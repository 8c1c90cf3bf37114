"""One blob to a registry: not at all when it is there, mounted from a repository that has it, or sent; resumed where it
broke off."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import BinaryIO

import aiohttp

from wherry.content import ContentStore
from wherry.errors import Unavailable
from wherry.images.progress import Step
from wherry.images.publisher import Publisher
from wherry.spec.oci_image import Descriptor

_PART = 1 << 20


class Uploader:
    """Uploads blobs to one repository. `retry_seconds` doubles with each attempt."""

    def __init__(
        self, registry: Publisher, content: ContentStore, *, retry_seconds: float = 1.0, attempts: int = 5
    ) -> None:
        self._registry = registry
        self._content = content
        self._retry_seconds = retry_seconds
        self._attempts = attempts

    async def put(self, blob: Descriptor, sources: Sequence[str] = (), step: Step | None = None) -> str:
        """Have the blob in the registry. How: "" when it was there, "mounted from" a repository's name, "sent"."""
        if await self._registry.has_blob(blob.content):
            return ""
        for source in sources:
            location = await self._registry.begin_upload(mount=(blob.content, source))
            if location is None:
                return f"mounted from {source}"
            await self._registry.cancel_upload(location)
        await self._send(blob, step)
        return "sent"

    async def _send(self, blob: Descriptor, step: Step | None) -> None:
        location: str | None = None
        for attempt in range(self._attempts):
            try:
                begun = 0
                if location is not None:
                    location, begun = await self._registry.upload_status(location)
                location = location or await self._registry.begin_upload()
                if location is None:
                    raise Unavailable("the registry began no upload", object=blob.digest)
                body = _Body(self._content, blob, begun, step)
                location = await self._registry.send_part(location, begun, blob.size, body.pieces)
                await self._registry.finish_upload(location, blob.content)
                return
            except (Unavailable, aiohttp.ClientError, TimeoutError) as error:
                if attempt == self._attempts - 1:
                    if isinstance(error, Unavailable):
                        raise
                    raise Unavailable(f"upload of {blob.digest} failed: {error}", object=blob.digest) from None
                delay = self._retry_seconds * 2**attempt
                if step and delay >= 1:
                    step.state(f"Retrying in {delay:.0f} second{'s' if delay >= 2 else ''}")
                await asyncio.sleep(delay)


class _Body:
    """A blob from an offset on, in pieces, as often as it has to be sent."""

    def __init__(self, content: ContentStore, blob: Descriptor, start: int, step: Step | None) -> None:
        self._content, self._blob, self._start, self._step = content, blob, start, step

    async def pieces(self) -> AsyncIterator[bytes]:
        file: BinaryIO = await asyncio.to_thread(self._content.open, self._blob.content)
        sent = self._start
        with file:
            file.seek(sent)
            while piece := await asyncio.to_thread(file.read, _PART):
                yield piece
                sent += len(piece)
                if self._step:
                    self._step.advance("Pushing", sent, self._blob.size)
