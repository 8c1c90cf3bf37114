"""What the image figures are taken of: a generated image in a registry, and the registries that serve it."""

import hashlib
import http.client
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard
from isal import igzip

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_POOL = 24 << 20
_PART = 1 << 20
_SERVING = re.compile(rb"serving .* on (\S+):(\d+)\n")


@dataclass(frozen=True, slots=True)
class Blob:
    """A file that is to be a blob. `diff_id`: of its content uncompressed."""

    path: Path
    digest: str
    size: int
    media_type: str
    diff_id: str = ""

    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


class Hashed:
    """A file written through, with its digest. `Hashed(f)` counts as a writable binary file."""

    def __init__(self, out: Any) -> None:
        self._out, self._hash = out, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self._out.write(data)
        return len(data)

    def flush(self) -> None:
        self._out.flush()

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


def make_layers(directory: Path, *, layers: int, files: int, size: int) -> dict[str, list[Blob]]:
    """The layers of one tree of `files` files and about `size` bytes, by compression (gzip, zstd).

    What an earlier run left in `directory` for the same figures is used again.
    """
    kept = directory / f"{layers}-{files}-{size}.json"
    if kept.exists():
        return {
            kind: [Blob(**{**blob, "path": Path(blob["path"])}) for blob in found]
            for kind, found in json.loads(kept.read_text()).items()
        }
    directory.mkdir(exist_ok=True)
    made = _make_layers(directory, layers, files, size)
    kept.write_text(json.dumps({kind: [asdict(blob) for blob in found] for kind, found in made.items()}, default=str))
    return made


def _make_layers(directory: Path, layers: int, files: int, size: int) -> dict[str, list[Blob]]:
    source = random.Random(7)
    pool = _pool(source)
    made: dict[str, list[Blob]] = {"gzip": [], "zstd": []}
    for number in range(layers):
        plain = directory / f"{number}.tar"
        with plain.open("wb") as out:
            hashed = Hashed(out)
            _write_tree(hashed, number, files // layers, size // files, pool, source)
        for kind, found in made.items():
            found.append(_compress(plain, directory / f"{number}.{kind}", kind, hashed.digest))
        plain.unlink()
    return made


def plain_layer(path: Path, size: int) -> Blob:
    """A layer that is one file of `size` zeros, uncompressed and sparse here."""
    entry = tarfile.TarInfo("zeros")
    entry.size = size
    head, tail = entry.tobuf(tarfile.GNU_FORMAT), bytes(1024)
    hashed, zeros = hashlib.sha256(head), bytes(_PART)
    for _ in range(size // _PART):
        hashed.update(zeros)
    hashed.update(tail)
    with path.open("wb") as out:
        out.write(head)
        out.truncate(len(head) + size + len(tail))
    digest = "sha256:" + hashed.hexdigest()
    return Blob(path, digest, path.stat().st_size, _LAYER, digest)


def put_image(address: str, name: str, layers: Sequence[Blob]) -> None:
    """Push an image of these layers by hand, as NAME:latest."""
    diff_ids = [layer.diff_id for layer in layers]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/f"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    ).encode()
    described: dict[str, Any] = {"mediaType": _CONFIG, "digest": _digest(config), "size": len(config)}
    for layer in layers:
        with layer.path.open("rb") as file:
            _put_blob(address, name, layer.digest, file, layer.size)
    _put_blob(address, name, described["digest"], io.BytesIO(config), len(config))
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": described,
        "layers": [layer.descriptor() for layer in layers],
    }
    _ask(address, "PUT", f"/v2/{name}/manifests/latest", json.dumps(manifest).encode(), {"Content-Type": _MANIFEST})


def put_blob(address: str, name: str, data: bytes) -> str:
    """Push bytes as a blob; its digest."""
    digest = _digest(data)
    _put_blob(address, name, digest, io.BytesIO(data), len(data))
    return digest


@contextmanager
def our_registry(root: Path, log: Path, *, beside: int | None = None) -> Iterator[str]:
    """`wherry registry serve`, where `beside` (a process) has its network; its address."""
    command = [sys.executable, "-m", "wherry.registry", "serve", "--root", str(root), "--listen", "127.0.0.1:0"]
    with _process(_inside(beside, command), log, subprocess.PIPE) as process:
        assert process.stderr is not None
        match = _SERVING.search(process.stderr.readline())
        if match is None:
            raise SystemExit("the registry did not start")
        # Nobody reads what it logs: it must not fill the pipe.
        threading.Thread(target=lambda: process.stderr and process.stderr.read(), daemon=True).start()
        yield f"127.0.0.1:{match[2].decode()}"


@contextmanager
def peer_registry(program: str, root: Path, log: Path, port: int) -> Iterator[str]:
    """distribution's registry on a directory of its own."""
    address = f"127.0.0.1:{port}"
    config = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(root)}},
        "http": {"addr": address},
    }
    path = log.with_suffix(".yml")
    path.write_text(json.dumps(config))
    with _process([program, "serve", str(path)], log, None) as process:
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            try:
                _ask(address, "GET", "/v2/")
            except ConnectionError:
                time.sleep(0.05)
                continue
            yield address
            return
        raise SystemExit(f"{program} did not start: see {log}")


