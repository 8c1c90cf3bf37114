"""The real registry server (Debian's docker-registry), and images put into it by hand."""

import gzip
import hashlib
import io
import json
import shutil
import socket
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from wherry.spec.oci_image import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST

# joe:pw, as htpasswd -B writes it.
HTPASSWD = "joe:$2y$04$dhrByC.VDSECXDW7FK31tOjukENrEVwInvYEoWWa3AOpALkT/iNt6\n"


def find_program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The server's path, from its package where it is not installed; skips the test without either."""
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
    """One registry; images stay in `root/data` when it stops. `more`: further sections of its configuration."""

    def __init__(
        self,
        program: str,
        root: Path,
        *,
        protected: bool,
        host: str = "127.0.0.1",
        tls: tuple[Path, Path] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        with socket.socket() as probe:
            probe.bind((host, 0))
            self.address = f"{host}:{probe.getsockname()[1]}"
        config: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(root / "data")}},
            "http": {"addr": self.address},
        }
        config |= more or {}
        if tls:
            config["http"]["tls"] = {"certificate": str(tls[0]), "key": str(tls[1])}
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
        port = self.address.partition(":")[2]
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
