"""Docker's json-file format: one object a line, {"log": "...", "stream": "stdout", "time": RFC 3339 to the ns}.

Written whole chunks at a time, by operations on whole chunks of bytes: what a line costs is one replacement of its
newline. The lines of one chunk carry the time at which it was read. Times in a file never go back, whatever the clock
does, so that a reader can find a moment by bisection.
"""

import time

from wherry.logs.frame import STDERR, STDOUT
from wherry.logs.kept import KeptFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.logs.rotation import Rotation

_STREAMS = {STDOUT: b"stdout", STDERR: b"stderr"}
_OPENING = b'{"log":"'
_SHORT = {8: b"\\b", 9: b"\\t", 12: b"\\f", 13: b"\\r"}
_ESCAPES = (
    (b"\\", b"\\\\"),  # first: what follows adds backslashes
    (b'"', b'\\"'),
    *((bytes([code]), _SHORT.get(code, b"\\u%04x" % code)) for code in range(32) if code != 10),
)


class JSONFile:
    """The writing end of one log. Not thread-safe. `attributes`: JSON that each record carries as "attrs", or empty."""

    __slots__ = ("_attributes", "_files", "_last_ns")

    def __init__(self, path: str, rotation: "Rotation", attributes: str = "") -> None:
        self._files = KeptFiles(path, rotation)
        self._attributes = b',"attrs":' + attributes.encode() if attributes else b""
        self._last_ns = 0
        self._drop_half_record()

    @property
    def lost(self) -> int:
        """Bytes of output that could not be written."""
        return self._files.lost

    def write(self, stream: int, data: bytes) -> None:
        """Append `data`: whole lines, or one line without its end."""
        now = self._last_ns = max(time.time_ns(), self._last_ns)
        closing = b'","stream":"%s"%s,"time":"%s"}\n' % (_STREAMS[stream], self._attributes, _rfc3339(now))
        text = escape(data)
        if text.endswith(b"\n"):
            closing = b"\\n" + closing
            text = text.replace(b"\n", closing + _OPENING)
            pieces: tuple[bytes | memoryview, ...] = (_OPENING, memoryview(text)[: -len(_OPENING)])
            length = len(text)
        else:
            pieces = (_OPENING, text, closing)
            length = len(_OPENING) + len(text) + len(closing)
        limit = self._files.rotation.max_size
        if limit and self._files.size + length > limit:
            self._write_split(b"".join(pieces), limit)
        elif not self._files.append(pieces, length):
            self._files.lost += len(data)

    def ready(self) -> bool:
        """Always: a file makes nobody wait."""
        return True

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        self._files.close()

    def _write_split(self, records: bytes, limit: int) -> None:
        files, start = self._files, 0
        while start < len(records):
            end = len(records)
            if files.size + end - start > limit:
                end = records.rfind(b"\n", start, start + max(limit - files.size, 0)) + 1
            if not end and files.size:
                files.rotate()
                continue
            end = end or records.index(b"\n", start) + 1  # one record alone may be larger than a file
            if not files.append((memoryview(records)[start:end],), end - start):
                files.lost += len(records) - start
                return
            start = end

    def _drop_half_record(self) -> None:
        # A machine that went down in a write may have left one.
        files = self._files
        if files.size and files.read(1, files.size - 1) != b"\n":
            tail = files.read(1 << 20, max(0, files.size - (1 << 20)))
            files.extend(files.size - len(tail) + tail.rfind(b"\n") + 1)


def escape(data: bytes) -> bytes:
    """`data` as it stands inside a JSON string, but for its newlines; what is not UTF-8 is replaced.

    Each step is one pass over the whole at the speed of memory (memchr(3): 0.01 ns a byte), and most end there.
    Looking at every character, as an encoder or a table does, costs more than all of them together.
    """
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            data = data.decode("utf-8", "replace").encode()
    for character, escaped in _ESCAPES:
        if character in data:
            data = data.replace(character, escaped)
    return data


_prefix_second = -1
_prefix = ""


def _rfc3339(ns: int) -> bytes:
    """As Go's RFC3339Nano: no trailing zeros in the fraction."""
    global _prefix_second, _prefix
    second, fraction = divmod(ns, 1_000_000_000)
    if second != _prefix_second:
        _prefix_second = second
        _prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    if not fraction:
        return _prefix.encode() + b"Z"
    return (f"{_prefix}.{fraction:09d}".rstrip("0") + "Z").encode()
