"""Notices when a zstd stream ends in the middle of a frame, which the decompressor itself does not say.

Follows the frame format (RFC 8878, 3.1) through the compressed bytes as they are read: frame headers and block headers
are parsed, everything else is skipped over.
"""

import io
from collections.abc import Generator
from typing import BinaryIO

import zstandard

_DICTIONARY_BYTES = (0, 1, 2, 4)
_CONTENT_SIZE_BYTES = (0, 2, 4, 8)
_MAGIC = b"\x28\xb5\x2f\xfd"
_RLE = 1


class CompleteFrames(io.RawIOBase):
    """A readable that passes bytes on, and raises ZstdError at an end where no stream may end."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._walk = _walk()
        self._header = b""
        self._at_start = True
        # Positive: header bytes wanted; negative: bytes to skip.
        self._wanted = next(self._walk)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        if data:
            self._follow(data)
        elif size != 0 and not self._at_start:
            raise zstandard.ZstdError("unexpected end of zstd stream")
        return data

    def _follow(self, data: bytes) -> None:
        position = 0
        while position < len(data):
            if self._wanted < 0:
                step = min(-self._wanted, len(data) - position)
                self._wanted += step
            else:
                step = min(self._wanted - len(self._header), len(data) - position)
                self._header += data[position : position + step]
            position += step
            if self._wanted == 0 or len(self._header) == self._wanted:
                self._advance()
            else:
                self._at_start = False

    def _advance(self) -> None:
        header, self._header = self._header, b""
        self._wanted = self._walk.send(header)
        # The walk asks for nothing at the boundary between two frames.
        self._at_start = self._wanted == 0
        if self._at_start:
            self._wanted = self._walk.send(b"")


def _walk() -> Generator[int, bytes, None]:
    while True:
        magic = yield 4
        if magic != _MAGIC:
            if magic[1:] != b"\x2a\x4d\x18" or magic[0] & 0xF0 != 0x50:
                raise zstandard.ZstdError("not a zstd frame")
            size = int.from_bytes((yield 4), "little")
            if size:
                yield -size
        else:
            descriptor = (yield 1)[0]
            single = descriptor >> 5 & 1
            size = _CONTENT_SIZE_BYTES[descriptor >> 6] or single
            yield -(size + (1 - single) + _DICTIONARY_BYTES[descriptor & 3])
            last = False
            while not last:
                block = int.from_bytes((yield 3), "little")
                last = bool(block & 1)
                content = 1 if block >> 1 & 3 == _RLE else block >> 3
                if content:
                    yield -content
            if descriptor >> 2 & 1:
                yield -4
        yield 0
