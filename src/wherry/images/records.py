"""Which images there are and what they are called: held in memory, every change written through to the state store.

    images/records/<id>             {"manifest", "index", "parent", "size", "tagged_ns", "layers": [{diff_id, blob}]}
    images/references/<reference>   the id as text; the reference in full: docker.io/library/busybox:latest

The configuration itself is a blob in the content store; its digest is the id.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from threading import RLock
from typing import Any

from wherry.content import ContentStore
from wherry.errors import InvalidArgument, NotFound
from wherry.images.image import Image, Layer
from wherry.spec.decode import decode, encode
from wherry.spec.digest import ChainID, DiffID, Digest, chain_ids, parse_digest
from wherry.spec.oci_image import DOCUMENT_MAX, OCI_LAYER, Descriptor, ImageConfig, parse_config
from wherry.spec.reference import Reference, parse_reference
from wherry.state import Change, Delete, Put, Store

_RECORDS = "images/records/"
_REFERENCES = "images/references/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of an image beside its names."""

    id: Digest
    config: ImageConfig
    layers: tuple[Layer, ...]
    size: int
    manifest: Digest | None = None
    index: Digest | None = None
    parent: Digest | None = None
    tagged_ns: int = 0

    @property
    def chains(self) -> tuple[ChainID, ...]:
        return chain_ids(self.config.diff_ids)


