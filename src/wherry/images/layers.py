"""Layers from blobs to snapshots, and away again when no image needs them.

A layer is *provisional* from just before it is unpacked until an image that has it is recorded: the note in the state
store is what lets a restart find the layers of a pull that died. While an operation works on a layer it is *pinned*:
removing another image that shares it leaves it alone.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock, RLock
from types import TracebackType
from typing import BinaryIO, NamedTuple, Protocol

from wherry.content import ContentStore
from wherry.errors import Conflict
from wherry.images.compression import decompressed
from wherry.spec.digest import ChainID, DiffID, Digest, chain_ids
from wherry.state import Delete, Put, Store

_PROVISIONAL = "images/provisional/"
_SPACE_KEPT = 64 << 20
# Each is a thread that inflates, one that hashes and one that makes files, and some 10 MB.
UNPACKED_AT_ONCE = max(2, min(4, os.cpu_count() or 2))


class LayerStore(Protocol):
    """The part of a Snapshotter that images need; see docs/architecture.md."""

    def has(self, chain: ChainID) -> bool: ...
    def layer_size(self, chain: ChainID) -> int: ...
    def layers(self) -> list[ChainID]: ...
    def apply(
        self, parent: ChainID | None, diff_id: DiffID, tar: BinaryIO, *, ready: Callable[[], object] | None = None
    ) -> ChainID: ...
    def remove_layer(self, chain: ChainID) -> None: ...


class Packed(NamedTuple):
    """Where a layer's bytes are had, who is told how many were read, and who waits for the layer below."""

    blob: Digest
    open: Callable[[], BinaryIO]
    on_read: Callable[[int], None] | None
    ready: Callable[[], object] | None


class Pins:
    """The layers one operation works on; leaving its `with` block lets go of them."""

    def __init__(self, layers: "Layers") -> None:
        self._layers = layers
        self._pinned: list[ChainID] = []

    def unpack(
        self,
        parent: ChainID | None,
        diff_id: DiffID,
        blob: Digest,
        on_read: Callable[[int], None] | None = None,
        *,
        source: Callable[[], BinaryIO] | None = None,
        ready: Callable[[], object] | None = None,
    ) -> ChainID:
        """Make the layer `diff_id` on top of `parent` from its blob, unless it is there already.

        `source` opens the blob where it is not in the content store yet; `ready` waits for a parent still being made.
        """
        chain = chain_ids([DiffID(parent), diff_id])[-1] if parent else ChainID(diff_id)
        self.pin(chain)
        packed = source or (lambda: self._layers.content.open(blob))
        self._layers.unpack(parent, diff_id, chain, Packed(blob, packed, on_read, ready))
        return chain

    def unpack_all(self, layers: Sequence[tuple[DiffID, Digest, Callable[[int], None]]]) -> list[ChainID]:
        """Make a whole stack of layers, several at once."""
        chains = chain_ids([diff_id for diff_id, _, _ in layers])
        made: list[Future[ChainID]] = []
        # Begun from the bottom up: whoever waits for a layer below waits for one that is being made.
        with ThreadPoolExecutor(UNPACKED_AT_ONCE, thread_name_prefix="unpack") as pool:
            for number, (diff_id, blob, on_read) in enumerate(layers):
                parent = chains[number - 1] if number else None
                ready = made[-1].result if made else None
                made.append(pool.submit(self.unpack, parent, diff_id, blob, on_read, ready=ready))
        for layer in made:
            layer.result()
        return list(chains)

    def pin(self, chain: ChainID) -> bool:
        """Protect a layer; whether it is there already."""
        self._pinned.append(chain)
        return self._layers.pin(chain)

    def __enter__(self) -> "Pins":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._layers.unpin(self._pinned)


