"""Docker's json-file format: one object a line, {"log": "...", "stream": "stdout", "time": RFC 3339 to the ns}.

Written whole chunks at a time: encoding a chunk as one string and then cutting it at its newlines costs the same for
one line of 64 KB as for a thousand of 64 bytes. The lines of one chunk carry the time at which it was read. Times in a
file never go back, whatever the clock does, so that a reader can find a moment by bisection.
"""

import os
import time
from _json import encode_basestring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.logs.target import Rotation


class JSONFile:
    """The writing end of one log. Not thread-safe. `lost` counts bytes of output that could not be written."""

    __slots__ = ("_fd", "_last_ns", "_rotation", "_size", "lost", "path")

    def __init__(self, path: str, rotation: "Rotation") -> None:
        self.path = path
        self.lost = 0
        self._rotation = rotation
        self._last_ns = 0
        self._fd = -1
        self._size = 0
        self._open()

    def write(self, stream: str, data: bytes) -> None:
        """Append `data`: whole lines, or one line without its end."""
        now = max(time.time_ns(), self._last_ns)
        self._last_ns = now
        encoded = _encode(stream, data, _rfc3339(now))
        limit = self._rotation.max_size
        if limit and self._size and self._size + len(encoded) > limit:
            self._rotate()
        try:
            written = os.write(self._fd, encoded)
            if written != len(encoded):
                # Disk full in the middle: take the half record back, a reader must never see one.
                os.ftruncate(self._fd, self._size)
                self.lost += len(data)
                return
            self._size += written
        except OSError:
            # The container must not stop because the disk is full.
            self.lost += len(data)

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        self._size = os.fstat(self._fd).st_size
        self._drop_half_record()

    def _drop_half_record(self) -> None:
        # A machine that went down in a write may have left one.
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
            tail = os.pread(self._fd, 1 << 20, max(0, self._size - (1 << 20)))
            keep = self._size - len(tail) + tail.rfind(b"\n") + 1
            os.ftruncate(self._fd, keep)
            self._size = keep

    def _rotate(self) -> None:
        if self._rotation.max_file == 1:
            os.ftruncate(self._fd, 0)
            self._size = 0
            return
        os.close(self._fd)
        for number in range(self._rotation.max_file - 1, 0, -1):
            older = self.path if number == 1 else f"{self.path}.{number - 1}"
            try:
                os.rename(older, f"{self.path}.{number}")
            except FileNotFoundError:
                continue
        self._open()


def _encode(stream: str, data: bytes, stamp: str) -> bytes:
    text = data.decode("utf-8", "replace")
    tail = f',"stream":"{stream}","time":"{stamp}"}}\n'
    ends = data.endswith(b"\n")
    if "\\" not in text:
        # No backslash of the container's own, so every \n in the encoded text is an end of line.
        body = encode_basestring(text)
        if ends:
            return ('{"log":' + body[:-3].replace("\\n", '\\n"' + tail + '{"log":"') + '\\n"' + tail).encode()
        return ('{"log":' + body.replace("\\n", '\\n"' + tail + '{"log":"') + tail).encode()
    lines = text.split("\n")
    last = lines.pop()
    parts = ['{"log":' + encode_basestring(line + "\n") + tail for line in lines]
    if last:
        parts.append('{"log":' + encode_basestring(last) + tail)
    return "".join(parts).encode()


_prefix_second = -1
_prefix = ""


def _rfc3339(ns: int) -> str:
    """As Go's RFC3339Nano: no trailing zeros in the fraction."""
    global _prefix_second, _prefix
    second, fraction = divmod(ns, 1_000_000_000)
    if second != _prefix_second:
        _prefix_second = second
        _prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    if not fraction:
        return _prefix + "Z"
    return f"{_prefix}.{fraction:09d}".rstrip("0") + "Z"
