"""Compressed streams, opened by what they are, and kept from becoming bombs.

A compressed layer may claim anything of itself. Two limits hold for every stream: a ratio (gzip cannot exceed 1032,
so an honest zstd layer of zeros is what the larger figure leaves room for), and what the caller allows in all.
zstd's window, which the reader must allocate, is limited to 128 MiB, as in other engines.
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import BinaryIO, cast

import zstandard

from wherry.errors import InvalidArgument
from wherry.images.zstdframes import CompleteFrames

try:
    from isal import igzip, igzip_threaded, isal_zlib
except ImportError:  # not on every architecture
    igzip = None  # type: ignore[assignment]

_MAGICS = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\x00", "xz"), (b"BZh", "bzip2"))
_RATIO_MAX = 20_000
_RATIO_FLOOR = 256 << 20
_ZSTD_WINDOW_MAX = 128 << 20

_FAULTS: tuple[type[Exception], ...] = (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, gzip.BadGzipFile)
if igzip is not None:
    _FAULTS = (*_FAULTS, cast(type[Exception], isal_zlib.error))


def detect(head: bytes) -> str:
    """The compression a stream with these first bytes has: "" for none known (a tar starts with a name)."""
    # A skippable frame may open a zstd stream.
    if len(head) >= 4 and 0x50 <= head[0] <= 0x5F and head[1:4] == b"\x2a\x4d\x18":
        return "zstd"
    return next((name for magic, name in _MAGICS if head.startswith(magic)), "")


def decompressed(
    stream: BinaryIO, *, limit: int = 1 << 62, name: str = "the archive", on_read: Callable[[int], None] | None = None
) -> BinaryIO:
    """`stream` uncompressed, whatever it is compressed with; a plain stream stays as it is.

    `limit` is the largest number of bytes that may come out; `name` is what errors call the stream; `on_read` is told
    how many compressed bytes have been read so far. InvalidArgument while reading when a limit is passed or the
    stream is damaged. Closing the result does not close `stream`.
    """
    counted = _Counted(stream, on_read)
    peekable = cast(BinaryIO, buffered := io.BufferedReader(counted, 1 << 17))
    kind = detect(buffered.peek(8)[:8])
    inner = cast(BinaryIO, _open(kind, peekable))
    return cast(BinaryIO, io.BufferedReader(_Guarded(inner, counted, limit, name), 1 << 18))


def _open(kind: str, stream: BinaryIO) -> object:
    if kind == "gzip":
        if igzip is not None:
            # Inflating runs beside the reader: isal lets go of the interpreter's lock.
            return igzip_threaded.open(stream, "rb")  # type: ignore[no-untyped-call]
        return gzip.GzipFile(fileobj=stream)
    if kind == "zstd":
        reader = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_MAX)
        return reader.stream_reader(cast(BinaryIO, CompleteFrames(stream)), read_across_frames=True, closefd=False)
    if kind == "xz":
        return lzma.LZMAFile(stream)
    if kind == "bzip2":
        return bz2.BZ2File(stream)
    return stream


class _Counted(io.RawIOBase):
    """Counts what is read from a stream it does not own."""

    def __init__(self, stream: BinaryIO, on_read: Callable[[int], None] | None) -> None:
        self.count = 0
        self._stream = stream
        self._on_read = on_read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self._stream.read(len(view))
        view[: len(data)] = data
        self.count += len(data)
        if self._on_read is not None and data:
            self._on_read(self.count)
        return len(data)


class _Guarded(io.RawIOBase):
    """Stops a stream that gives more than it may, and names what is wrong with a damaged one."""

    def __init__(self, inner: BinaryIO, source: _Counted, limit: int, name: str) -> None:
        self._inner = inner
        self._source = source
        self._limit = limit
        self._name = name
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        try:
            data = self._inner.read(len(view))
        except _FAULTS as error:
            raise InvalidArgument(f"{self._name} is damaged: {error}", object=self._name) from None
        except OSError as error:
            if error.errno is None:  # bz2 and gzip say so of damaged data
                raise InvalidArgument(f"{self._name} is damaged: {error}", object=self._name) from None
            raise
        self._count += len(data)
        if self._count > self._limit:
            raise InvalidArgument(f"{self._name} unpacks to more than {self._limit} bytes", object=self._name)
        if self._count > _RATIO_FLOOR and self._count > self._source.count * _RATIO_MAX:
            raise InvalidArgument(f"{self._name} unpacks to {_RATIO_MAX} times its size", object=self._name)
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._inner.close()
        super().close()
