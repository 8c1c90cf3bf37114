"""The layers on disk, and their index in memory.

    <root>/layers/<name>/layer.json     what it is
    <root>/layers/<name>/diff/          its tree
    <root>/layers/<name>/unflushed      the boot during which it was made; removed once it is known to be on disk
    <root>/incoming/<name>/             on its way

Names are short numbers: overlay mounts list them. A layer is made in `incoming` and renamed, so it is there whole or
not at all as far as processes can crash. Against power cuts nothing is waited for: the flush comes later, in the
background, and a layer that is still marked unflushed after a reboot is not believed but discarded, with what stands
on it; its blobs are still there to be applied again, or to be pulled.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable
from itertools import count
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from wherry.archive import Readable, UnpackResult
from wherry.errors import InvalidArgument, NotFound
from wherry.kernel.files import syncfs
from wherry.kernel.sweeper import Sweeper
from wherry.snapshots._janitor import Janitor
from wherry.snapshots._stream import DigestingStream
from wherry.spec.digest import ChainID, DiffID, sha256

_UNFLUSHED = "unflushed"


class Layer(NamedTuple):
    name: str
    chain: ChainID
    parent: ChainID | None
    diff_id: DiffID
    size: int
    path: str  # of diff/


# The layers below, top first; may wait until they are there.
Below = Callable[[], tuple[Layer, ...]]
# Unpacks the stream into the directory.
Fill = Callable[[DigestingStream, Path, Below], UnpackResult]


class Layers:
    def __init__(self, root: Path, sweeper: Sweeper) -> None:
        self._layers, self._incoming = root / "layers", root / "incoming"
        for directory in (self._layers, self._incoming):
            directory.mkdir(parents=True, exist_ok=True)
        self.janitor = Janitor(root / "trash", self.flush, sweeper)
        self._boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self._lock = Lock()
        self._making: defaultdict[ChainID, Lock] = defaultdict(Lock)
        self._found: dict[ChainID, Layer] = {}
        self._unflushed: set[str] = set()
        for leftover in self._incoming.iterdir():
            self.janitor.discard(leftover)
        self._load()
        numbers = [int(layer.name, 36) for layer in self._found.values()]
        self._numbers = count(max(numbers, default=0) + 1)
        if self._unflushed:
            self.janitor.settle()

    def find(self, chain: ChainID) -> Layer | None:
        return self._found.get(chain)

    def get(self, chain: ChainID) -> Layer:
        layer = self._found.get(chain)
        if layer is None:
            raise NotFound(f"layer {chain} does not exist", object=chain)
        return layer

    def lineage(self, chain: ChainID | None) -> tuple[Layer, ...]:
        """The layer and those below it, top first."""
        found = []
        while chain is not None:
            layer = self.get(chain)
            found.append(layer)
            chain = layer.parent
        return tuple(found)

    def chains(self) -> list[ChainID]:
        return list(self._found)

    def has_child(self, chain: ChainID) -> bool:
        return any(layer.parent == chain for layer in list(self._found.values()))

    def add(
        self,
        parent: ChainID | None,
        diff_id: DiffID,
        tar: Readable,
        fill: Fill,
        ready: Callable[[], object] | None = None,
    ) -> ChainID:
        """Make a layer by `fill` and verify it; what is there already is not made again."""

        def below() -> tuple[Layer, ...]:
            if ready is not None:
                ready()
            return self.lineage(parent)

        if ready is None:
            self.lineage(parent)
        chain = ChainID(sha256(f"{parent} {diff_id}".encode())) if parent else ChainID(diff_id)
        with self._lock:
            making = self._making[chain]
        with making:
            if chain in self._found:
                return chain
            name = _base36(next(self._numbers))
            incoming = self._incoming / name
            incoming.mkdir(mode=0o700)
            try:
                layer = self._make(incoming, Layer(name, chain, parent, diff_id, 0, ""), tar, below, fill)
            except BaseException:
                self.janitor.discard(incoming)
                raise
        with self._lock:
            self._making.pop(chain, None)
        self.janitor.settle()
        return layer.chain

    def adopt(self, parent: ChainID | None, diff_id: DiffID, size: int, tree: str) -> ChainID:
        """Make the directory `tree`, on the same file system and in a layer's own form, the layer that `diff_id` names.

        The caller vouches for the digest. There already: `tree` stays where it is.
        """
        chain = ChainID(sha256(f"{parent} {diff_id}".encode())) if parent else ChainID(diff_id)
        with self._lock:
            making = self._making[chain]
        with making:
            if chain in self._found:
                return chain
            if parent is not None:
                self.get(parent)
            name = _base36(next(self._numbers))
            incoming = self._incoming / name
            incoming.mkdir(mode=0o700)
            try:
                os.rename(tree, incoming / "diff")
                self._publish(incoming, Layer(name, chain, parent, diff_id, size, ""))
            except BaseException:
                self.janitor.discard(incoming)
                raise
        with self._lock:
            self._making.pop(chain, None)
        self.janitor.settle()
        return chain

    def remove(self, layer: Layer) -> None:
        del self._found[layer.chain]
        self._unflushed.discard(layer.name)
        self.janitor.discard(self._layers / layer.name)

    def _make(self, incoming: Path, wanted: Layer, tar: Readable, below: Below, fill: Fill) -> Layer:
        diff = incoming / "diff"
        diff.mkdir(mode=0o755)
        diff.chmod(0o755)
        with DigestingStream(tar, wanted.diff_id.partition(":")[0]) as stream:
            result = fill(stream, diff, below)
            digest = DiffID(stream.digest())
        if digest != wanted.diff_id:
            raise InvalidArgument(
                f"layer is {digest}, not {wanted.diff_id} as announced", object=wanted.diff_id, hint="pull it again"
            )
        # A layer is never there before the one it stands on.
        below()
        return self._publish(incoming, wanted._replace(size=result.size))

    def _publish(self, incoming: Path, wanted: Layer) -> Layer:
        final = self._layers / wanted.name
        layer = wanted._replace(path=str(final / "diff"))
        (incoming / "layer.json").write_text(json.dumps({k: getattr(layer, k) for k in _KEPT}))
        (incoming / _UNFLUSHED).write_text(self._boot)
        self._unflushed.add(layer.name)
        os.rename(incoming, final)
        self._found[layer.chain] = layer
        return layer

    def _load(self) -> None:
        """Index what is there; discard what cannot be trusted, and what stands on it."""
        read = {}
        for directory in self._layers.iterdir():
            layer = self._read(directory)
            if layer is None:
                self.janitor.discard(directory)
            else:
                read[layer.chain] = layer
        for layer in read.values():
            above: Layer | None = layer
            while above is not None and above.parent is not None:
                above = read.get(above.parent)
            if above is None:
                self.janitor.discard(self._layers / layer.name)
            else:
                self._found[layer.chain] = layer

    def _read(self, directory: Path) -> Layer | None:
        try:
            fields = json.loads((directory / "layer.json").read_text())
            layer = Layer(directory.name, path=str(directory / "diff"), **fields)
        except (OSError, ValueError, TypeError):
            return None
        try:
            if (directory / _UNFLUSHED).read_text() != self._boot:
                return None
            self._unflushed.add(layer.name)
        except FileNotFoundError:
            pass
        return layer if layer.chain and (directory / "diff").is_dir() else None

    def flush(self) -> None:
        """Every layer made before this call is on disk after it, and its mark is gone."""
        names = list(self._unflushed)
        fd = os.open(self._layers, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(fd)
        finally:
            os.close(fd)
        for name in names:
            (self._layers / name / _UNFLUSHED).unlink(missing_ok=True)
            self._unflushed.discard(name)


_KEPT = ("chain", "parent", "diff_id", "size")


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits
