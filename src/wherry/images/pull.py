"""Pulling: from a reference to an image that can be run, with docker's messages on the way.

Manifest (an index is followed to the platform that fits), configuration, then the layers: three at a time are
downloaded, and some unpacked beside one another, each while it still comes. A layer waits for those below only where
it must know them (a whiteout, a directory it does not list), and before it is published.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import NamedTuple

from wherry.content import ContentStore, Lease
from wherry.errors import Internal, InvalidArgument, NotFound, Unavailable, WherryError
from wherry.images.arrival import Arrival
from wherry.images.auth import RegistryAuth
from wherry.images.download import Downloader
from wherry.images.endpoints import RegistryConfig, find_endpoints
from wherry.images.image import Image, Layer
from wherry.images.layers import UNPACKED_AT_ONCE, Layers, Pins
from wherry.images.progress import Progress, Step, short_id
from wherry.images.records import Record, Records
from wherry.images.registry import Registry, translate
from wherry.spec.digest import Digest, chain_ids
from wherry.spec.oci_image import (
    CONFIG_TYPES,
    DOCUMENT_MAX,
    LAYER_TYPES,
    Descriptor,
    ImageConfig,
    Manifest,
    parse_config,
    parse_manifest,
)
from wherry.spec.platform import Platform, host_platform, preference
from wherry.spec.reference import Reference

_INDEX_DEPTH = 3
_LAYERS_MAX = 512


class Resolved(NamedTuple):
    """What a reference leads to: the manifest for one platform, its blob, and the digest asked for or led through."""

    manifest: Manifest
    digest: Digest
    top: Digest


class Fetched(NamedTuple):
    """What a registry has under a name: a manifest or an index."""

    data: bytes
    media_type: str
    digest: Digest


class Puller:
    """Pulls images. Runs on the daemon's loop; everything that takes time runs in threads."""

    def __init__(
        self,
        records: Records,
        layers: Layers,
        content: ContentStore,
        config: RegistryConfig,
        *,
        retry_seconds: float = 1.0,
    ) -> None:
        self._records = records
        self._layers = layers
        self._content = content
        self.config = config
        self._retry_seconds = retry_seconds
        # Two pulls of one layer share the work: the second waits and finds it done.
        self._turns: dict[Digest, tuple[asyncio.Lock, int]] = {}

    async def pull(
        self, reference: Reference, platform: Platform | None, auth: RegistryAuth | None, progress: Progress
    ) -> Image:
        """Pull one image; without tag and digest, every tag of the repository. Errors as docker words them."""
        try:
            async with self.connect(reference, auth) as registry:
                if reference.tag or reference.digest:
                    image, news = await self._pull_one(registry, reference, platform, progress)
                else:
                    image, news = await self._pull_all(registry, reference, platform, progress)
        except WherryError as error:
            raise translate(error, reference) from None
        outcome = "Downloaded newer image for" if news else "Image is up to date for"
        progress({"status": f"Status: {outcome} {reference.familiar}"})
        if platform is not None and preference(platform, image.platform) is None:
            found = f"image with reference {reference.familiar} was found but its platform ({image.platform})"
            progress({"status": f"WARNING: {found} does not match the specified platform ({platform.normalized()})"})
        return image

    async def _pull_all(
        self, registry: Registry, reference: Reference, platform: Platform | None, progress: Progress
    ) -> tuple[Image, bool]:
        done: Image | None = None
        news = False
        for tag in await registry.tags():
            done, newer = await self._pull_one(registry, reference.with_tag(tag), platform, progress)
            news = news or newer
        if done is None:
            raise NotFound(f"repository {reference.familiar_name} has no tags", object=reference.familiar)
        return done, news

    async def _pull_one(
        self, registry: Registry, reference: Reference, platform: Platform | None, progress: Progress
    ) -> tuple[Image, bool]:
        fetched = Fetched(*await registry.manifest(reference.digest or reference.tag or "latest"))
        shown = str(reference) if reference.digest else reference.tag
        progress({"status": f"Pulling from {reference.path}", "id": shown})
        if known := self._unchanged(reference, fetched, platform or host_platform()):
            progress({"status": f"Digest: {reference.digest or fetched.digest}"})
            return known, False
        stop = threading.Event()
        threads = self.config.downloads + UNPACKED_AT_ONCE + 2
        executor = ThreadPoolExecutor(threads, thread_name_prefix="pull")
        try:
            with self._content.leases.take("pull") as lease, self._layers.pins() as pins:
                downloader = Downloader(
                    registry, self._content, lease, executor, self._retry_seconds, self.config.attempts
                )
                job = _Job(self, registry, downloader, lease, pins, progress, stop)
                return await job.run(reference, fetched, platform)
        finally:
            stop.set()
            executor.shutdown(wait=False)

    def _unchanged(self, reference: Reference, fetched: "Fetched", wanted: Platform) -> Image | None:
        """The image a manifest stands for, when it is here whole and has this name: then there is nothing to write."""
        id = self._records.named(reference.with_digest(reference.digest or fetched.digest))
        image = self._records.get(id) if id is not None else None
        if image is None or (reference.tag and not reference.digest and self.current(reference) != id):
            return None
        found = parse_manifest(fetched.data, fetched.media_type)
        manifest = fetched.digest if isinstance(found, Manifest) else _choose(found.manifests, wanted).content
        blobs = (layer.blob.content for layer in image.sources)
        whole = self._layers.has(image.layers) and all(map(self._content.has, blobs))
        return image if whole and image.manifest == manifest else None

    @asynccontextmanager
    async def connect(self, reference: Reference, auth: RegistryAuth | None) -> AsyncIterator[Registry]:
        """The first endpoint that answers, with mirrors skipped that do not have the image."""
        failure: WherryError | None = None
        for endpoint in find_endpoints(reference.domain, self.config):
            if not endpoint.may("pull", *([] if reference.digest else ["resolve"])):
                continue
            registry = Registry(endpoint, reference.path, auth)
            try:
                try:
                    # Below a path of somebody's own there may be nothing but repositories.
                    if not endpoint.verbatim:
                        await registry.ping()
                    if endpoint.mirror and (reference.digest or reference.tag):
                        await registry.manifest(reference.digest or reference.tag or "")
                except WherryError as error:
                    if not endpoint.mirror and not isinstance(error, Unavailable):
                        raise
                    failure = error
                    continue
                yield registry
                return
            finally:
                await registry.close()
        raise failure or Internal(f"no endpoint for {reference.domain}")

    @asynccontextmanager
    async def turn(self, digest: Digest) -> AsyncIterator[None]:
        """One download of a blob at a time."""
        lock, users = self._turns.get(digest, (asyncio.Lock(), 0))
        self._turns[digest] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._turns[digest]
            if users == 1:
                del self._turns[digest]
            else:
                self._turns[digest] = (lock, users - 1)

    def record(self, resolved: Resolved, config: ImageConfig, blobs: list[Descriptor], reference: Reference) -> Image:
        """Write down what was pulled, under its tag and its digest."""
        manifest = resolved.manifest
        layers = tuple(Layer(*pair) for pair in zip(config.diff_ids, blobs, strict=True))
        chains = chain_ids(config.diff_ids)
        record = Record(
            id=manifest.config.content,
            config=config,
            layers=layers,
            size=sum(self._layers.sizes(chains)),
            manifest=resolved.digest,
            index=resolved.top if resolved.top != resolved.digest and self._content.has(resolved.top) else None,
        )
        names = [reference.with_digest(resolved.top)]
        if reference.tag and not reference.digest and self.current(reference) != record.id:
            names.append(reference)
        return self._records.put(record, names, self._layers.adopted(chains))

    def current(self, reference: Reference) -> Digest | None:
        return self._records.named(reference)

    def known_blob(self, layer: Descriptor, diff_id: str) -> Descriptor | None:
        """A blob that is here already and unpacks to this layer."""
        if self._content.has(layer.content):
            return layer
        known = self._records.source(diff_id)
        return known if known and self._content.has(known.content) else None

    def knows(self, image: Digest) -> bool:
        return self._records.get(image) is not None

    def arrival(self, blob: Digest) -> Arrival:
        return Arrival(self._content, blob)

    async def read(self, downloader: Downloader, blob: Descriptor) -> bytes:
        if blob.size > DOCUMENT_MAX:
            raise InvalidArgument(f"{blob.digest} is too large for an image document", object=blob.digest)
        async with self.turn(blob.content):
            await downloader.fetch(blob)
        return self._content.read(blob.content, DOCUMENT_MAX)

    def add(self, data: bytes, lease: Lease) -> Digest:
        return self._content.add(data, lease).digest


