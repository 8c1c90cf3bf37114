"""Pushing to registry servers in processes of their own: what goes over the wire, and what does not."""

import asyncio
import contextlib
import io
import secrets
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from registry_process import RegistryClient, RegistryProcess
from wherry.content import ContentStore
from wherry.errors import NotFound, PermissionDenied, Unauthenticated, WherryError
from wherry.images import Images, RegistryAuth
from wherry.snapshots import OverlaySnapshotter
from wherry.state import MemoryStore

pytestmark = pytest.mark.root
NOISE = secrets.token_bytes(3 << 20)


class Machine:
    """The images room of one daemon."""

    def __init__(self, root: Path) -> None:
        store = MemoryStore()
        self.snapshots = OverlaySnapshotter(root / "snapshots")
        self.content = ContentStore(root / "content", store)
        self.images = Images(root, store, self.content, self.snapshots, retry_seconds=0.01)
        self.told: list[dict[str, Any]] = []

    def import_(self, name: str, **files: bytes) -> str:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for path, data in files.items():
                entry = tarfile.TarInfo(path)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        packed.seek(0)
        return self.images.import_(packed, name).id

    def push(self, name: str, auth: RegistryAuth | None = None) -> set[str]:
        """What it said of layers."""
        self.told = []
        asyncio.run(self.images.push(name, auth, self.told.append))
        return {str(message["status"]) for message in self.told if "id" in message}

    @property
    def digest(self) -> str:
        return str(next(message["aux"]["Digest"] for message in self.told if "aux" in message))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "here")
    yield made
    made.snapshots.close()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "there")
    yield made
    made.snapshots.close()


def test_what_is_pushed_can_be_pulled_elsewhere(tmp_path: Path, machine: Machine, elsewhere: Machine) -> None:
    with RegistryProcess(tmp_path / "r") as registry:
        name = f"{registry.address}/team/app:1"
        id = machine.import_(name, noise=NOISE, text=b"x" * 100_000)
        assert machine.push(name) == {"Preparing", "Pushing", "Pushed"}
        pulled = asyncio.run(elsewhere.images.pull(name, None, None, lambda message: None))
        assert (pulled.id, pulled.size) == (id, len(NOISE) + 100_000)
        assert pulled.digests == (f"{registry.address}/team/app@{machine.digest}",)
        assert machine.images.resolve(name).digests == pulled.digests
        # Compressed once: the same bytes again, and the plain tar is not kept beside them.
        first = machine.digest
        assert machine.push(name) == {"Preparing", "Layer already exists"}
        assert machine.digest == first
        machine.images.collect()
        assert sum(info.size for info in machine.content.walk()) < len(NOISE) + 50_000
        # Another repository of the registry gets it without a byte sent; who pulled it pushes the same manifest.
        for one in (machine, elsewhere):
            one.images.tag(one.images.resolve(name), f"{registry.address}/other/copy:1")
            assert one.push(f"{registry.address}/other/copy:1") & {"Mounted from team/app", "Layer already exists"}
            assert one.digest == first


def test_all_tags_of_a_repository(tmp_path: Path, machine: Machine) -> None:
    with RegistryProcess(tmp_path / "r") as registry:
        for tag in ("a", "b"):
            machine.import_(f"{registry.address}/app:{tag}", text=tag.encode())
        machine.push(f"{registry.address}/app")
        assert RegistryClient(registry.address).ask("GET", "/v2/app/tags/list").json["tags"] == ["a", "b"]
        with pytest.raises(NotFound, match="An image does not exist locally with the tag"):
            machine.push(f"{registry.address}/absent")


@pytest.mark.parametrize("tokens", [False, True])
def test_credentials(tmp_path: Path, machine: Machine, tokens: bool) -> None:
    (tmp_path / "htpasswd").write_text(f"alice:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    (tmp_path / "access").write_text(
        '[[access]]\nrepositories = "team/*"\nusers = ["alice"]\nactions = ["pull", "push"]\n'
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = ["--htpasswd", str(tmp_path / "htpasswd"), "--access", str(tmp_path / "access")]
    if tokens:
        flags += ["--issue-tokens", "--token-realm", f"http://{address}/token"]
    with RegistryProcess(tmp_path / "r", *flags, listen=address):
        machine.import_(f"{address}/team/app:1", text=b"text")
        machine.import_(f"{address}/other/app:1", text=b"text")
        right, wrong = (RegistryAuth(username="alice", password=word) for word in ("secret", "wrong"))
        assert "Pushed" in machine.push(f"{address}/team/app:1", right)
        with pytest.raises(WherryError):
            machine.push(f"{address}/team/app:1", wrong)
        with pytest.raises((PermissionDenied, Unauthenticated)):
            machine.push(f"{address}/other/app:1", right)


class CuttingProxy:
    """Passes bytes on to a server; the first connections that send more than `allowed` bytes are cut off there."""

    def __init__(self, target: str, allowed: int, cuts: int) -> None:
        host, _, port = target.partition(":")
        self._target, self._allowed, self.cuts = (host, int(port)), allowed, cuts
        self.passed = 0
        self._ends: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(10)
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                server = socket.create_connection(self._target)
                self._ends += [client, server]
                for pair in ((client, server, True), (server, client, False)):
                    thread = threading.Thread(target=self._pump, args=pair)
                    self._threads.append(thread)
                    thread.start()

    def _pump(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
                sent += len(data)
                self.passed += len(data) if counted else 0
                if counted and self.cuts and sent > self._allowed:
                    self.cuts -= 1
                    break
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_a_broken_upload_goes_on_where_it_broke_off(tmp_path: Path, machine: Machine) -> None:
    with RegistryProcess(tmp_path / "r") as registry:
        proxy = CuttingProxy(registry.address, len(NOISE) // 2, 2)
        try:
            name = f"{proxy.address}/app:1"
            machine.import_(name, noise=NOISE)
            assert "Pushed" in machine.push(name)
            assert proxy.cuts <= 1
            assert proxy.passed < len(NOISE) * 3 // 2
        finally:
            proxy.close()
        digest = machine.images.resolve(name).sources[0].blob.digest
        found = RegistryClient(registry.address).ask("GET", f"/v2/app/blobs/{digest}")
        assert found.status == 200


def test_the_digest_of_what_is_pushed_is_the_same_on_every_machine(tmp_path: Path, machine: Machine) -> None:
    """Compressing depends on nothing but the layer."""
    digests = set()
    with RegistryProcess(tmp_path / "r") as registry:
        for number in range(2):
            other = Machine(tmp_path / f"m{number}")
            name = f"{registry.address}/app{number}:1"
            other.import_(name, text=b"the same" * 1000)
            other.push(name)
            digests.add(other.images.resolve(name).sources[0].blob.digest)
            other.snapshots.close()
    assert len(digests) == 1
