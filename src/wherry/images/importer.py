"""A root file system's tar to an image with one layer."""

import time
from collections.abc import Sequence
from typing import BinaryIO

from wherry.content import ContentStore, Lease
from wherry.images.changes import apply_changes
from wherry.images.compression import decompressed
from wherry.images.image import Image, Layer, now_rfc3339
from wherry.images.layers import Layers
from wherry.images.records import Record, Records
from wherry.spec.digest import DiffID
from wherry.spec.oci_image import OCI_LAYER, Descriptor, History, ImageConfig, RootFS, RunConfig, write_config
from wherry.spec.platform import Platform
from wherry.spec.reference import Reference

_CHUNK = 1 << 20


class Importer:
    """Makes single-layer images."""

    def __init__(self, records: Records, layers: Layers, content: ContentStore) -> None:
        self._records = records
        self._layers = layers
        self._content = content

    def import_(
        self,
        stream: BinaryIO,
        reference: Reference | None,
        *,
        changes: Sequence[str] = (),
        message: str = "",
        platform: Platform,
        config: RunConfig | None = None,
        created_ns: int | None = None,
    ) -> Image:
        """`stream`: a tar, compressed or not. Nothing is kept when anything is wrong."""
        run = apply_changes(config or RunConfig(), changes)
        with self._content.leases.take("import") as lease, self._layers.pins() as pins:
            blob = self._store_layer(stream, lease)
            diff_id = DiffID(blob.digest)
            chain = pins.unpack(None, diff_id, blob.content)
            created = now_rfc3339(time.time_ns() if created_ns is None else created_ns)
            document = ImageConfig(
                architecture=platform.architecture,
                os=platform.os,
                variant=platform.variant,
                created=created,
                comment=message,
                config=run,
                rootfs=RootFS(diff_ids=(diff_id,)),
                history=(History(created=created, comment=message),),
            )
            id = self._content.add(write_config(document), lease).digest
            size = sum(self._layers.sizes([chain]))
            record = Record(id=id, config=document, layers=(Layer(diff_id, blob),), size=size)
            return self._records.put(record, [reference] if reference else [], self._layers.adopted([chain]))

    def _store_layer(self, stream: BinaryIO, lease: Lease) -> Descriptor:
        with self._content.ingest(f"import-{lease.name}", lease) as ingest:
            try:
                with decompressed(stream, limit=self._layers.space(), name="the archive") as tar:
                    while chunk := tar.read(_CHUNK):
                        ingest.write(chunk)
                info = ingest.commit()
            except BaseException:
                ingest.abort()
                raise
        return Descriptor(media_type=OCI_LAYER, digest=info.digest, size=info.size)
