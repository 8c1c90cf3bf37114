"""What was built before: from the key of an operation and its inputs to the layer it made. Kept in the state store.

    build/cache/<key>    {"chain", "parent", "diff_id", "size", "packed", "created_ns", "used_ns", "uses", "kind", ...}

A record owns its layer until it is pruned: the images room leaves it alone meanwhile. Times of use are written when a
build ends, not at each hit. Any thread may call.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from threading import RLock
from typing import NamedTuple, Protocol

from wherry.images.build_result import BuildResults, Built
from wherry.spec.digest import ChainID, DiffID
from wherry.spec.oci_image import Descriptor
from wherry.state import Delete, Put, Store

_PREFIX = "build/cache/"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRecord:
    """One operation's result. Times in nanoseconds since 1970. `detail` is what --explain-cache compares."""

    key: str
    chain: ChainID
    parent: ChainID | None
    diff_id: DiffID
    size: int
    packed: int
    created_ns: int
    used_ns: int
    uses: int = 0
    kind: str = "regular"
    title: str = ""
    detail: str = ""
    blob: Descriptor | None = None
    """Of one that is an image's and in no store."""

    @property
    def built(self) -> Built:
        return Built(self.chain, self.diff_id, self.size, self.packed, self.blob)


class HasLayers(Protocol):
    def has(self, chain: ChainID) -> bool: ...


class Pruned(NamedTuple):
    """What went and why: "age", "size", "all"; `size` in bytes."""

    record: CacheRecord
    reason: str


class BuildCache:
    """The records of one daemon."""

    def __init__(self, store: Store, results: BuildResults, layers: HasLayers) -> None:
        self._store, self._results, self._layers = store, results, layers
        self._lock = RLock()
        self._records: dict[str, CacheRecord] = {}
        self._kept: Counter[ChainID] = Counter()
        self._dirty: set[str] = set()
        for key, value in store.scan(_PREFIX):
            record = _load(key.removeprefix(_PREFIX), value)
            if record is None or not layers.has(record.chain):
                # The layer went with a power cut; it will be built again.
                store.write(Delete(key))
                continue
            self._keep(record)
        results.keep(self.keeps)

    def keeps(self, chain: ChainID) -> bool:
        return self._kept[chain] > 0

    def find(self, key: str) -> CacheRecord | None:
        """The result for a key, marked as used."""
        with self._lock:
            record = self._records.get(key)
            if record is None or not self._layers.has(record.chain):
                return None
            self._records[key] = replace(record, used_ns=time.time_ns(), uses=record.uses + 1)
            self._dirty.add(key)
            return record

    def add(self, key: str, built: Built, parent: ChainID | None, *, title: str, kind: str, detail: str) -> CacheRecord:
        """Record a result; the layer is no longer provisional."""
        now = time.time_ns()
        record = CacheRecord(
            key=key,
            chain=built.chain,
            parent=parent,
            diff_id=built.diff_id,
            size=built.size,
            packed=built.packed,
            created_ns=now,
            used_ns=now,
            title=title,
            kind=kind,
            detail=detail,
        )
        with self._lock:
            self._store.write(Put(_PREFIX + key, _dump(record)), *self._results.adopted([built.chain]))
            self._forget(key)
            self._keep(record)
        return record

    def flush(self) -> None:
        """Write the times of use."""
        with self._lock:
            changes = [Put(_PREFIX + key, _dump(self._records[key])) for key in self._dirty if key in self._records]
            self._dirty.clear()
            if changes:
                self._store.write(*changes)

    def records(self) -> list[CacheRecord]:
        with self._lock:
            return list(self._records.values())

    def in_use(self, record: CacheRecord) -> bool:
        """Whether another record stands on it."""
        with self._lock:
            return any(other.parent == record.chain for other in self._records.values())

    def remove(self, keys: Iterable[str]) -> int:
        """Forget records and remove the layers only they kept; the bytes freed."""
        with self._lock:
            gone = [self._records[key] for key in keys if key in self._records]
            self._store.write(*(Delete(_PREFIX + record.key) for record in gone))
            for record in gone:
                self._forget(record.key)
            chains = [record.chain for record in gone if not self._kept[record.chain]]
        # Newest first: what stands on others goes before them.
        ordered = [record.chain for record in sorted(gone, key=lambda one: one.created_ns) if record.chain in chains]
        return sum(self._results.drop([chain]) for chain in reversed(list(dict.fromkeys(ordered))))

    def prune(
        self,
        *,
        unused_since_ns: int | None = None,
        keep_bytes: int = 0,
        select: Callable[[CacheRecord], bool] = lambda record: True,
    ) -> tuple[Sequence[Pruned], int]:
        """Least recently used first: those not used since a time, and until no more than `keep_bytes` are left."""
        records = sorted(filter(select, self.records()), key=lambda record: record.used_ns)
        total = sum(record.size for record in records)
        gone: list[Pruned] = []
        for record in records:
            if unused_since_ns is not None and record.used_ns >= unused_since_ns:
                continue
            if keep_bytes and total <= keep_bytes:
                break
            reason = "age" if unused_since_ns is not None else "size" if keep_bytes else "all"
            gone.append(Pruned(record, reason))
            total -= record.size
        freed = self.remove([one.record.key for one in gone])
        return gone, freed

    def _keep(self, record: CacheRecord) -> None:
        self._records[record.key] = record
        self._kept[record.chain] += 1

    def _forget(self, key: str) -> None:
        record = self._records.pop(key, None)
        self._dirty.discard(key)
        if record is not None:
            self._kept[record.chain] -= 1


def _dump(record: CacheRecord) -> bytes:
    fields = asdict(record)
    del fields["key"], fields["blob"]
    return json.dumps(fields, separators=(",", ":")).encode()


def _load(key: str, value: bytes) -> CacheRecord | None:
    try:
        return CacheRecord(key=key, **json.loads(value))
    except (ValueError, TypeError):
        return None