class _Job(NamedTuple):
    """One image being pulled."""

    puller: Puller
    registry: Registry
    downloader: Downloader
    lease: Lease
    pins: Pins
    progress: Progress
    stop: threading.Event

    async def run(self, reference: Reference, fetched: Fetched, platform: Platform | None) -> tuple[Image, bool]:
        """The image, and whether it is new under this reference."""
        # A reference by sha512 keeps its own digest; everything else is known by sha256.
        top = reference.digest or fetched.digest
        resolved = await self._resolve(fetched.data, fetched.media_type, top, platform or host_platform())
        config = parse_config(await self.puller.read(self.downloader, resolved.manifest.config))
        _check(resolved.manifest, config)
        before = self.puller.current(reference)
        blobs = await self._layers(resolved.manifest, config)
        self.progress({"status": f"Digest: {resolved.top}"})
        image = await self.downloader.in_thread(lambda: self.puller.record(resolved, config, blobs, reference))
        return image, before != image.id

    async def _resolve(self, data: bytes, media_type: str, top: Digest, wanted: Platform) -> Resolved:
        for _ in range(_INDEX_DEPTH):
            found = parse_manifest(data, media_type)
            kept = self.puller.add(data, self.lease)
            if isinstance(found, Manifest):
                return Resolved(found, kept, top)
            entry = _choose(found.manifests, wanted)
            if entry.size > DOCUMENT_MAX:
                raise InvalidArgument(f"manifest {entry.digest} is larger than {DOCUMENT_MAX >> 20} MiB")
            data, media_type, _ = await self.registry.manifest(entry.digest)
            if len(data) != entry.size:
                raise InvalidArgument(f"manifest {entry.digest} has {len(data)} bytes, not {entry.size}")
        raise InvalidArgument(f"{top} is an index of indexes nested too deep", object=top)

    async def _layers(self, manifest: Manifest, config: ImageConfig) -> list[Descriptor]:
        """Have every layer downloaded and unpacked; the blobs that stand for them."""
        steps = [Step(self.progress, short_id(layer.digest)) for layer in manifest.layers]
        blobs: list[Descriptor] = list(manifest.layers)
        wanted: dict[int, bool] = {}
        for number, (layer, diff_id, chain) in enumerate(
            zip(manifest.layers, config.diff_ids, chain_ids(config.diff_ids), strict=True)
        ):
            there = self.pins.pin(chain)
            known = self.puller.known_blob(layer, diff_id)
            if there and known:
                blobs[number] = known
                self.lease.add(known.content)
            else:
                wanted[number] = there
        if not wanted and self.puller.knows(manifest.config.content):
            return blobs
        for number, step in enumerate(steps):
            step.state("Pulling fs layer" if number in wanted else "Already exists")
        parallel = self.puller.config.downloads
        for step in [steps[number] for number in wanted][parallel:]:
            step.state("Waiting")
        limits = _Limits(asyncio.Semaphore(parallel), asyncio.Semaphore(UNPACKED_AT_ONCE))
        work = [_LayerWork(self, number, manifest.layers[number], config, steps[number], limits) for number in wanted]
        for below, above in zip([None, *work], work, strict=False):
            above.below = below
        tasks = [asyncio.create_task(step()) for each in work for step in (each.download, each.unpack)]
        try:
            await asyncio.gather(*tasks)
        finally:
            self.stop.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for each in work:
                each.arrival.close()
        return blobs


