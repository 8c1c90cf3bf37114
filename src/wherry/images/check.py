"""Images against content and layers: what `system fsck` asks of this room."""

from functools import partial
from itertools import pairwise
from typing import Protocol

from wherry.content import ContentStore, unreferenced
from wherry.images.image import Image
from wherry.images.layers import Layers
from wherry.images.records import Records
from wherry.spec.digest import ChainID, Digest
from wherry.spec.finding import Findings

_AREA = "images"


class LayerTrees(Protocol):
    """The part of a Snapshotter that is checked."""

    def has(self, chain: ChainID) -> bool: ...


def check(
    records: Records, layers: Layers, snapshots: LayerTrees, content: ContentStore, findings: Findings, *, deep: bool
) -> None:
    """Everything an image is made of must be there; nothing may be there that belongs to none.

    `deep`: also read every blob, to see that it is what its digest says.
    """
    if deep:
        _check_digests(content, findings)
    for image in records.all():
        _check_image(image, records, layers, snapshots, content, findings)
    for digest in unreferenced(content, records.blobs):
        # Looked at anew as it goes: whoever wrote it may have recorded it by now.
        act = partial(_drop_unreferenced, content, records, digest)
        findings.add("content", digest, "no image refers to it", "remove it", act)
    for chain in layers.strays(records.chains()):
        act = partial(layers.release, chain, records.chains)
        findings.add("layers", chain, "it belongs to no image", "remove it once no container stands on it", act)


def _check_digests(content: ContentStore, findings: Findings) -> None:
    for info in list(content.walk()):
        if content.has(info.digest) and not content.verify(info.digest):
            remedy = "remove it; pull or load the images it belongs to again"
            findings.add("content", info.digest, "it is damaged on disk", remedy, partial(content.delete, info.digest))


def _check_image(
    image: Image,
    records: Records,
    layers: Layers,
    snapshots: LayerTrees,
    content: ContentStore,
    findings: Findings,
) -> None:
    name = image.references[0] if image.references else image.id
    for digest in records.blobs_of(image.id):
        if not content.has(digest):
            findings.add(_AREA, name, f"its content {digest} is missing", "pull or load it again")
    lost = [chain for chain in image.layers if not snapshots.has(chain)]
    if not lost:
        return
    blobs = records.layer_blobs(image.id)
    there = all(content.has(blob) for chain, blob in zip(image.layers, blobs, strict=True) if chain in lost)
    findings.add(
        _AREA,
        name,
        f"{len(lost)} of its layers are not unpacked",
        "unpack them again" if there else "pull or load it again: their content is missing too",
        partial(_unpack, image, blobs, layers) if there else None,
    )


def _unpack(image: Image, blobs: list[Digest], layers: Layers) -> None:
    parents = [None, *image.layers]
    with layers.pins() as pins:
        for (parent, _), diff_id, blob in zip(pairwise(parents), image.config.diff_ids, blobs, strict=True):
            pins.unpack(parent, diff_id, blob)
        layers.adopt(image.layers)


def _drop_unreferenced(content: ContentStore, records: Records, digest: Digest) -> None:
    with content.lock:
        if digest in set(unreferenced(content, records.blobs)):
            content.delete(digest)
