"""Pulling from the real registry server (Debian's docker-registry), with and without basic authentication."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from registry_server import Server, find_program, layer

from wherry.content import ContentStore
from wherry.errors import NotFound, WherryError
from wherry.images import Images, RegistryAuth
from wherry.snapshots import OverlaySnapshotter
from wherry.state import MemoryStore

pytestmark = pytest.mark.root

PATTERN = os.urandom(1 << 16)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    return find_program(tmp_path_factory)


@pytest.fixture
def images(tmp_path: Path) -> Iterator[tuple[Images, OverlaySnapshotter]]:
    store = MemoryStore()
    snapshots = OverlaySnapshotter(tmp_path / "snapshots")
    yield Images(tmp_path, store, ContentStore(tmp_path / "content", store), snapshots, retry_seconds=0.01), snapshots
    snapshots.close()


def test_pull_unpack_and_remove(program: str, tmp_path: Path, images: tuple[Images, OverlaySnapshotter]) -> None:
    front, snapshots = images
    server = Server(program, tmp_path, protected=False)
    try:
        tree = [layer("big", PATTERN * 50), layer("small", b"small")]
        id = server.push("me/app", "1", tree)
        image = asyncio.run(front.pull(f"{server.address}/me/app:1", None, None, lambda message: None))
        assert (image.id, image.size) == (id, len(PATTERN) * 50 + 5)
        snapshots.prepare("container", image.chain)
        root = snapshots.open_root("container")
        try:
            with open(os.open("big", os.O_RDONLY, dir_fd=root), "rb") as big:
                assert big.read() == PATTERN * 50
        finally:
            os.close(root)
        front.remove(image.id, force=True, in_use=lambda id: [])
        assert snapshots.has(image.layers[1])
        snapshots.remove("container")
        front.collect()
        assert snapshots.layers() == []
        with pytest.raises(NotFound, match=r"manifest for .* not found: manifest unknown"):
            asyncio.run(front.pull(f"{server.address}/me/app:2", None, None, lambda message: None))
        with pytest.raises(WherryError, match="not found"):
            asyncio.run(front.pull(f"{server.address}/me/none:1", None, None, lambda message: None))
    finally:
        server.stop()


def test_basic_authentication(program: str, tmp_path: Path, images: tuple[Images, OverlaySnapshotter]) -> None:
    open_server = Server(program, tmp_path, protected=False)
    try:
        id = open_server.push("me/app", "1", [layer("file", b"1")])
    finally:
        open_server.stop()
    server = Server(program, tmp_path, protected=True)
    name = f"{server.address}/me/app:1"
    try:
        with pytest.raises(WherryError, match="no basic auth credentials"):
            asyncio.run(images[0].pull(name, None, None, lambda message: None))
        with pytest.raises(WherryError, match="unauthorized: authentication required"):
            asyncio.run(images[0].pull(name, None, RegistryAuth("joe", "bad"), lambda message: None))
        assert asyncio.run(images[0].pull(name, None, RegistryAuth("joe", "pw"), lambda message: None)).id == id
    finally:
        server.stop()
