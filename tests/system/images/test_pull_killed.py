"""A daemon that is killed while it pulls: the next one's pull ends whole, and fetches no finished layer again.

WHERRY_PULL_KILLS=200 is the long mode.
"""

import contextlib
import http.client
import http.server
import io
import json
import os
import random
import signal
import tarfile
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from daemon import Daemon
from engine_client import Api
from registry_process import CONFIG, LAYER, MANIFEST, descriptor, digest_of, dump

pytestmark = pytest.mark.root
KILLS = int(os.environ.get("WHERRY_PULL_KILLS", "3"))
LAYERS, SIZE, PART = 5, 1 << 20, 1 << 16


class Registry(http.server.ThreadingHTTPServer):
    """Serves one image after another; `reached` is set when as many bytes of blobs went out as `kill_at` says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.documents: dict[str, tuple[str, bytes]] = {}
        self.asked: list[str] = []
        self.sent, self.kill_at, self.reached = 0, 0, threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed."""

    def offer(self, tag: str, source: random.Random) -> list[str]:
        """A new image; the digests of its layers."""
        layers = [_layer(f"{tag}-{number}", source.randbytes(SIZE)) for number in range(LAYERS)]
        diff_ids = [digest_of(layer) for layer in layers]
        config = dump({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}})
        manifest = dump(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": descriptor(CONFIG, config),
                "layers": [descriptor(LAYER, layer) for layer in layers],
            }
        )
        self.documents = {digest_of(data): (LAYER, data) for data in (config, *layers)} | {tag: (MANIFEST, manifest)}
        return diff_ids


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Registry

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        kind, data = ("text/plain", b"{}") if self.path == "/v2/" else self.server.documents[name]
        begins = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        self.send_response(206 if begins else 200)
        if begins:
            self.send_header("Content-Range", f"bytes {begins}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data) - begins))
        self.end_headers()
        if kind == LAYER:
            self.server.asked.append(name)
        for at in range(begins, len(data), PART):
            self.wfile.write(data[at : at + PART])
            if kind == LAYER:
                self.server.sent += PART
                if self.server.sent >= self.server.kill_at:
                    self.server.reached.set()


@pytest.fixture
def registry() -> Iterator[Registry]:
    server = Registry()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    made = Daemon()
    made.start()
    yield made
    made.remove()


def test_pulls_of_a_killed_daemon_end_whole(registry: Registry, daemon: Daemon) -> None:
    seed = random.randrange(1 << 32)
    source = random.Random(seed)
    for number in range(KILLS):
        tag = f"run-{number}"
        layers = registry.offer(tag, source)
        registry.sent, registry.kill_at = 0, source.randrange(1, LAYERS * SIZE)
        registry.reached.clear()
        name = f"{registry.address}/me/app:{tag}"
        cut = threading.Thread(target=_pull_quietly, args=(daemon.host, name))
        cut.start()
        assert registry.reached.wait(60), seed
        daemon.signal(signal.SIGKILL)
        cut.join(60)
        blobs = daemon.data_root / "content" / "blobs" / "sha256"
        finished = {layer for layer in layers if (blobs / layer.partition(":")[2]).exists()}
        registry.asked.clear()
        daemon.start()
        with contextlib.closing(Api(daemon.host)) as api:
            told = api.request("POST", f"/images/create?fromImage={name}")
            assert (told.status, "error" in told.lines[-1]) == (200, False), (seed, told.lines[-1])
            assert finished.isdisjoint(registry.asked), seed
            assert api.request("GET", f"/images/{name}/json").json["RootFS"]["Layers"] == layers, seed
            assert api.request("DELETE", f"/images/{name}").status == 200
        assert list(blobs.iterdir()) == [], seed
    assert list((daemon.data_root / "content" / "ingests").iterdir()) == []


def _pull_quietly(host: str, name: str) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException, json.JSONDecodeError):
        with contextlib.closing(Api(host)) as api:
            api.request("POST", f"/images/create?fromImage={name}")


def _layer(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()
