"""Image documents: configuration, manifests and indexes, in OCI's and Docker's media types.

Sources: image-spec config.md, manifest.md, image-index.md, descriptor.md; docker-image-spec spec.md for the fields
Docker adds (Healthcheck, OnBuild, Shell); schema 2 documents differ from OCI's in their media types only.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wherry.errors import InvalidArgument, Unimplemented
from wherry.spec.decode import decode, document, encode, key
from wherry.spec.digest import DiffID, Digest, parse_digest
from wherry.spec.platform import Platform

DOCUMENT_MAX = 4 << 20
"""The largest manifest, index or configuration accepted, in bytes (distribution-spec, "Pushing Manifests")."""

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_SCHEMA1 = (
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
)
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

INDEX_TYPES = (OCI_INDEX, DOCKER_INDEX)
MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
CONFIG_TYPES = (OCI_CONFIG, DOCKER_CONFIG)
# media type -> compression. "nondistributable" and "foreign" layers carry the same bytes from elsewhere.
LAYER_TYPES: Mapping[str, str] = {
    OCI_LAYER: "",
    f"{OCI_LAYER}+gzip": "gzip",
    f"{OCI_LAYER}+zstd": "zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    DOCKER_LAYER: "",
    f"{DOCKER_LAYER}.gzip": "gzip",
    f"{DOCKER_LAYER}.zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
}


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck:
    """How a container's health is probed; times in nanoseconds, 0 means inherited or default."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What a container of this image runs by default. `None` differs from empty: not given."""

    user: str = ""
    exposed_ports: Mapping[str, Any] = key("ExposedPorts", factory=dict)
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: Mapping[str, Any] = key("Volumes", factory=dict)
    working_dir: str = ""
    labels: Mapping[str, str] = key("Labels", factory=dict)
    stop_signal: str = ""
    stop_timeout: int | None = None
    healthcheck: Healthcheck | None = None
    args_escaped: bool = False
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()


@document("camel")
@dataclass(frozen=True, slots=True, kw_only=True)
class RootFS:
    """The layers, bottom first, as digests of their uncompressed tars."""

    type: str = "layers"
    diff_ids: tuple[str, ...] = key("diff_ids", ())


@document("camel")
@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One step of how the image came to be, oldest first in a configuration."""

    created: str | None = None
    created_by: str = key("created_by", "")
    author: str = ""
    comment: str = ""
    empty_layer: bool = key("empty_layer", False)


@document("camel")
@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """An image's configuration: its digest is the image's id."""

    architecture: str = ""
    os: str = "linux"
    variant: str = ""
    os_version: str = key("os.version", "")
    created: str | None = None
    author: str = ""
    comment: str = ""
    docker_version: str = key("docker_version", "")
    config: RunConfig = key("config", factory=RunConfig)
    rootfs: RootFS = key("rootfs", factory=RootFS)
    history: tuple[History, ...] = ()

    @property
    def diff_ids(self) -> tuple[DiffID, ...]:
        return tuple(DiffID(digest) for digest in self.rootfs.diff_ids)

    @property
    def platform(self) -> Platform:
        return Platform(os=self.os, architecture=self.architecture, variant=self.variant, os_version=self.os_version)


@document("camel")
@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A typed pointer to content: digest and size in bytes are both verified by whoever follows it."""

    media_type: str
    digest: str
    size: int
    urls: tuple[str, ...] = ()
    annotations: Mapping[str, str] = key("annotations", factory=dict)
    platform: Platform | None = None
    artifact_type: str = ""

    @property
    def content(self) -> Digest:
        return Digest(self.digest)


@document("camel")
@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image for one platform."""

    schema_version: int
    media_type: str = ""
    config: Descriptor
    layers: tuple[Descriptor, ...] = ()
    annotations: Mapping[str, str] = key("annotations", factory=dict)


@document("camel")
@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Several manifests, one per platform (also: Docker's manifest list)."""

    schema_version: int
    media_type: str = ""
    manifests: tuple[Descriptor, ...] = ()
    annotations: Mapping[str, str] = key("annotations", factory=dict)


def parse_config(data: bytes) -> ImageConfig:
    """An image configuration, its digests checked; InvalidArgument when it is none."""
    config = decode(ImageConfig, _parse_object(data, "image configuration"), "image configuration")
    if config.rootfs.type != "layers":
        raise InvalidArgument(f"image configuration: rootfs type {config.rootfs.type!r} is not supported")
    for digest in config.rootfs.diff_ids:
        parse_digest(digest)
    if sum(not step.empty_layer for step in config.history) > len(config.rootfs.diff_ids):
        raise InvalidArgument("image configuration: more non-empty history entries than layers")
    return config


def parse_manifest(data: bytes, media_type: str = "") -> Manifest | Index:
    """A manifest or an index, of either kind.

    `media_type` is what the sender said it is; a document that says otherwise of itself, or that could be read as both
    kinds, is refused, so that no two readers can see two images in the same bytes.
    """
    document = _parse_object(data, "manifest")
    if document.get("schemaVersion") == 1 or media_type in DOCKER_SCHEMA1:
        raise Unimplemented(
            "Docker image manifest version 2, schema 1 is no longer supported",
            hint="push the image again with a current tool",
        )
    own = document.get("mediaType") or ""
    if own and media_type and own != media_type:
        raise InvalidArgument(f"manifest is served as {media_type} but says it is {own}")
    kind = own or media_type
    is_index = "manifests" in document
    if is_index and ("layers" in document or "config" in document):
        raise InvalidArgument("manifest is ambiguous: it has both manifests and layers")
    if kind and kind not in (INDEX_TYPES if is_index else MANIFEST_TYPES):
        raise InvalidArgument(f"manifest has unsupported media type {kind}")
    parsed = decode(Index, document, "manifest") if is_index else decode(Manifest, document, "manifest")
    if parsed.schema_version != 2:
        raise InvalidArgument(f"manifest has unsupported schemaVersion {parsed.schema_version}")
    descriptors = parsed.manifests if isinstance(parsed, Index) else (parsed.config, *parsed.layers)
    for descriptor in descriptors:
        parse_digest(descriptor.digest)
        if descriptor.size < 0:
            raise InvalidArgument(f"manifest gives {descriptor.digest} a negative size")
    return parsed


def write_config(config: ImageConfig) -> bytes:
    """A configuration as JSON, without what is empty; the same configuration gives the same bytes."""
    return json.dumps(_prune(encode(config)), separators=(",", ":"), sort_keys=True).encode()


def write_manifest(manifest: Manifest) -> bytes:
    """A manifest as JSON, without what is empty."""
    pruned = _prune(encode(manifest))
    pruned.setdefault("layers", [])
    return json.dumps(pruned, separators=(",", ":")).encode()


def _prune(value: Any) -> Any:
    if not isinstance(value, dict):
        return [_prune(item) for item in value] if isinstance(value, list) else value
    # An empty object may be a member of a set (ExposedPorts), so only the members of documents are pruned by emptiness.
    pruned = {name: item if name in _SETS else _prune(item) for name, item in value.items()}
    return {name: item for name, item in pruned.items() if item or name in _KEPT}


_SETS = frozenset(("ExposedPorts", "Volumes", "Labels", "annotations"))
_KEPT = frozenset(("rootfs", "diff_ids", "config", "architecture", "os", "size", "schemaVersion"))


def _parse_object(data: bytes, what: str) -> dict[str, Any]:
    if len(data) > DOCUMENT_MAX:
        raise InvalidArgument(f"{what} is larger than {DOCUMENT_MAX >> 20} MiB")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{what} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidArgument(f"{what} is not a JSON object")
    return value