class _Limits(NamedTuple):
    """How many layers are downloaded and unpacked at once."""

    downloads: asyncio.Semaphore
    unpacks: asyncio.Semaphore


class _LayerWork:
    """One layer, unpacked while it is still being downloaded, beside the others.

    A layer begins to be unpacked only after the one below has begun: whoever waits for that waits for one that is
    being made.
    """

    def __init__(
        self, job: _Job, number: int, layer: Descriptor, config: ImageConfig, step: Step, limits: _Limits
    ) -> None:
        self._job, self._number, self._layer, self._step = job, number, layer, step
        self._diff_ids = config.diff_ids
        self._limits = limits
        self.arrival = job.puller.arrival(layer.content)
        self.below: _LayerWork | None = None
        self._downloaded = asyncio.Event()
        self._begun = asyncio.Event()
        self._made: Future[None] = Future()

    async def download(self) -> None:
        layer = self._layer
        try:
            async with self._job.puller.turn(layer.content), self._limits.downloads:
                await self._job.downloader.fetch(layer, self._step, self.arrival)
        except BaseException as error:
            self.arrival.end(error)
            raise
        self._step.state("Download complete")
        self._downloaded.set()
        self.arrival.end()

    async def unpack(self) -> None:
        try:
            if self.below is not None:
                await self.below._begun.wait()
            async with self._limits.unpacks:
                self._begun.set()
                await self._job.downloader.in_thread(self._unpack, self._job.stop.set)
        except BaseException as error:
            # Not this very exception: it is raised in another thread.
            self._made.set_exception(Internal(f"the layer below was not made: {error}"))
            raise
        self._made.set_result(None)
        await self._downloaded.wait()
        self._step.advance("Extracting", self._layer.size, self._layer.size)
        self._step.state("Pull complete")

    def _unpack(self) -> None:
        chains = chain_ids(self._diff_ids)
        self._job.pins.unpack(
            chains[self._number - 1] if self._number else None,
            self._diff_ids[self._number],
            self._layer.content,
            self._report,
            source=self.arrival.open,
            ready=self.below._made.result if self.below is not None else None,
        )

    def _report(self, done: int) -> None:
        if self._job.stop.is_set():
            raise Internal("the pull was cancelled")
        # As docker has it: first the download's figures, then these.
        if self._downloaded.is_set():
            self._step.advance("Extracting", done, self._layer.size)