def _inside(beside: int | None, command: list[str]) -> list[str]:
    if beside is None or os.readlink(f"/proc/{beside}/ns/net") == os.readlink("/proc/self/ns/net"):
        return command
    return ["nsenter", "-t", str(beside), "-n", *command]


@contextmanager
def _process(command: list[str], log: Path, stderr: int | None) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=stderr if stderr is not None else out,
            env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)


def _pool(source: random.Random) -> bytes:
    """Bytes that compress about as programs and texts do: words, with noise between."""
    words = [source.randbytes(source.randint(3, 14)) for _ in range(3000)]
    found = bytearray()
    while len(found) < _POOL:
        found += b"".join(source.choices(words, k=2000))
        found += source.randbytes(3000)
    return bytes(found)


def _write_tree(out: Any, number: int, files: int, average: int, pool: bytes, source: random.Random) -> None:
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT, bufsize=_PART) as tar:
        # As builders write layers: every directory above is listed.
        for above in ("usr", "usr/share", f"usr/share/part-{number}"):
            tar.addfile(_directory(above))
        for index in range(files):
            name = f"usr/share/part-{number}/{index // 50:03}"
            if index % 50 == 0:
                tar.addfile(_directory(name))
            entry = tarfile.TarInfo(f"{name}/file-{index}.dat")
            # Most files are small, a few hold most of the bytes.
            entry.size = min(int(source.paretovariate(1.3) * average / 8), 8 << 20) if index % 40 else average * 20
            entry.mtime = 1_700_000_000 + index
            start = source.randrange(_POOL - min(entry.size, _POOL - 1))
            tar.addfile(entry, io.BytesIO(pool[start : start + entry.size]))


def _directory(name: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    return entry


def _compress(plain: Path, path: Path, kind: str, diff_id: str) -> Blob:
    with plain.open("rb") as source, path.open("wb") as file:
        hashed = Hashed(file)
        sink: Any
        if kind == "zstd":
            sink = zstandard.ZstdCompressor(level=3).stream_writer(cast(BinaryIO, hashed), closefd=False)
        else:
            sink = igzip.IGzipFile(None, "wb", 3, hashed, mtime=0)  # type: ignore[no-untyped-call]
        with sink:
            shutil.copyfileobj(source, sink, _PART)
    return Blob(path, hashed.digest, path.stat().st_size, f"{_LAYER}+{kind}", diff_id)


def _put_blob(address: str, name: str, digest: str, body: BinaryIO, size: int) -> None:
    location = _ask(address, "POST", f"/v2/{name}/blobs/uploads/", b"")["Location"]
    path = "/" + location.split("/", 3)[3] if "://" in location else location
    separator = "&" if "?" in path else "?"
    _ask(address, "PUT", f"{path}{separator}digest={digest}", body, {"Content-Length": str(size)})


def _ask(address: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
    connection = http.client.HTTPConnection(address, timeout=120, blocksize=_PART)
    try:
        connection.request(method, path, body, {"Content-Type": "application/octet-stream", **(headers or {})})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {said[:300]!r}")
        return answer.headers
    finally:
        connection.close()


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
