"""What the builder makes, kept: layers as soon as they are built, images when all is.

A built layer's blob is not written: its bytes are made again from the layer when somebody asks for them (save, push),
and are the same bytes. Until an image or the build cache has it, a layer is provisional, as a pulled one is.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, cast

from wherry.content import ContentStore
from wherry.images.image import Image, Layer
from wherry.images.layers import Layers, Pins
from wherry.images.records import Record, Records
from wherry.spec.digest import ChainID, DiffID, chain_ids
from wherry.spec.oci_image import OCI_LAYER, Descriptor, ImageConfig, write_config
from wherry.spec.reference import Reference
from wherry.state import Change


class BuildSnapshots(Protocol):
    """The part of the overlay snapshotter that layers are built with."""

    def diff(self, key: str, out: "Hashing") -> None: ...
    def usage(self, key: str) -> int: ...
    def commit(self, key: str, diff_id: DiffID, size: int, *, parent: ChainID | None) -> ChainID: ...
    def pack_layer(self, chain: ChainID, out: "Hashing") -> None: ...


class Built(NamedTuple):
    """A layer that was built. `packed`: the size of its tar in bytes, `size`: of the files in it.

    `blob`: the packed layer of an image it was taken from.
    """

    chain: ChainID
    diff_id: DiffID
    size: int
    packed: int
    blob: Descriptor | None = None


class Hashing:
    """A sink that keeps a digest and a size, and hands on what it is given."""

    def __init__(self, onward: Callable[[bytes], object] | None = None) -> None:
        self._hash = hashlib.sha256()
        self._onward = onward
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        self._hash.update(data)
        self.size += len(data)
        if self._onward is not None:
            self._onward(bytes(data))
        return len(data)

    @property
    def digest(self) -> DiffID:
        return DiffID("sha256:" + self._hash.hexdigest())


class BuildResults:
    """The images room as the builder needs it. Every method may be called from any thread."""

    def __init__(self, records: Records, layers: Layers, content: ContentStore, snapshots: BuildSnapshots) -> None:
        self._records, self._layers, self._content, self._snapshots = records, layers, content, snapshots

    def pins(self) -> Pins:
        """Keeps layers for one build."""
        return self._layers.pins()

    def keep(self, keeps: Callable[[ChainID], bool]) -> None:
        """From now on layers for which `keeps` holds stay without image or container."""
        self._layers.keepers.append(keeps)

    def commit(self, key: str, parent: ChainID | None, pins: Pins) -> Built:
        """Make what was written to the snapshot `key` a provisional layer; the snapshot is gone."""
        sink = Hashing()
        self._snapshots.diff(key, sink)
        chain = _chain(parent, sink.digest)
        pins.pin(chain)
        self._layers.note(chain)
        size = self._snapshots.usage(key) if sink.size > 1024 else 0
        self._snapshots.commit(key, sink.digest, size, parent=parent)
        return Built(chain, sink.digest, size, sink.size)

    def adopted(self, chains: Sequence[ChainID]) -> Sequence[Change]:
        """The changes that make layers permanent: to be written with the record that keeps them."""
        return self._layers.adopted(chains)

    def drop(self, chains: Sequence[ChainID]) -> int:
        """Remove layers, bottom first in `chains`, as far as no one needs them; the bytes freed."""
        return sum(size for _, size in self._layers.remove(chains, self._records.chains().__contains__))

    def put(
        self, config: ImageConfig, base: Sequence[Layer], built: Sequence[Built], names: Sequence[Reference]
    ) -> Image:
        """An image of `base`'s layers and those built on them. The configuration has their digests already."""
        layers = [*base, *(Layer(b.diff_id, b.blob or _descriptor(b.diff_id, b.packed)) for b in built)]
        chains = chain_ids(config.diff_ids)
        with self._content.leases.take("build") as lease:
            for layer in layers:
                lease.add(layer.blob.content)
            digest = self._content.add(write_config(config), lease).digest
            record = Record(id=digest, config=config, layers=tuple(layers), size=sum(self._layers.sizes(chains)))
            return self._records.put(record, names, self._layers.adopted(chains))

    def complete(self, image: Image) -> None:
        """Write the blobs an image has not been asked for yet."""
        for layer, chain in zip(image.sources, image.layers, strict=True):
            if layer.blob.digest != layer.diff_id or self._content.has(layer.blob.content):
                continue
            with self._content.leases.take("build") as lease:
                with self._content.ingest(f"layer-{chain}-{os.urandom(4).hex()}", lease) as ingest:
                    self._snapshots.pack_layer(chain, Hashing(ingest.write))
                    ingest.commit(layer.blob.content, layer.blob.size)


def _chain(parent: ChainID | None, diff_id: DiffID) -> ChainID:
    return chain_ids([DiffID(cast(str, parent)), diff_id])[-1] if parent else ChainID(diff_id)


def _descriptor(diff_id: DiffID, size: int) -> Descriptor:
    return Descriptor(media_type=OCI_LAYER, digest=diff_id, size=size)
