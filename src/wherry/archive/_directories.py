"""Directories below a root, by descriptor: every name is resolved by the kernel inside the root, then held open.

A cached descriptor can go stale (its directory was removed or replaced), never astray: it always holds a directory
that was below the root when it was opened.
"""

import os
import stat
from collections.abc import Callable

from wherry.archive._names import components
from wherry.kernel.paths import open_beneath, open_in_root

_CACHED = 64
_OPEN = os.O_PATH | os.O_DIRECTORY
# Called with (parent descriptor, name, path below the destination) for each directory implied but not listed.
Adopt = Callable[[int, bytes, bytes], None]


class Directories:
    """`root` is borrowed. `beneath`: a link that leads out of it is an error (EXDEV), not resolved inside."""

    def __init__(self, root: int, adopt: Adopt, *, beneath: bool) -> None:
        self._root = root
        self._adopt = adopt
        self._resolve = open_beneath if beneath else open_in_root
        # Set by whoever removes or replaces something: names may lead elsewhere, from the next `trim` on.
        self.stale = False
        self._cache: dict[bytes, int] = {}
        self.get = self._cache.get

    def open(self, name: bytes) -> int:
        """The directory `name`, made when it is absent; valid until the next `trim`."""
        found = self._cache.get(name)
        if found is not None:
            return found
        parts = components(name)
        try:
            found = self._resolve(self._root, b"/".join(parts) or b".", _OPEN)
        except (FileNotFoundError, NotADirectoryError):
            found = self._make(parts)
        self._cache[name] = found
        return found

    def find(self, name: bytes) -> int | None:
        """The directory `name` if there is one; valid as that of `open`."""
        try:
            found = self._cache.get(name)
            if found is None:
                found = self._cache[name] = self._resolve(self._root, b"/".join(components(name)) or b".", _OPEN)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found

    def hold(self, name: bytes, fd: int) -> None:
        """Take over `fd` as the directory `name`, which is likely to be asked for next."""
        old = self._cache.pop(name, None)
        if old is not None:
            os.close(old)
        self._cache[name] = fd

    def trim(self) -> None:
        """Close the oldest descriptors when there are many, all when stale. Called between entries."""
        cache = self._cache
        if self.stale:
            self.close()
            self.stale = False
        while len(cache) > _CACHED:
            os.close(cache.pop(next(iter(cache))))

    def close(self) -> None:
        for fd in self._cache.values():
            os.close(fd)
        self._cache.clear()

    def _make(self, parts: list[bytes]) -> int:
        current = os.dup(self._root)
        try:
            for index, part in enumerate(parts):
                path = b"/".join(parts[: index + 1])
                try:
                    following = self._resolve(self._root, path, _OPEN)
                except (FileNotFoundError, NotADirectoryError):
                    self._adopt(current, part, path)
                    following = os.open(part, _OPEN | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
                os.close(current)
                current = following
        except BaseException:
            os.close(current)
            raise
        return current


def is_whiteout(status: os.stat_result) -> bool:
    """Overlay's mark for "nothing here, whatever the layers below say": a character device 0:0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
