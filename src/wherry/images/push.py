"""Pushing: an image's layers, configuration and manifest to a registry, only what is missing there, with docker's
messages on the way."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from wherry.content import ContentStore, Lease
from wherry.errors import Internal, NotFound, Unavailable, WherryError
from wherry.images.auth import RegistryAuth
from wherry.images.endpoints import RegistryConfig, find_endpoints
from wherry.images.image import Image, Layer
from wherry.images.packing import Packer
from wherry.images.progress import Progress, Step, short_id
from wherry.images.publisher import Publisher
from wherry.images.records import Records
from wherry.images.registry import translate_push
from wherry.images.upload import Uploader
from wherry.spec.digest import Digest
from wherry.spec.oci_image import (
    DOCUMENT_MAX,
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    parse_manifest,
    write_manifest,
)
from wherry.spec.reference import Reference

_SOURCES_MAX = 3


class Pusher:
    """Pushes images. Runs on the daemon's loop; what takes time runs in threads."""

    def __init__(
        self,
        records: Records,
        content: ContentStore,
        packer: Packer,
        config: RegistryConfig,
        *,
        retry_seconds: float = 1.0,
    ) -> None:
        self._records, self._content, self._packer = records, content, packer
        self._config = config
        self._retry_seconds = retry_seconds

    async def push(self, reference: Reference, auth: RegistryAuth | None, progress: Progress) -> list[Image]:
        """One tag, or without one every tag of the repository; errors as docker words them."""
        progress({"status": f"The push refers to repository [{reference.name}]"})
        wanted = self._select(reference)
        try:
            async with self._connect(reference, auth, self._mounts(wanted, reference)) as registry:
                for image, tag in wanted:
                    await self._push_one(registry, image, tag, progress)
        except WherryError as error:
            raise translate_push(error, reference) from None
        return [image for image, _ in wanted]

    def _select(self, reference: Reference) -> list[tuple[Image, Reference]]:
        if reference.tag or reference.digest:
            id = self._records.named(reference)
            image = self._records.get(id) if id is not None else None
            if image is None:
                raise _absent(reference)
            return [(image, reference)]
        found = [
            (image, name)
            for image in self._records.all()
            for name in image.names
            if name.tag and name.name == reference.name
        ]
        if not found:
            raise _absent(reference)
        return found

    async def _push_one(self, registry: Publisher, image: Image, reference: Reference, progress: Progress) -> None:
        with self._content.leases.take("push") as lease:
            steps = [Step(progress, short_id(layer.diff_id)) for layer in image.sources]
            for step in steps:
                step.state("Preparing")
            image = await asyncio.to_thread(self._packer.pack, image, lease)
            data, manifest = await asyncio.to_thread(self._manifest, image, lease)
            uploader = Uploader(
                registry, self._content, retry_seconds=self._retry_seconds, attempts=self._config.attempts
            )
            await self._put_layers(uploader, image, reference, steps)
            await uploader.put(manifest.config)
            digest = await registry.put_manifest(reference.tag or str(reference.digest), data, manifest.media_type)
        await asyncio.to_thread(self._note, image, reference, digest, data)
        tag = reference.tag or str(reference.digest)
        progress({"status": f"{tag}: digest: {digest} size: {len(data)}"})
        progress({"progressDetail": {}, "aux": {"Tag": tag, "Digest": digest, "Size": len(data)}})

    async def _put_layers(self, uploader: Uploader, image: Image, reference: Reference, steps: Sequence[Step]) -> None:
        limit = asyncio.Semaphore(self._config.uploads)
        for step in steps[self._config.uploads :]:
            step.state("Waiting")
        # A blob that is in an image twice is sent once.
        turns = {layer.blob.content: asyncio.Lock() for layer in image.sources}

        async def put(layer: Layer, step: Step) -> None:
            async with turns[layer.blob.content], limit:
                how = await uploader.put(layer.blob, self._sources(layer, reference), step)
            told = {"": "Layer already exists", "sent": "Pushed"}
            step.state(told.get(how) or how.replace("mounted from", "Mounted from"))

        tasks = [asyncio.create_task(put(*pair)) for pair in zip(image.sources, steps, strict=True)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _mounts(self, wanted: Sequence[tuple[Image, Reference]], target: Reference) -> list[str]:
        """Every repository that blobs may be mounted from: the token must allow to read them."""
        found = {name for image, _ in wanted for layer in image.sources for name in self._sources(layer, target)}
        return sorted(found)

    def _sources(self, layer: Layer, target: Reference) -> list[str]:
        """Repositories of the same registry that had this blob once, as far as we know."""
        names = self._records.repositories(layer.blob.content)
        here = {name.path for name in names if name.domain == target.domain and name.path != target.path}
        return sorted(here)[:_SOURCES_MAX]

    def _manifest(self, image: Image, lease: Lease) -> tuple[bytes, Manifest]:
        """The manifest the image came with, if it still says what there is; else a new one."""
        lease.add(image.id)
        layers = tuple(layer.blob for layer in image.sources)
        if image.manifest and self._content.has(image.manifest):
            data = self._content.read(image.manifest, DOCUMENT_MAX)
            known = parse_manifest(data)
            if isinstance(known, Manifest) and [each.digest for each in known.layers] == [
                each.digest for each in layers
            ]:
                return data, known
        config = Descriptor(media_type=OCI_CONFIG, digest=image.id, size=self._content.info(image.id).size)
        made = Manifest(schema_version=2, media_type=OCI_MANIFEST, config=config, layers=layers)
        return write_manifest(made), made

    def _note(self, image: Image, reference: Reference, digest: Digest, data: bytes) -> None:
        """The image is known by its digest from now on, as after a pull."""
        with self._content.leases.take("push") as lease:
            manifest = self._content.add(data, lease).digest
            self._records.pushed(image.id, reference.with_digest(digest), manifest)

    @asynccontextmanager
    async def _connect(
        self, reference: Reference, auth: RegistryAuth | None, sources: Sequence[str]
    ) -> AsyncIterator[Publisher]:
        """The first endpoint that answers; mirrors take no pushes."""
        failure: WherryError | None = None
        for endpoint in find_endpoints(reference.domain, self._config):
            if endpoint.mirror or not endpoint.may("push"):
                continue
            registry = Publisher(endpoint, reference.path, auth, sources)
            try:
                try:
                    if not endpoint.verbatim:
                        await registry.ping()
                except Unavailable as error:
                    failure = error
                    continue
                yield registry
                return
            finally:
                await registry.close()
        raise failure or Internal(f"no endpoint for {reference.domain}")


def _absent(reference: Reference) -> NotFound:
    name = reference.familiar_name
    return NotFound(f"An image does not exist locally with the tag: {name}", object=reference.familiar)
