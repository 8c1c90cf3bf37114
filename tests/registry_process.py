"""A registry server in a process of its own, and the plainest client of one."""

import hashlib
import http.client
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

PEER = os.environ.get("WHERRY_TEST_REGISTRY", "")
"""Another registry (http://host:port) that the same tests are to pass on."""
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
_STARTED = re.compile(rb"serving .* on (\S+):(\d+)\n")


class RegistryProcess:
    """`wherry registry serve`; use it as a context."""

    def __init__(self, root: Path, *flags: str, listen: str = "127.0.0.1:0") -> None:
        command = [sys.executable, "-m", "wherry.registry", "serve", "--root", str(root), "--listen", listen, *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        match = _STARTED.search(line)
        if match is None:
            rest = self.process.communicate()[1]
            raise RuntimeError(f"no registry: {(line + rest).decode()}")
        self.address = f"{match[1].decode()}:{match[2].decode()}"

    def __enter__(self) -> "RegistryProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.log = self.process.communicate(timeout=20)[1].decode()
        assert self.process.returncode == 0, self.log


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The specification's error code."""
        return str(self.json["errors"][0]["code"])


class RegistryClient:
    """One connection after another; nothing is followed, nothing retried."""

    def __init__(self, address: str, **headers: str) -> None:
        self.address, self._headers = address, headers

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Header names with `_` for `-`; `path` may be a whole address."""
        parts = urlsplit(path)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            sent = {name.replace("_", "-"): value for name, value in {**self._headers, **headers}.items()}
            connection.request(method, target, body, sent)
            found = connection.getresponse()
            return Answer(found.status, {k.lower(): v for k, v in found.getheaders()}, found.read())
        finally:
            connection.close()

    def begin(self, name: str, query: str = "") -> str:
        """Where to upload to."""
        answer = self.ask("POST", f"/v2/{name}/blobs/uploads/{query}", b"")
        assert answer.status == 202, answer
        return answer.headers["location"]

    def push_blob(self, name: str, data: bytes) -> str:
        """Its digest."""
        digest = digest_of(data)
        answer = self.ask("PUT", with_query(self.begin(name), digest=digest), data)
        assert answer.status == 201, answer
        return digest

    def push_manifest(self, name: str, reference: str, document: dict[str, Any]) -> Answer:
        return self.ask("PUT", f"/v2/{name}/manifests/{reference}", dump(document), Content_Type=document["mediaType"])

    def push_image(self, name: str, reference: str, content: bytes, **more: Any) -> str:
        """A whole image of one layer; its manifest's digest."""
        config, layer = b'{"rootfs":{"type":"layers","diff_ids":[]}}', content
        for data in (config, layer):
            self.push_blob(name, data)
        document = image(config, layer, **more)
        answer = self.push_manifest(name, reference, document)
        assert answer.status == 201, answer
        return digest_of(dump(document))


def image(config: bytes, *layers: bytes, **more: Any) -> dict[str, Any]:
    """A manifest."""
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, config),
        "layers": [descriptor(LAYER, layer) for layer in layers],
        **more,
    }


def descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def dump(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()


def with_query(location: str, **query: str) -> str:
    joined = "&".join(f"{name}={value}" for name, value in query.items())
    return f"{location}{'&' if '?' in location else '?'}{joined}"
