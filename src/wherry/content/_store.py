import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from threading import RLock
from typing import BinaryIO, NamedTuple

from wherry.content._ingest import Ingest
from wherry.content._lease import Lease, Leases
from wherry.errors import Conflict, Internal, NotFound
from wherry.spec.digest import Digest, parse_digest
from wherry.state import Delete, Put, Store

_SIZES = "content/blobs/"


class BlobInfo(NamedTuple):
    """A blob and its size in bytes."""

    digest: Digest
    size: int


class ContentStore:
    """The blobs under `root`. Every method may be called from any thread."""

    def __init__(self, root: Path, store: Store, *, durable: bool = False) -> None:
        self.root = root
        self.lock = RLock()
        self.leases = Leases(store, self.lock)
        self._store = store
        self._durable = durable
        self._writing: set[str] = set()
        self._ingests = root / "ingests"
        for directory in (root / "blobs" / "sha256", root / "blobs" / "sha512", self._ingests):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: Digest) -> Path:
        """Where the blob is or would be."""
        # Parsed again: a digest that is not one must never become a path.
        algorithm, _, encoded = parse_digest(digest).partition(":")
        return self.root / "blobs" / algorithm / encoded

    def has(self, digest: Digest) -> bool:
        return self._size(digest) is not None

    def info(self, digest: Digest) -> BlobInfo:
        """NotFound when the blob is absent, or is not whole after a power cut."""
        size = self._size(digest)
        if size is None:
            raise NotFound(f"content {digest} not found", object=digest)
        return BlobInfo(digest, size)

    def open(self, digest: Digest) -> BinaryIO:
        """The blob for reading, from its start."""
        self.info(digest)
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError:
            raise NotFound(f"content {digest} not found", object=digest) from None

    def read(self, digest: Digest, limit: int) -> bytes:
        """All of a blob that is to be held in memory; Internal when it is larger than `limit` bytes."""
        if self.info(digest).size > limit:
            raise Internal(f"content {digest} is larger than {limit} bytes", object=digest)
        with self.open(digest) as file:
            return file.read()

    def add(self, data: bytes, lease: Lease) -> BlobInfo:
        """A blob that is in memory already."""
        digest = Digest("sha256:" + hashlib.sha256(data).hexdigest())
        with self.ingest(f"bytes-{digest}-{os.urandom(4).hex()}", lease) as ingest:
            ingest.write(data)
            return ingest.commit(digest, len(data))

    def ingest(self, key: str, lease: Lease, *, algorithm: str = "sha256") -> Ingest:
        """Begin or resume a blob. Conflict while another ingest with this key is open."""
        name = hashlib.sha256(f"{algorithm} {key}".encode()).hexdigest()[:40]
        with self.lock:
            if name in self._writing:
                raise Conflict(f"content for {key} is being written already", object=key)
            self._writing.add(name)
        try:
            directory = self._ingests / name
            directory.mkdir(mode=0o700, exist_ok=True)
            return Ingest(directory, lease, algorithm, self._publish, lambda: self._writing.discard(name))
        except BaseException:
            self._writing.discard(name)
            raise

    def expire_ingests(self, older_than_seconds: float) -> None:
        """Drop interrupted ingests nobody came back for."""
        limit = time.time() - older_than_seconds
        for directory in self._ingests.iterdir():
            with self.lock:
                if directory.name not in self._writing and _modified(directory) < limit:
                    shutil.rmtree(directory, ignore_errors=True)

    def delete(self, digest: Digest) -> None:
        """Remove a blob; absent is no error. Whoever has it open reads on."""
        with self.lock:
            self.path(digest).unlink(missing_ok=True)
            self._store.write(Delete(f"{_SIZES}{digest}"))

    def verify(self, digest: Digest) -> bool:
        """Read a blob: whether it is what its digest says. NotFound when it is absent."""
        algorithm, _, encoded = digest.partition(":")
        with self.open(digest) as file:
            found = hashlib.file_digest(file, algorithm)  # type: ignore[arg-type]  # a BufferedReader, which it wants
        return found.hexdigest() == encoded

    def walk(self) -> Iterator[BlobInfo]:
        """Every whole blob, in no particular order."""
        for key, size in self._store.scan(_SIZES):
            yield BlobInfo(Digest(key.removeprefix(_SIZES)), int(size))

    def strays(self) -> Iterator[Digest]:
        """Files under blobs/ that no commit recorded: left by a process that died in between."""
        known = {info.digest for info in self.walk()}
        for algorithm in ("sha256", "sha512"):
            for entry in os.scandir(self.root / "blobs" / algorithm):
                digest = Digest(f"{algorithm}:{entry.name}")
                if digest not in known:
                    yield digest

    def _size(self, digest: Digest) -> int | None:
        recorded = self._store.get(f"{_SIZES}{digest}")
        if recorded is None:
            return None
        try:
            found = self.path(digest).stat().st_size
        except FileNotFoundError:
            return None
        return found if found == int(recorded) else None

    def _publish(self, ingest: Ingest, digest: Digest, fd: int) -> BlobInfo:
        info = BlobInfo(digest, ingest.offset)
        if self._durable:
            os.fdatasync(fd)
        os.fchmod(fd, 0o400)
        with self.lock:
            ingest.lease.add(digest)
            os.rename(ingest.data, self.path(digest))
            self._store.write(Put(f"{_SIZES}{digest}", str(info.size).encode()))
        return info


def _modified(directory: Path) -> float:
    data = directory / "data"
    try:
        return data.stat().st_mtime if data.exists() else directory.stat().st_mtime
    except FileNotFoundError:
        return time.time()
