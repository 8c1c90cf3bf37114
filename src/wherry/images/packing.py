"""Layers as registries want them: compressed.

An image that was built, committed or imported has its layers as plain tars, or only as trees. They are compressed once,
when the image is first pushed, and kept so: the record then names the compressed blobs, and the plain ones are
collected. The identity of the image, its configuration, does not change by that.
"""

import gzip
import os
from collections.abc import Callable
from dataclasses import replace
from typing import BinaryIO, cast

from wherry.content import ContentStore, Ingest, Lease
from wherry.images.image import Image, Layer
from wherry.images.records import Records
from wherry.spec.digest import DiffID
from wherry.spec.oci_image import OCI_LAYER, Descriptor

try:
    from isal import igzip
except ImportError:  # not on every architecture
    igzip = None  # type: ignore[assignment]

_CHUNK = 1 << 20
_ISAL_LEVEL, _ZLIB_LEVEL = 2, 6


class Packer:
    """Compresses what is not compressed yet. `complete` writes blobs of an image that are not there yet."""

    def __init__(self, records: Records, content: ContentStore, complete: Callable[[Image], None]) -> None:
        self._records, self._content, self._complete = records, content, complete

    def pack(self, image: Image, lease: Lease) -> Image:
        """The image with every layer compressed and its blobs leased. In a thread: it takes a second for 200 MB."""
        if all(layer.blob.media_type != OCI_LAYER and self._content.has(layer.blob.content) for layer in image.sources):
            for layer in image.sources:
                lease.add(layer.blob.content)
            return image
        self._complete(image)
        layers = tuple(self._pack(layer, lease) for layer in image.sources)
        if layers == image.sources:
            return image
        return self._records.repack(image.id, layers)

    def _pack(self, layer: Layer, lease: Lease) -> Layer:
        lease.add(layer.blob.content)
        if layer.blob.media_type != OCI_LAYER:
            return layer
        known = self._records.packed(layer.diff_id)
        if known is not None:
            lease.add(known.content)
            if self._content.has(known.content):
                return Layer(layer.diff_id, known)
        return Layer(layer.diff_id, self._compress(layer.diff_id, layer.blob, lease))

    def _compress(self, diff_id: DiffID, blob: Descriptor, lease: Lease) -> Descriptor:
        key = f"gzip-{diff_id}-{os.urandom(4).hex()}"
        with self._content.open(blob.content) as plain, self._content.ingest(key, lease) as ingest:
            try:
                _gzip(plain, ingest)
                info = ingest.commit()
            except BaseException:
                ingest.abort()
                raise
        return replace(blob, media_type=f"{OCI_LAYER}+gzip", digest=info.digest, size=info.size)


def _gzip(plain: BinaryIO, ingest: Ingest) -> None:
    """No name and no time in its header: the same layer gives the same bytes."""
    sink = cast(BinaryIO, _Sink(ingest))
    if igzip is not None:
        packed: object = igzip.IGzipFile(None, "wb", _ISAL_LEVEL, sink, mtime=0)  # type: ignore[no-untyped-call]
    else:
        packed = gzip.GzipFile("", "wb", _ZLIB_LEVEL, sink, mtime=0)
    with cast(BinaryIO, packed) as out:
        while chunk := plain.read(_CHUNK):
            out.write(chunk)


class _Sink:
    """An ingest as a file to be written."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    def write(self, data: bytes) -> int:
        self._ingest.write(data)
        return len(data)

    def flush(self) -> None:
        pass