def _choose(entries: tuple[Descriptor, ...], wanted: Platform) -> Descriptor:
    """The entry that serves the platform best; among equals the first, as other engines do."""
    ranked = [(preference(wanted, entry.platform), entry) for entry in entries if entry.platform]
    fitting = [(rank, number) for number, (rank, _) in enumerate(ranked) if rank is not None]
    if fitting:
        return ranked[min(fitting)[1]][1]
    plain = [entry for entry in entries if entry.platform is None]
    if plain:
        return plain[0]
    raise NotFound(f"no matching manifest for {wanted.normalized()} in the manifest list entries", object=str(wanted))


def _check(manifest: Manifest, config: ImageConfig) -> None:
    if manifest.config.media_type not in CONFIG_TYPES:
        raise InvalidArgument(f"this is no container image: its configuration is {manifest.config.media_type}")
    if len(manifest.layers) != len(config.diff_ids):
        raise InvalidArgument(
            f"the manifest has {len(manifest.layers)} layers, the image configuration {len(config.diff_ids)}"
        )
    if len(manifest.layers) > _LAYERS_MAX:
        raise InvalidArgument(f"the image has more than {_LAYERS_MAX} layers")
    if config.os and config.os != "linux":
        raise InvalidArgument(f'image operating system "{config.os}" cannot be used on this platform')
    for layer in manifest.layers:
        if layer.media_type not in LAYER_TYPES:
            raise InvalidArgument(f"layer {layer.digest} has unsupported media type {layer.media_type}")
