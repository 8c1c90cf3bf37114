"""Image archives to images: `docker save`'s tars (old and new) and OCI image layouts in a tar, compressed or not.

Sources: docker-image-spec spec.md "Combined Image JSON + Filesystem Changeset Format" for manifest.json; image-spec
image-layout.md for index.json. An archive with both is read by its manifest.json, as docker does.
"""

import json
from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

from wherry.content import BlobInfo, ContentStore
from wherry.errors import InvalidArgument, NotFound
from wherry.images.compression import decompressed, detect
from wherry.images.image import Image, Layer
from wherry.images.layers import Layers
from wherry.images.members import Members, read_document
from wherry.images.progress import Progress, Step, short_id
from wherry.images.records import Record, Records
from wherry.spec.digest import Digest, chain_ids
from wherry.spec.oci_image import (
    OCI_LAYER,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    parse_config,
    parse_manifest,
)
from wherry.spec.platform import Platform, preference
from wherry.spec.reference import Reference, parse_reference

_INDEX_DEPTH = 4
_MANIFESTS_MAX = 1000
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class Packed(NamedTuple):
    """One image of an archive, found but not loaded."""

    config: BlobInfo
    layers: tuple[BlobInfo, ...]
    names: tuple[Reference, ...]
    manifest: Digest | None = None


