"""What every snapshotter of layers on disk does alike: the layers' index, and the writables' names and life cycle.

<root>/layers/...                        see _layers
<root>/writable/<key>@<layer>[@e]/       of one container; the name holds all there is to know of it
"""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from wherry.archive import Readable, UnpackResult
from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.kernel.sweeper import Sweeper
from wherry.snapshots._layers import Below, Layer, Layers
from wherry.snapshots._stream import DigestingStream
from wherry.spec.digest import ChainID, DiffID

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_NOTHING = "-"
_EPHEMERAL = "e"


class Writable(NamedTuple):
    path: str
    layer: Layer | None
    ephemeral: bool


class LayeredSnapshotter(ABC):
    """Implements the contract but for what depends on how trees are put together.

    `root` is made when absent. What is removed goes to `sweeper`, by default one of its own; `close` closes it.
    """

    def __init__(self, root: Path, sweeper: Sweeper | None = None) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._layers = Layers(root, sweeper or Sweeper(f"wherry sweeper {root}"))
        self._janitor = self._layers.janitor
        self._root, self._directory = str(root), str(root / "writable")
        with suppress(FileExistsError):
            os.mkdir(self._directory, 0o700)
        self._lock = Lock()
        self._writables: dict[str, Writable] = {}

    def has(self, chain: ChainID) -> bool:
        return self._layers.find(chain) is not None

    def layer_size(self, chain: ChainID) -> int:
        return self._layers.get(chain).size

    def apply(
        self, parent: ChainID | None, diff_id: DiffID, tar: Readable, *, ready: Callable[[], object] | None = None
    ) -> ChainID:
        return self._layers.add(parent, diff_id, tar, self._fill, ready)

    def remove_layer(self, chain: ChainID) -> None:
        with self._lock:
            layer = self._layers.get(chain)
            if self._layers.has_child(chain) or any(w.layer == layer for w in self._writables.values()):
                raise Conflict(f"layer {chain} is in use", object=chain)
            self._layers.remove(layer)

    def layers(self) -> list[ChainID]:
        return self._layers.chains()

    def prepare(self, key: str, parent: ChainID | None, *, ephemeral: bool = False) -> None:
        if not _KEY.fullmatch(key):
            raise InvalidArgument(f"invalid snapshot key {key!r}", object=key)
        with self._lock:
            layer = None if parent is None else self._layers.get(parent)
            there = self._writables.get(key)
            if there is not None:
                if there.layer != layer:
                    raise Conflict(f"snapshot {key} stands on another layer already", object=key)
                return
            name = f"{key}@{layer.name if layer else _NOTHING}" + (f"@{_EPHEMERAL}" if ephemeral else "")
            writable = Writable(f"{self._directory}/{name}", layer, ephemeral)
            self._complete(writable)
            self._writables[key] = writable

    def remove(self, key: str) -> None:
        with self._lock:
            writable = self._writables.pop(key, None)
            if writable is not None:
                with suppress(FileNotFoundError):
                    self._janitor.discard(writable.path)

    def keys(self) -> list[str]:
        return list(self._writables)

    def flush(self) -> None:
        """Wait until every layer is on disk; done in the background otherwise."""
        self._layers.flush()

    def close(self) -> None:
        self._janitor.close()

    @abstractmethod
    def _fill(self, stream: DigestingStream, diff: Path, below: Below) -> UnpackResult:
        """Unpack a layer into the new directory `diff`; `below` may have to wait for the layers below."""

    @abstractmethod
    def _complete(self, writable: Writable) -> None:
        """Make what lacks of a writable, be it all; a crash may have come at any point of the last time."""

    def _get(self, key: str) -> Writable:
        found = self._writables.get(key)
        if found is None:
            raise NotFound(f"snapshot {key} does not exist", object=key)
        return found

    def _load(self) -> None:
        """Find the writables there are; what stands on a layer that is gone goes too."""
        by_name = {layer.name: layer for layer in map(self._layers.get, self._layers.chains())}
        for name in os.listdir(self._directory):
            key, _, rest = name.partition("@")
            layer_name, _, flag = rest.partition("@")
            path = f"{self._directory}/{name}"
            if layer_name != _NOTHING and layer_name not in by_name:
                self._janitor.discard(path)
                continue
            writable = Writable(path, by_name.get(layer_name), flag == _EPHEMERAL)
            self._complete(writable)
            self._writables[key] = writable


@contextmanager
def opened(path: str | Path) -> Iterator[int]:
    """A directory of ours, open for listing."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
