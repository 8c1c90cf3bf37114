"""Images to an archive: an OCI image layout in a tar with docker's manifest.json beside it, as docker saves since 25.

Blobs are written as they are kept, so that saving moves bytes and computes nothing; every reader of either format
tells compressed layers apart by their content.
"""

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

from wherry.content import ContentStore
from wherry.images.image import Image
from wherry.images.records import Records
from wherry.spec.decode import encode
from wherry.spec.digest import Digest, sha256
from wherry.spec.oci_image import (
    DOCUMENT_MAX,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    parse_manifest,
    write_manifest,
)
from wherry.spec.reference import Reference, parse_reference


class Saver:
    """Saves images."""

    def __init__(
        self, records: Records, content: ContentStore, complete: Callable[[Image], None] = lambda image: None
    ) -> None:
        """`complete` writes blobs of an image that are not there yet."""
        self._records = records
        self._content = content
        self._complete = complete

    def save(self, names: Sequence[str], out: BinaryIO) -> None:
        """Write the images with the names they are asked for by; one asked for by id has none in the archive."""
        wanted: dict[Digest, list[Reference]] = {}
        for name in names:
            for image, reference in self._select(name):
                found = wanted.setdefault(image.id, [])
                if reference and reference not in found:
                    found.append(reference)
        images = [(self._records.find(id), references) for id, references in wanted.items()]
        for image, _ in images:
            self._complete(image)
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            self._write(tar, images)

    def save_as(self, image: Image, references: Sequence[Reference], out: BinaryIO) -> None:
        """Write one image under names it need not have here."""
        self._complete(image)
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            self._write(tar, [(image, list(references))])

    def _select(self, name: str) -> list[tuple[Image, Reference | None]]:
        image = self._records.find(name)
        if image.id.removeprefix("sha256:").startswith(name.removeprefix("sha256:")):
            return [(image, None)]
        reference = parse_reference(name)
        if reference.tag or reference.digest:
            return [(image, reference if reference.tag and not reference.digest else None)]
        # A repository alone means all of its tags.
        return [
            (other, tag)
            for other in self._records.all()
            for tag in other.names
            if tag.tag and tag.name == reference.name
        ]

    def _write(self, tar: tarfile.TarFile, images: list[tuple[Image, list[Reference]]]) -> None:
        documents: dict[str, bytes] = {}
        blobs: dict[Digest, int] = {}
        docker: list[dict[str, Any]] = []
        entries: list[dict[str, Any]] = []
        repositories: dict[str, dict[str, str]] = {}
        for image, references in images:
            manifest = self._manifest(image)
            digest = sha256(manifest)
            documents[_path(digest)] = manifest
            blobs |= {image.id: self._content.info(image.id).size} | {
                s.blob.content: s.blob.size for s in image.sources
            }
            docker.append(_docker_entry(image, references))
            media_type = parse_manifest(manifest).media_type or OCI_MANIFEST
            entries += _index_entries({"mediaType": media_type, "digest": digest, "size": len(manifest)}, references)
            for reference in references:
                top = image.sources[-1].blob.digest.partition(":")[2] if image.sources else ""
                repositories.setdefault(reference.familiar_name, {})[reference.tag or ""] = top
        documents |= {
            "index.json": _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}),
            "manifest.json": _json(docker),
            "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        }
        if repositories:
            documents["repositories"] = _json(repositories)
        for directory in ("blobs", "blobs/sha256"):
            entry = _entry(directory, 0, tarfile.DIRTYPE)
            tar.addfile(entry)
        for digest, size in blobs.items():
            with self._content.open(digest) as file:
                tar.addfile(_entry(_path(digest), size), file)
        for name, data in sorted(documents.items()):
            tar.addfile(_entry(name, len(data)), io.BytesIO(data))

    def _manifest(self, image: Image) -> bytes:
        """The manifest the image came with, or one that says the same as its record."""
        if image.manifest and self._content.has(image.manifest):
            return self._content.read(image.manifest, DOCUMENT_MAX)
        config = Descriptor(media_type=OCI_CONFIG, digest=image.id, size=self._content.info(image.id).size)
        layers = tuple(source.blob for source in image.sources)
        return write_manifest(Manifest(schema_version=2, media_type=OCI_MANIFEST, config=config, layers=layers))


def _docker_entry(image: Image, references: list[Reference]) -> dict[str, Any]:
    sources = {
        source.diff_id: {name: encode(source.blob)[name] for name in ("mediaType", "size", "digest")}
        for source in image.sources
    }
    return {
        "Config": _path(image.id),
        "RepoTags": [reference.familiar for reference in references] or None,
        "Layers": [_path(source.blob.content) for source in image.sources],
        "LayerSources": sources,
    }


def _index_entries(plain: dict[str, Any], references: list[Reference]) -> list[dict[str, Any]]:
    if not references:
        return [plain]
    return [
        plain
        | {
            "annotations": {
                "io.containerd.image.name": str(reference),
                "org.opencontainers.image.ref.name": reference.tag or "",
            }
        }
        for reference in references
    ]


def _path(digest: Digest) -> str:
    return "blobs/" + digest.replace(":", "/")


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _entry(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type, entry.mode = size, kind, 0o755 if kind == tarfile.DIRTYPE else 0o644
    return entry
