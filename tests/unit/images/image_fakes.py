"""A snapshotter that keeps its layers in memory, and images to put into it."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from wherry.content import ContentStore
from wherry.errors import Conflict, InvalidArgument
from wherry.images import Images
from wherry.spec.digest import ChainID, DiffID, chain_ids
from wherry.state import MemoryStore, Store


class FakeSnapshots:
    """What images need of a Snapshotter; `held` are layers a container stands on."""

    def __init__(self) -> None:
        self.layers: dict[ChainID, tuple[ChainID | None, bytes]] = {}
        self.held: set[ChainID] = set()

    def has(self, chain: ChainID) -> bool:
        return chain in self.layers

    def layer_size(self, chain: ChainID) -> int:
        with tarfile.open(fileobj=io.BytesIO(self.layers[chain][1])) as tar:
            return sum(entry.size for entry in tar if entry.isreg())

    def apply(
        self, parent: ChainID | None, diff_id: DiffID, tar: BinaryIO, *, ready: Callable[[], object] | None = None
    ) -> ChainID:
        data = tar.read()
        if ready is not None:
            ready()
        assert parent is None or parent in self.layers
        if "sha256:" + hashlib.sha256(data).hexdigest() != diff_id:
            raise InvalidArgument(f"layer is not {diff_id}")
        chain = chain_ids([DiffID(parent), diff_id])[-1] if parent else ChainID(diff_id)
        self.layers[chain] = (parent, data)
        return chain

    def remove_layer(self, chain: ChainID) -> None:
        if chain in self.held or any(parent == chain for parent, _ in self.layers.values()):
            raise Conflict(f"{chain} is in use")
        self.layers.pop(chain, None)


class Bench:
    """Images on a directory, with their parts at hand; `restart` is what a new daemon would see."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store: Store = MemoryStore()
        self.snapshots = FakeSnapshots()
        self.restart()

    def restart(self) -> None:
        self.content = ContentStore(self.root / "content", self.store)
        self.images = Images(self.root, self.store, self.content, self.snapshots, retry_seconds=0.001)

    def leftovers(self) -> dict[str, Any]:
        """Everything that should be gone when there are no images."""
        ingests = [path.name for path in (self.root / "content/ingests").iterdir()]
        blobs = [info.digest for info in self.content.walk()]
        keys = [key for key, _ in self.store.scan("")]
        return {"ingests": ingests, "blobs": blobs, "layers": list(self.snapshots.layers), "keys": keys}


NOTHING: dict[str, Any] = {"ingests": [], "blobs": [], "layers": [], "keys": []}


def make_tar(files: Mapping[str, bytes]) -> bytes:
    """A tar of regular files, the same bytes for the same files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def hex_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_config(*layers: bytes, **changes: Any) -> bytes:
    """An image configuration over uncompressed layers."""
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-01-02T03:04:05.678Z",
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hex_of(layer)}" for layer in layers]},
            "history": [{"created_by": f"step {number}"} for number in range(len(layers))],
        }
        | changes
    ).encode()
