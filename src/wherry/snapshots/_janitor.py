"""Deletion and flushing, off everyone's way.

Whatever is to go is renamed into the trash, which is atomic and fast; a thread deletes it from there. A crash leaves
the rest in the trash for the next start.
"""

import contextlib
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from wherry.archive import remove_tree

# Layers of one image arrive in a row: they are flushed together, once the disk has a moment's rest.
_SETTLE_SECONDS = 2.0
# How long a shutdown waits for deletions; the rest is done at the next start.
_PATIENCE_SECONDS = 5.0


class Janitor:
    """`flush` is called in the thread after `settle`, once things are quiet."""

    def __init__(self, trash: Path, flush: Callable[[], None]) -> None:
        trash.mkdir(exist_ok=True)
        self._trash = os.open(trash, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._flush = flush
        self._path = trash
        # Leftovers of other processes must not be hit by our names.
        self._prefix = os.urandom(4).hex()
        self._numbers = count()
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._thread: Thread | None = None
        for name in os.listdir(trash):
            self._queue.put(name)
        self._thread = Thread(target=self._work, name="snapshot-janitor", daemon=True)
        self._thread.start()

    def discard(self, path: str | Path) -> None:
        """Rename `path`, on the same file system, into the trash; FileNotFoundError when it is not there."""
        name = f"{self._prefix}-{next(self._numbers)}"
        os.rename(path, name, dst_dir_fd=self._trash)
        self._queue.put(name)

    def settle(self) -> None:
        """Something was made that should be flushed to disk soon."""
        self._queue.put("")

    def close(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(_PATIENCE_SECONDS)
            if not self._thread.is_alive():
                os.close(self._trash)
            self._thread = None

    def _work(self) -> None:
        unsettled = False
        while True:
            try:
                name = self._queue.get(timeout=_SETTLE_SECONDS if unsettled else None)
            except Empty:
                unsettled = False
                # A disk that fails now leaves the layers marked, so they are not believed after a reboot.
                with contextlib.suppress(OSError):
                    self._flush()
                continue
            if name is None:
                return
            if name:
                # Still mounted somewhere (EBUSY), or being written to: left for the next start.
                with contextlib.suppress(OSError):
                    remove_tree(self._trash, name)
            else:
                unsettled = True
