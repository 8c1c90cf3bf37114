"""A tar stream as 512-byte blocks and bodies, read through one large buffer.

Small bodies are written straight out of the buffer; large ones pass from read to write without being joined.
"""

import os
from collections.abc import Iterator
from typing import Protocol

from wherry.archive._entry import malformed

_CHUNK = 1 << 20


class Readable(Protocol):
    """What a tar is read from: may return fewer bytes than asked, b"" at the end only."""

    def read(self, size: int, /) -> bytes: ...


class SourceError(OSError):
    """Reading the stream failed with `error`: not to be taken for a failure to write what was read."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class BlockReader:
    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.buffer = b""
        self.position = 0
        self._view = memoryview(b"")

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes, or b"" at a clean end of the stream; meant for headers and small tables."""
        start = self.position
        end = start + size
        if end > len(self.buffer):
            self._fill(size)
            start, end = 0, size
            if len(self.buffer) < size:
                if not self.buffer:
                    return b""
                raise malformed("unexpected end of the stream")
        self.position = end
        return self.buffer[start:end]

    def skip(self, size: int) -> None:
        available = len(self.buffer) - self.position
        while size > available:
            size -= available
            self._next()
            available = len(self.buffer)
        self.position += size

    def copy(self, fd: int, size: int) -> None:
        """Write the next `size` bytes to `fd` at its position."""
        while size:
            start = self.position
            available = len(self.buffer) - start
            if not available:
                self._next()
                continue
            part = min(size, available)
            self.position = start + part
            size -= part
            view = self._view[start : start + part]
            written = os.write(fd, view)
            while written < part:
                view = view[written:]
                part -= written
                written = os.write(fd, view)

    def chunks(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes, in parts as they come; to be read to the end before anything else is."""
        while size:
            start = self.position
            available = len(self.buffer) - start
            if not available:
                self._next()
                continue
            part = min(size, available)
            self.position = start + part
            size -= part
            yield self._view[start : start + part]

    def drain(self) -> None:
        """Read to the end of the stream: what follows the archive counts for its digest."""
        self._set(b"")
        while self._read(_CHUNK):
            pass

    def _fill(self, size: int) -> None:
        parts = [self.buffer[self.position :]]
        have = len(parts[0])
        while have < size:
            chunk = self._read(_CHUNK)
            if not chunk:
                break
            parts.append(chunk)
            have += len(chunk)
        self._set(b"".join(parts))

    def _next(self) -> None:
        chunk = self._read(_CHUNK)
        if not chunk:
            raise malformed("unexpected end of the stream")
        self._set(chunk)

    def _read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except OSError as error:
            raise SourceError(error) from error

    def _set(self, data: bytes) -> None:
        self.buffer = data
        self._view = memoryview(data)
        self.position = 0
