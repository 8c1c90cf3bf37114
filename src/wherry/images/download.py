"""One blob from a registry into the content store: verified, resumed where it stopped, tried again when it breaks."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import NamedTuple, TypeVar

import aiohttp

from wherry.content import ContentStore, Ingest, Lease
from wherry.errors import InvalidArgument, Unavailable
from wherry.images.arrival import Arrival
from wherry.images.progress import Step
from wherry.images.registry import Registry
from wherry.spec.oci_image import Descriptor

T = TypeVar("T")
_PART = 1 << 20


class Downloader:
    """Downloads blobs of one repository. `retry_seconds` doubles with each attempt."""

    def __init__(
        self,
        registry: Registry,
        content: ContentStore,
        lease: Lease,
        executor: Executor,
        retry_seconds: float = 1.0,
        attempts: int = 5,
    ) -> None:
        self._registry = registry
        self._content = content
        self._lease = lease
        self._executor = executor
        self._retry_seconds = retry_seconds
        self._attempts = attempts

    async def fetch(self, blob: Descriptor, step: Step | None = None, arrival: Arrival | None = None) -> None:
        """Have the blob in the content store, whatever it takes; nothing happens when it is there.

        `arrival` is told what comes, but not of the end.
        """
        self._lease.add(blob.content)
        if self._content.has(blob.content):
            return
        algorithm = blob.digest.partition(":")[0]
        # Kept in a list and not returned: a cancelled await would lose the one the thread has opened.
        opened: list[Ingest] = []

        def open_ingest() -> None:
            opened.append(self._content.ingest(f"blob {blob.digest}", self._lease, algorithm=algorithm))

        try:
            await self.in_thread(open_ingest)
            if arrival:
                arrival.begin(opened[0])
            await self._fill(opened[0], blob, _Watchers(step, arrival))
            if step:
                step.state("Verifying Checksum")
            await self.in_thread(lambda: opened[0].commit(blob.content, blob.size))
        finally:
            for ingest in opened:
                ingest.close()

    async def in_thread(self, work: Callable[[], T], on_cancel: Callable[[], None] = lambda: None) -> T:
        """Run blocking work; when cancelled, say so and wait for its end: nothing may be used after it is closed."""
        running = asyncio.get_running_loop().run_in_executor(self._executor, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            on_cancel()
            await asyncio.wait([running])
            raise

    async def _fill(self, ingest: Ingest, blob: Descriptor, told: "_Watchers") -> None:
        for attempt in range(self._attempts):
            try:
                await self._receive(ingest, blob, told)
                if ingest.offset >= blob.size:
                    return
                raise Unavailable(f"the registry closed the connection before the end of {blob.digest}")
            except (Unavailable, aiohttp.ClientError, TimeoutError) as error:
                if attempt == self._attempts - 1:
                    if isinstance(error, Unavailable):
                        raise
                    raise Unavailable(f"download of {blob.digest} failed: {error}", object=blob.digest) from None
                delay = self._retry_seconds * 2**attempt
                if told.step and delay >= 1:
                    told.step.state(f"Retrying in {delay:.0f} second{'s' if delay >= 2 else ''}")
                await asyncio.sleep(delay)

    async def _receive(self, ingest: Ingest, blob: Descriptor, told: "_Watchers") -> None:
        if ingest.offset > blob.size:
            await self.in_thread(ingest.restart)
        if ingest.offset == blob.size and blob.size:
            return
        async with self._registry.blob(blob.content, ingest.offset) as (response, begins):
            if begins != ingest.offset:
                await self.in_thread(ingest.restart)
            parts: list[bytes] = []
            waiting = 0
            try:
                async for part in response.content.iter_any():
                    parts.append(part)
                    waiting += len(part)
                    if ingest.offset + waiting > blob.size:
                        raise InvalidArgument(f"{blob.digest} is longer than the {blob.size} bytes it should have")
                    if waiting >= _PART:
                        await self._write(ingest, parts, blob, told)
                        waiting = 0
            except (aiohttp.ClientError, TimeoutError):
                await self._write(ingest, parts, blob, told)
                raise
            await self._write(ingest, parts, blob, told)

    async def _write(self, ingest: Ingest, parts: list[bytes], blob: Descriptor, told: "_Watchers") -> None:
        data = b"".join(parts)
        parts.clear()
        await self.in_thread(lambda: ingest.write(data))
        if told.arrival:
            told.arrival.advance()
        if told.step:
            told.step.advance("Downloading", ingest.offset, blob.size)


class _Watchers(NamedTuple):
    step: Step | None
    arrival: Arrival | None
