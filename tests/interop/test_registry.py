"""Pulling from the real registry server (Debian's docker-registry), with and without basic authentication."""

import asyncio
import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wherry.content import ContentStore
from wherry.errors import NotFound, WherryError
from wherry.images import Images, RegistryAuth
from wherry.snapshots import OverlaySnapshotter
from wherry.spec.oci_image import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from wherry.state import MemoryStore

pytestmark = pytest.mark.root

# joe:pw, as htpasswd -B writes it.
HTPASSWD = "joe:$2y$04$dhrByC.VDSECXDW7FK31tOjukENrEVwInvYEoWWa3AOpALkT/iNt6\n"
PATTERN = os.urandom(1 << 16)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    installed = shutil.which("docker-registry")
    if installed:
        return installed
    directory = tmp_path_factory.mktemp("docker-registry")
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        pytest.skip("docker-registry is not installed, and there is no apt to get it with")
    command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", "docker-registry"]
    if subprocess.run(command, cwd=directory, capture_output=True, check=False, timeout=120).returncode:
        pytest.skip("the package docker-registry cannot be downloaded here")
    subprocess.run(["dpkg-deb", "-x", *directory.glob("*.deb"), directory], check=True, timeout=120)
    return str(directory / "usr/bin/docker-registry")


class Server:
    def __init__(self, program: str, root: Path, *, protected: bool) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        config: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(root / "data")}},
            "http": {"addr": self.address},
        }
        if protected:
            (root / "htpasswd").write_text(HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(root / "htpasswd")}}
        (root / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        with (root / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [program, "serve", str(root / "config.yml")],
                stdout=log,
                stderr=log,
                env={"OTEL_TRACES_EXPORTER": "none"},
            )
        deadline = time.monotonic() + 20
        host, port = self.address.split(":")
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
                return
            except OSError:
                assert self.process.poll() is None, (root / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.01)

    def request(self, method: str, path: str, data: bytes | None = None, kind: str = "application/octet-stream") -> Any:
        url = path if "://" in path else f"http://{self.address}{path}"
        request = urllib.request.Request(url, data, {"Content-Type": kind}, method=method)
        with urllib.request.urlopen(request, timeout=20) as response:
            response.read()
            return response.headers

    def push(self, name: str, tag: str, layers: list[bytes]) -> str:
        """Put an image there by hand; returns the configuration's digest."""
        packed = [gzip.compress(layer, mtime=0) for layer in layers]
        diff_ids = [digest(layer) for layer in layers]
        config = json.dumps(
            {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        ).encode()
        for blob in (*packed, config):
            location = self.request("POST", f"/v2/{name}/blobs/uploads/", b"")["Location"]
            self.request("PUT", f"{location}{'&' if '?' in location else '?'}digest={digest(blob)}", blob)
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": digest(config), "size": len(config)},
            "layers": [{"mediaType": f"{OCI_LAYER}+gzip", "digest": digest(b), "size": len(b)} for b in packed],
        }
        self.request("PUT", f"/v2/{name}/manifests/{tag}", json.dumps(manifest).encode(), OCI_MANIFEST)
        return digest(config)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


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
