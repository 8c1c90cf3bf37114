"""A log's files: the one that is written and those it was before, path.1 (the youngest) to path.N, as docker names
them.

Whoever adds to the log calls `append` with whole records. It never waits for compression, which `squeeze` does later,
and never fails: what cannot be written (a full disk) is counted in `lost`.
"""

import os

from wherry.logs import squeeze

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.logs.rotation import Rotation


class KeptFiles:
    """The writing end of one log. Not thread-safe. `size`: of the newest file. `lost`: bytes that are not in it."""

    __slots__ = ("_fd", "lost", "path", "rotation", "size")

    def __init__(self, path: str, rotation: "Rotation") -> None:
        self.path = path
        self.rotation = rotation
        self.lost = 0
        self.size = 0
        self._fd = -1
        self.open()
        if rotation.compress:
            squeeze.later(path, rotation.max_file)

    def append(self, pieces: "Sequence[bytes | memoryview]", length: int) -> bool:
        """Add `pieces`, `length` bytes together, to the newest file, or nothing of them."""
        try:
            written = os.writev(self._fd, pieces)
            if written != length:
                # Disk full in the middle: take the half record back, a reader must never see one.
                os.ftruncate(self._fd, self.size)
                return False
        except OSError:
            return False  # the container must not stop because the disk is full
        self.size += written
        return True

    def rotate(self) -> None:
        """Begin a new file; the oldest goes when there are too many."""
        count = self.rotation.max_file
        os.close(self._fd)
        self._fd = -1
        if count == 1:
            _remove(self.path)  # another file, so that who reads the old one can finish it
            self.open()
            return
        with squeeze.lock:
            _remove(f"{self.path}.{count - 1}")
            _remove(f"{self.path}.{count - 1}.gz")
            for number in range(count - 1, 0, -1):
                older = self.path if number == 1 else f"{self.path}.{number - 1}"
                for ending in ("", ".gz") if number > 1 else ("",):
                    try:
                        os.rename(older + ending, f"{self.path}.{number}{ending}")
                    except FileNotFoundError:
                        continue
        self.open()
        if self.rotation.compress:
            squeeze.later(self.path, count)

    def extend(self, size: int) -> bool:
        """Make the newest file `size` bytes long; what is added reads as zeros."""
        try:
            os.ftruncate(self._fd, size)
        except OSError:
            return False
        self.size = size
        return True

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def open(self) -> None:
        """Open the newest file, made if need be."""
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        self.size = os.fstat(self._fd).st_size

    def read(self, size: int, offset: int) -> bytes:
        """Bytes of the newest file."""
        return os.pread(self._fd, size, offset)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