class Loader:
    """Loads archives."""

    def __init__(self, records: Records, layers: Layers, content: ContentStore, platform: Platform) -> None:
        self._records = records
        self._layers = layers
        self._content = content
        self._platform = platform

    def load(self, stream: BinaryIO, progress: Progress) -> list[str]:
        """Every image of the archive; returns their names, or ids where they have none.

        What was loaded before an error stays, as with docker; of the image that fails nothing does.
        """
        with self._content.leases.take("load") as lease:
            space = self._layers.space()
            members = Members(self._content, lease, space)
            with decompressed(stream, limit=space, name="the archive") as tar:
                members.read(tar)
            loaded: list[str] = []
            for packed in self._find(members):
                image = self._load_image(packed, progress)
                for shown in [name.familiar for name in packed.names] or [image.id]:
                    kind = "Loaded image" if packed.names else "Loaded image ID"
                    progress({"stream": f"{kind}: {shown}\n"})
                    loaded.append(shown)
            return loaded

    def _find(self, members: Members) -> list[Packed]:
        if members.find("manifest.json"):
            return [self._docker_image(members, item) for item in _parse_list(members.document("manifest.json"))]
        if members.find("index.json"):
            return self._layout_images(parse_manifest(members.document("index.json")), (), 0)
        if members.find("repositories"):
            raise InvalidArgument(
                "the archive is of docker before 1.10", hint="load it with docker 23 or older and save it again"
            )
        raise InvalidArgument("the archive holds no image: it has neither manifest.json nor index.json")

    def _docker_image(self, members: Members, item: Any) -> Packed:
        if not isinstance(item, dict):
            raise InvalidArgument("manifest.json must be a list of objects")
        config, layers, tags = item.get("Config"), item.get("Layers") or [], item.get("RepoTags") or []
        if not isinstance(config, str) or not _are_strings(layers) or not _are_strings(tags):
            raise InvalidArgument("manifest.json: Config, Layers and RepoTags must be strings")
        names = [parse_reference(tag).tagged() for tag in tags]
        if any(name.digest for name in names):
            raise InvalidArgument("manifest.json: RepoTags must be tags, not digests")
        return Packed(members.get(config), tuple(members.get(layer) for layer in layers), tuple(names))

    def _layout_images(self, found: Manifest | Index, names: tuple[Reference, ...], depth: int) -> list[Packed]:
        """The images an index leads to: at the top every entry is one, below the entries are its platforms."""
        if isinstance(found, Manifest):
            return [self._layout_image(found, names)]
        if depth >= _INDEX_DEPTH or len(found.manifests) > _MANIFESTS_MAX:
            raise InvalidArgument("the archive's indexes are nested or filled beyond reason")
        if depth == 0:
            images: dict[tuple[Digest, Digest | None], Packed] = {}
            for entry in found.manifests:
                if entry.platform and entry.platform.os == "unknown":
                    continue  # an attestation about another entry
                for packed in self._follow(entry, _annotated_names(entry), depth):
                    known = images.get((packed.config.digest, packed.manifest))
                    both = (*known.names, *packed.names) if known else packed.names
                    images[packed.config.digest, packed.manifest] = packed._replace(names=both)
            return list(images.values())
        ranked = [(preference(self._platform, entry.platform), entry) for entry in found.manifests if entry.platform]
        fitting = sorted(((rank, n) for n, (rank, _) in enumerate(ranked) if rank is not None))
        for _, number in fitting:
            if self._content.has(ranked[number][1].content):
                return self._follow(ranked[number][1], names, depth)
        raise NotFound(f"no image for {self._platform} in the archive")

    def _follow(self, entry: Descriptor, names: tuple[Reference, ...], depth: int) -> list[Packed]:
        blob = self._blob(entry)
        found = parse_manifest(read_document(self._content, blob), entry.media_type)
        packed = self._layout_images(found, names, depth + 1)
        if isinstance(found, Manifest):
            return [item._replace(manifest=blob.digest) for item in packed]
        return packed

    def _layout_image(self, manifest: Manifest, names: tuple[Reference, ...]) -> Packed:
        layers = tuple(self._blob(layer) for layer in manifest.layers)
        return Packed(self._blob(manifest.config), layers, names)

    def _blob(self, descriptor: Descriptor) -> BlobInfo:
        try:
            info = self._content.info(descriptor.content)
        except NotFound:
            raise InvalidArgument(f"the archive has no blob {descriptor.digest}", object=descriptor.digest) from None
        if info.size != descriptor.size:
            raise InvalidArgument(f"{descriptor.digest} has {info.size} bytes, not {descriptor.size}")
        return info

    def _load_image(self, packed: Packed, progress: Progress) -> Image:
        config = parse_config(read_document(self._content, packed.config))
        expected, got = len(packed.layers), len(config.diff_ids)
        if expected != got:
            raise InvalidArgument(f"invalid manifest, layers length mismatch: expected {expected}, got {got}")
        with self._layers.pins() as pins:
            pins.unpack_all(
                [
                    (diff_id, blob.digest, _reporter(Step(progress, short_id(diff_id)), blob.size))
                    for diff_id, blob in zip(config.diff_ids, packed.layers, strict=True)
                ]
            )
            return self._record(packed, config, progress)

    def _record(self, packed: Packed, config: ImageConfig, progress: Progress) -> Image:
        layers = [
            Layer(diff_id, self._describe(blob)) for diff_id, blob in zip(config.diff_ids, packed.layers, strict=True)
        ]
        for name in packed.names:
            old = self._records.named(name)
            if old is not None and old != packed.config.digest:
                text = f"The image {name.familiar} already exists, renaming the old one with ID {old} to empty string\n"
                progress({"stream": text})
        chains = chain_ids(config.diff_ids)
        record = Record(
            id=packed.config.digest,
            config=config,
            layers=tuple(layers),
            size=sum(self._layers.sizes(chains)),
            manifest=packed.manifest,
        )
        return self._records.put(record, packed.names, self._layers.adopted(chains))

    def _describe(self, blob: BlobInfo) -> Descriptor:
        with self._content.open(blob.digest) as file:
            kind = detect(file.read(8))
        return Descriptor(media_type=f"{OCI_LAYER}+{kind}" if kind else OCI_LAYER, digest=blob.digest, size=blob.size)


def _reporter(step: Step, total: int) -> Any:
    return lambda done: step.advance("Loading layer", done, total)


def _parse_list(data: bytes) -> Sequence[Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"manifest.json is not JSON: {error}") from None
    if not isinstance(value, list) or len(value) > _MANIFESTS_MAX:
        raise InvalidArgument(f"manifest.json must be a list of at most {_MANIFESTS_MAX} images")
    return value


def _are_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _annotated_names(entry: Descriptor) -> tuple[Reference, ...]:
    for annotation in _NAME_ANNOTATIONS:
        text = entry.annotations.get(annotation) or ""
        # A bare tag ("latest"), as image-layout.md suggests for ref.name, names no repository.
        if ":" in text or "/" in text:
            name = parse_reference(text).tagged()
            return () if name.digest else (name,)
    return ()
