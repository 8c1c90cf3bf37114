"""What changed in a container, as an image on top of the one it was made from.

Reproducible: the identity of the image is its configuration, in which are the layers' digests, what was asked for, and
one time, `created_ns`. Nothing of the container itself is (docker writes its id and host name). The layer holds each
file's own time in whole seconds, or the time it is clamped to. So the same files, configuration and time give the same
digest, on any machine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

from wherry.content import ContentStore, Ingest, Lease
from wherry.errors import FailedPrecondition
from wherry.images.image import Image, Layer, now_rfc3339
from wherry.images.layers import Layers, Pins
from wherry.images.records import Record, Records
from wherry.spec.digest import ChainID, DiffID
from wherry.spec.oci_image import OCI_LAYER, Descriptor, History, ImageConfig, RootFS, RunConfig, write_config
from wherry.spec.platform import host_platform
from wherry.spec.reference import Reference

_NO_CHANGES = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
"""The digest of a tar without entries: docker records such a step, but no layer for it."""

WriteLayer = Callable[[BinaryIO], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """What the new image says of itself. `created_by` is what ran in the container."""

    config: RunConfig
    created_ns: int
    created_by: str = ""
    author: str = ""
    comment: str = ""
    reference: str | None = None


class Committer:
    """Makes images of one layer more."""

    def __init__(self, records: Records, layers: Layers, content: ContentStore) -> None:
        self._records = records
        self._layers = layers
        self._content = content

    def commit(
        self, parent: Image | None, write_layer: WriteLayer, wanted: Commitment, named: Sequence[Reference]
    ) -> Image:
        """`write_layer` writes the layer's uncompressed tar, once. Nothing is kept when anything goes wrong."""
        with self._content.leases.take("commit") as lease, self._layers.pins() as pins:
            below = self._hold(parent, lease, pins)
            blob = self._store(write_layer, lease)
            chains = list(parent.layers) if parent else []
            sources = list(below)
            if blob.digest != _NO_CHANGES:
                diff_id = DiffID(blob.digest)
                chains.append(pins.unpack(chains[-1] if chains else None, diff_id, blob.content))
                sources.append(Layer(diff_id, blob))
            config = _describe(parent, wanted, sources)
            record = Record(
                id=self._content.add(write_config(config), lease).digest,
                config=config,
                layers=tuple(sources),
                size=sum(self._layers.sizes(chains)),
                parent=parent.id if parent else None,
            )
            return self._records.put(record, named, self._layers.adopted(chains))

    def _hold(self, parent: Image | None, lease: Lease, pins: Pins) -> Sequence[Layer]:
        """The parent's layers, which stay even when the parent is removed meanwhile."""
        if parent is None:
            return ()
        for layer in parent.sources:
            lease.add(layer.blob.content)
        held = [pins.pin(ChainID(chain)) for chain in parent.layers]
        if not all(held) or len(parent.sources) != len(parent.layers):
            raise FailedPrecondition(f"image {parent.id} was removed", object=parent.id)
        return parent.sources

    def _store(self, write_layer: WriteLayer, lease: Lease) -> Descriptor:
        with self._content.ingest(f"commit-{lease.name}", lease) as ingest:
            try:
                write_layer(cast(BinaryIO, _Sink(ingest)))
                info = ingest.commit()
            except BaseException:
                ingest.abort()
                raise
        return Descriptor(media_type=OCI_LAYER, digest=info.digest, size=info.size)


class _Sink:
    """An ingest as a file to be written."""

    def __init__(self, ingest: Ingest) -> None:
        self.write = ingest.write


def _describe(parent: Image | None, wanted: Commitment, layers: Sequence[Layer]) -> ImageConfig:
    created = now_rfc3339(wanted.created_ns)
    platform = parent.platform if parent else host_platform().normalized()
    step = History(
        created=created,
        created_by=wanted.created_by,
        author=wanted.author,
        comment=wanted.comment,
        empty_layer=len(layers) == len(parent.sources if parent else ()),
    )
    return ImageConfig(
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant,
        os_version=platform.os_version,
        created=created,
        author=wanted.author,
        comment=wanted.comment,
        config=wanted.config,
        rootfs=RootFS(diff_ids=tuple(layer.diff_id for layer in layers)),
        history=(*(parent.config.history if parent else ()), step),
    )
