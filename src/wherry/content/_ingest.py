import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from wherry.content._lease import Lease
from wherry.errors import InvalidArgument
from wherry.spec.digest import Digest

if TYPE_CHECKING:
    from wherry.content._store import BlobInfo

_CHUNK = 1 << 20


class Ingest:
    """One blob being written, hashed as it streams. Used by one thread at a time; see the room's docstring."""

    def __init__(
        self,
        directory: Path,
        lease: Lease,
        algorithm: str,
        publish: Callable[["Ingest", Digest, int], "BlobInfo"],
        closed: Callable[[], None],
    ) -> None:
        self.directory = directory
        self.lease = lease
        self._algorithm = algorithm
        self._publish = publish
        self._closed = closed
        # Read and write: what an earlier process wrote is hashed again before anything is added to it.
        self._fd = os.open(self.data, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._hash = hashlib.new(algorithm)
        self.offset = 0
        while chunk := os.read(self._fd, _CHUNK):
            self._hash.update(chunk)
            self.offset += len(chunk)

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def digest(self) -> Digest:
        """Of what has been written so far."""
        return Digest(f"{self._algorithm}:{self._hash.hexdigest()}")

    def write(self, data: bytes | memoryview) -> int:
        """Append all of `data`; returns the new offset. OSError (ENOSPC) leaves the ingest to be resumed."""
        view = memoryview(data)
        written = 0
        try:
            while written < len(view):
                written += os.write(self._fd, view[written:])
        finally:
            # The hash follows what is in the file, also after a short write.
            self._hash.update(view[:written])
            self.offset += written
        return self.offset

    def restart(self) -> None:
        """Forget what was written: the sender starts at 0 again."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._hash = hashlib.new(self._algorithm)
        self.offset = 0

    def commit(self, expected: Digest | None = None, size: int | None = None) -> "BlobInfo":
        """Verify and publish the blob. InvalidArgument when it is not what was expected: then it is dropped.

        The digest is leased before the blob is visible, so that no collector can come between.
        """
        found = self.digest
        if size is not None and self.offset != size:
            wrong = f"has {self.offset} bytes, not {size}"
        elif expected is not None and found != expected:
            wrong = f"has the digest {found}"
        else:
            info = self._publish(self, found, self._fd)
            self.close()
            shutil.rmtree(self.directory, ignore_errors=True)
            return info
        self.abort()
        raise InvalidArgument(f"content {expected or found} {wrong}", object=expected or found)

    def abort(self) -> None:
        """Drop the ingest and what was written."""
        self.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def close(self) -> None:
        """Stop writing; what is there waits for the next ingest with this key."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._closed()

    def __enter__(self) -> "Ingest":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