class Layers:
    """Unpacks and removes layers for all operations at once. Every method may be called from any thread."""

    def __init__(self, data_root: Path, store: Store, content: ContentStore, snapshots: LayerStore) -> None:
        self._data_root = data_root
        self._store = store
        self.content = content
        self._snapshots = snapshots
        # One guard for "may it go" and for "it is there, I use it": without it a layer could vanish between the two.
        self._guard = RLock()
        self._pinned: Counter[ChainID] = Counter()
        self._unpacking: dict[ChainID, Lock] = {}
        self.keepers: list[Callable[[ChainID], bool]] = []
        """Who else keeps layers, beside images and containers: the build cache."""
        self.waiting = True
        """Whether there may be layers that only a container still keeps: at start, and when a removal leaves some."""

    def pins(self) -> Pins:
        """Pins for one operation."""
        return Pins(self)

    def pin(self, chain: ChainID) -> bool:
        with self._guard:
            self._pinned[chain] += 1
            return self._snapshots.has(chain)

    def unpin(self, chains: Iterable[ChainID]) -> None:
        with self._guard:
            self._pinned.subtract(chains)
            self._pinned += Counter()
            for chain in [chain for chain in self._unpacking if chain not in self._pinned]:
                del self._unpacking[chain]

    def unpack(
        self,
        parent: ChainID | None,
        diff_id: DiffID,
        chain: ChainID,
        packed: Packed,
    ) -> None:
        """Unpack a blob as the (pinned) layer `chain`; a second caller waits for the first and finds it done."""
        with self._guard:
            turn = self._unpacking.setdefault(chain, Lock())
        with turn:
            if self._snapshots.has(chain):
                return
            self._store.write(Put(_PROVISIONAL + chain, b"{}"))
            with packed.open() as blob:
                name = f"layer {packed.blob}"
                with decompressed(blob, limit=self.space(), name=name, on_read=packed.on_read) as tar:
                    self._snapshots.apply(parent, diff_id, tar, ready=packed.ready)

    def note(self, chain: ChainID) -> None:
        """Before a layer is made: a restart that finds it unrecorded removes it."""
        self._store.write(Put(_PROVISIONAL + chain, b"{}"))

    def has(self, chains: Sequence[ChainID]) -> bool:
        """Whether all of these layers are there."""
        return all(map(self._snapshots.has, chains))

    def sizes(self, chains: Sequence[ChainID]) -> list[int]:
        return [self._snapshots.layer_size(chain) for chain in chains]

    def adopted(self, chains: Iterable[ChainID]) -> list[Delete]:
        """The changes that make provisional layers permanent: part of the batch that records their image."""
        return [Delete(_PROVISIONAL + chain) for chain in chains]

    def adopt(self, chains: Iterable[ChainID]) -> None:
        """Make provisional layers permanent: their image is recorded already."""
        self._store.write(*self.adopted(chains))

    def strays(self, needed: Collection[ChainID]) -> list[ChainID]:
        """Layers no image has, and of which no note says so."""
        with self._guard:
            noted = {key.removeprefix(_PROVISIONAL) for key, _ in self._store.scan(_PROVISIONAL)}
            found = self._snapshots.layers()
            return [chain for chain in found if not (chain in needed or chain in noted or self._pinned[chain])]

    def release(self, chain: ChainID, needed: Callable[[], Collection[ChainID]]) -> None:
        """Let a stray layer go as soon as no container stands on it."""
        with self._guard:
            if chain not in needed() and not self._pinned[chain]:
                self._store.write(Put(_PROVISIONAL + chain, b"{}"))
        self.sweep(lambda found: found in needed())

    def remove(self, chains: Sequence[ChainID], needed: Callable[[ChainID], bool]) -> list[tuple[ChainID, int]]:
        """Remove an image's layers from the top down, as far as nothing else needs them; those gone and their sizes.

        What a container still stands on stays, as a provisional layer: `sweep` takes it once the container is gone.
        """
        gone: list[tuple[ChainID, int]] = []
        for chain in reversed(chains):
            with self._guard:
                if needed(chain) or self._kept(chain):
                    break
                if not self._snapshots.has(chain):
                    continue
                size = self._snapshots.layer_size(chain)
                self._store.write(Put(_PROVISIONAL + chain, b"{}"))
                if self._pinned[chain]:
                    continue
                try:
                    self._snapshots.remove_layer(chain)
                except Conflict:
                    self.waiting = True
                    continue
                self._store.write(Delete(_PROVISIONAL + chain))
                gone.append((chain, size))
        return gone

    def sweep(self, needed: Callable[[ChainID], bool]) -> int:
        """Remove provisional layers that belong to no image, operation or container; how many went."""
        removed = 0
        left = [ChainID(key.removeprefix(_PROVISIONAL)) for key, _ in self._store.scan(_PROVISIONAL)]
        progress = True
        while left and progress:
            # Children before parents, whose order the keys do not tell: repeat while something goes.
            progress = False
            for chain in list(left):
                with self._guard:
                    if self._pinned[chain]:
                        left.remove(chain)
                        continue
                    if not needed(chain) and not self._kept(chain) and self._snapshots.has(chain):
                        try:
                            self._snapshots.remove_layer(chain)
                        except Conflict:
                            continue
                        removed += 1
                    self._store.write(Delete(_PROVISIONAL + chain))
                left.remove(chain)
                progress = True
        self.waiting = bool(left)
        return removed

    def _kept(self, chain: ChainID) -> bool:
        return any(keeps(chain) for keeps in self.keepers)

    def space(self) -> int:
        """How large a layer may become: what the disk has, less a reserve for everybody else."""
        disk = os.statvfs(self._data_root)
        return max(disk.f_bavail * disk.f_frsize - _SPACE_KEPT, 0)