class Records:
    """The images and their names. Every method may be called from any thread; none waits for anything but SQLite."""

    def __init__(self, store: Store, content: ContentStore) -> None:
        self._store = store
        self._lock = RLock()
        self._records: dict[Digest, Record] = {}
        self._names: dict[Reference, Digest] = {}
        for key, value in store.scan(_RECORDS):
            digest = Digest(key.removeprefix(_RECORDS))
            try:
                config = parse_config(content.read(digest, DOCUMENT_MAX))
            except NotFound:
                # The disk lost the blob (a power cut): the image is gone, its name free to be pulled again.
                store.write(Delete(key))
                continue
            self._records[digest] = _parse_record(digest, config, json.loads(value))
        for key, value in store.scan(_REFERENCES):
            target = Digest(value.decode())
            if target in self._records:
                self._names[parse_reference(key.removeprefix(_REFERENCES))] = target
            else:
                store.write(Delete(key))

    # -- reading ----------------------------------------------------------------------------------------------------

    def get(self, digest: Digest) -> Image | None:
        with self._lock:
            record = self._records.get(digest)
            return None if record is None else self._image(record)

    def named(self, reference: Reference) -> Digest | None:
        """The id a reference stands for now; a digest counts more than a tag beside it."""
        if reference.digest:
            reference = reference.without_tag()
        with self._lock:
            return self._names.get(reference.tagged())

    def all(self) -> list[Image]:
        with self._lock:
            names: dict[Digest, list[Reference]] = {}
            for name, target in self._names.items():
                names.setdefault(target, []).append(name)
            return [self._image(record, names.get(record.id, ())) for record in self._records.values()]

    def children(self, parent: Digest) -> list[Digest]:
        with self._lock:
            return [record.id for record in self._records.values() if record.parent == parent]

    def chains(self) -> set[ChainID]:
        """Every layer that belongs to an image."""
        with self._lock:
            return {chain for record in self._records.values() for chain in record.chains}

    def source(self, diff_id: str) -> Descriptor | None:
        """A blob some image has for a layer."""
        with self._lock:
            for record in self._records.values():
                for layer in record.layers:
                    if layer.diff_id == diff_id:
                        return layer.blob
        return None

    def packed(self, diff_id: str) -> Descriptor | None:
        """A compressed blob some image has for a layer."""
        with self._lock:
            for record in self._records.values():
                for layer in record.layers:
                    if layer.diff_id == diff_id and layer.blob.media_type != OCI_LAYER:
                        return layer.blob
        return None

    def repositories(self, blob: Digest) -> list[Reference]:
        """Names by digest (so: of a registry) of the images that have a blob."""
        with self._lock:
            having = {
                record.id
                for record in self._records.values()
                if any(layer.blob.content == blob for layer in record.layers)
            }
            return [name for name, target in self._names.items() if name.digest and target in having]

    def blobs(self) -> list[Digest]:
        """Every blob an image refers to: the collector's roots."""
        with self._lock:
            records = list(self._records.values())
        found = [record.id for record in records]
        found += [digest for record in records for digest in (record.manifest, record.index) if digest]
        return found + [layer.blob.content for record in records for layer in record.layers]

    def blobs_of(self, id: Digest) -> list[Digest]:
        """Every blob one image refers to; none when it is gone."""
        with self._lock:
            record = self._records.get(id)
        if record is None:
            return []
        found = [record.id, *(digest for digest in (record.manifest, record.index) if digest)]
        return found + [layer.blob.content for layer in record.layers]

    def layer_blobs(self, id: Digest) -> list[Digest]:
        """The packed form of each of an image's layers, lowest first."""
        with self._lock:
            record = self._records.get(id)
        return [] if record is None else [layer.blob.content for layer in record.layers]

    def find(self, text: str) -> Image:
        """By reference, digest, id or a prefix of an id that only one has; errors as docker words them."""
        with self._lock:
            found = self._find(text)
            if found is None:
                raise NotFound(f"No such image: {_shown(text)}", object=text)
            return self._image(self._records[found])

    # -- writing ----------------------------------------------------------------------------------------------------

    def put(self, record: Record, names: Iterable[Reference] = (), also: Iterable[Change] = ()) -> Image:
        """Record an image and point `names` at it, in one step with `also`."""
        with self._lock:
            known = self._records.get(record.id)
            if known is not None:
                # The same configuration again: keep what the first one knew and the second does not.
                record = replace(
                    record,
                    manifest=record.manifest or known.manifest,
                    index=record.index or known.index,
                    parent=record.parent or known.parent,
                    tagged_ns=known.tagged_ns,
                )
            names = list(names)
            if any(name.tag for name in names):
                record = replace(record, tagged_ns=time.time_ns())
            changes = [Put(_REFERENCES + str(name), record.id.encode()) for name in names]
            self._store.write(Put(_RECORDS + record.id, _write_record(record)), *changes, *also)
            self._records[record.id] = record
            self._names.update(dict.fromkeys(names, record.id))
            return self._image(record)

    def name(self, image: Digest, reference: Reference) -> Image:
        """Point one more reference at an image, taking it from whichever had it."""
        with self._lock:
            record = self._records.get(image)
            if record is None:
                raise NotFound(f"No such image: {image}", object=image)
            return self.put(record, [reference])

    def unname(self, reference: Reference) -> None:
        with self._lock:
            self._store.write(Delete(_REFERENCES + str(reference)))
            self._names.pop(reference, None)

    def repack(self, image: Digest, layers: tuple[Layer, ...]) -> Image:
        """Note other blobs for the same layers; NotFound when the image is gone."""
        with self._lock:
            record = self._records.get(image)
            if record is None:
                raise NotFound(f"No such image: {image}", object=image)
            # The manifest it came with names the blobs it had.
            return self._rewrite(replace(record, layers=layers, manifest=None, index=None))

    def pushed(self, image: Digest, name: Reference, manifest: Digest) -> None:
        """An image is in a registry, by this digest and manifest; gone meanwhile is no error."""
        with self._lock:
            record = self._records.get(image)
            if record is not None:
                self._rewrite(replace(record, manifest=record.manifest or manifest))
                self._store.write(Put(_REFERENCES + str(name), image.encode()))
                self._names[name] = image

    def _rewrite(self, record: Record) -> Image:
        self._store.write(Put(_RECORDS + record.id, _write_record(record)))
        self._records[record.id] = record
        return self._image(record)

    def delete(self, image: Digest) -> None:
        """Forget an image and its names."""
        with self._lock:
            names = [name for name, target in self._names.items() if target == image]
            self._store.write(Delete(_RECORDS + image), *(Delete(_REFERENCES + str(name)) for name in names))
            self._records.pop(image, None)
            for name in names:
                del self._names[name]

    # -- inside -----------------------------------------------------------------------------------------------------

    def _find(self, text: str) -> Digest | None:
        if _is_id(text):
            digest = Digest(text if ":" in text else f"sha256:{text}")
            return digest if digest in self._records else None
        found = self.named(parse_reference(text))
        if found is not None:
            return found
        prefix = text.removeprefix("sha256:")
        if not prefix:
            return None
        matches = [digest for digest in self._records if digest.partition(":")[2].startswith(prefix)]
        return matches[0] if len(matches) == 1 else None

    def _image(self, record: Record, names: Iterable[Reference] | None = None) -> Image:
        if names is None:
            names = [name for name, target in self._names.items() if target == record.id]
        return Image(
            id=record.id,
            config=record.config,
            names=tuple(sorted(names, key=str)),
            layers=record.chains,
            size=record.size,
            parent=record.parent,
            tagged_ns=record.tagged_ns,
            sources=record.layers,
            manifest=record.manifest,
        )


def _is_id(text: str) -> bool:
    try:
        parse_digest(text if ":" in text else f"sha256:{text}")
    except InvalidArgument:
        return False
    return True


def _shown(text: str) -> str:
    if _is_id(text):
        return text if ":" in text else f"sha256:{text}"
    return parse_reference(text).tagged().familiar


def _write_record(record: Record) -> bytes:
    layers = [{"diff_id": layer.diff_id, "blob": encode(layer.blob)} for layer in record.layers]
    return json.dumps(
        {
            "layers": layers,
            "size": record.size,
            "manifest": record.manifest,
            "index": record.index,
            "parent": record.parent,
            "tagged_ns": record.tagged_ns,
        }
    ).encode()


def _parse_record(digest: Digest, config: ImageConfig, value: dict[str, Any]) -> Record:
    layers = tuple(Layer(DiffID(item["diff_id"]), decode(Descriptor, item["blob"])) for item in value["layers"])
    return Record(
        id=digest,
        config=config,
        layers=layers,
        size=value["size"],
        manifest=value["manifest"],
        index=value["index"],
        parent=value["parent"],
        tagged_ns=value["tagged_ns"],
    )
