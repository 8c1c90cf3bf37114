"""A stream read ahead and hashed in a thread, so that decompression and hashing overlap with unpacking."""

import hashlib
from queue import Empty, Full, Queue
from threading import Event, Thread
from types import TracebackType
from typing import Self

from wherry.archive import Readable
from wherry.spec.digest import Digest

_CHUNK = 1 << 20
_AHEAD = 8
_POLL_SECONDS = 0.1


class DigestingStream:
    """`read` gives what the source gives; after the end `digest()` is of all of it. A context manager: leaving stops
    the thread, which may then be in one last read of the source."""

    def __init__(self, source: Readable, algorithm: str) -> None:
        self._source = source
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm)
        self._chunks: Queue[bytes | BaseException] = Queue(_AHEAD)
        self._stopped = Event()
        self._rest = b""
        self._ended = False
        self._thread = Thread(target=self._read_ahead, name="layer-read", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        # Room for a put that waits; the thread then sees that it is stopped.
        while True:
            try:
                self._chunks.get_nowait()
            except Empty:
                break
        self._thread.join()

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, b"" at the end; raises what the source raised."""
        if not self._rest:
            if self._ended:
                return b""
            chunk = self._chunks.get()
            if isinstance(chunk, BaseException):
                raise chunk
            self._rest = chunk
            self._ended = not chunk
        chunk, self._rest = self._rest[:size], self._rest[size:]
        return chunk

    def digest(self) -> Digest:
        return Digest(f"{self._algorithm}:{self._hash.hexdigest()}")

    def _read_ahead(self) -> None:
        try:
            while not self._stopped.is_set():
                chunk = self._source.read(_CHUNK)
                self._hash.update(chunk)
                self._put(chunk)
                if not chunk:
                    return
        except BaseException as error:  # noqa: BLE001 - a thread's root: handed to the reader
            self._put(error)

    def _put(self, item: bytes | BaseException) -> None:
        while not self._stopped.is_set():
            try:
                self._chunks.put(item, timeout=_POLL_SECONDS)
                return
            except Full:
                continue
