"""Deletion and flushing, off everyone's way.

Whatever is to go is renamed into the trash, which is atomic and fast, and deleted from there by another process. A
crash leaves the rest in the trash for the next start. A thread flushes what was made to disk.
"""

import contextlib
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from wherry.kernel.sweeper import Sweeper

# Layers of one image arrive in a row: they are flushed together, once the disk has a moment's rest.
_SETTLE_SECONDS = 2.0
_PATIENCE_SECONDS = 5.0


class Janitor:
    """`flush` is called in the thread after `settle`, once things are quiet."""

    def __init__(self, trash: Path, flush: Callable[[], None], sweeper: Sweeper) -> None:
        trash.mkdir(exist_ok=True)
        self._trash = os.open(trash, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._flush = flush
        self._path = str(trash)
        self._sweeper = sweeper
        # Leftovers of other processes must not be hit by our names.
        self._prefix = os.urandom(4).hex()
        self._numbers = count()
        self._queue: SimpleQueue[bool] = SimpleQueue()
        self._thread: Thread | None = None
        for name in os.listdir(trash):
            sweeper.discard(f"{trash}/{name}")
        self._thread = Thread(target=self._work, name="snapshot-janitor", daemon=True)
        self._thread.start()

    def discard(self, path: str | Path) -> None:
        """Rename `path`, on the same file system, into the trash; FileNotFoundError when it is not there."""
        name = f"{self._prefix}-{next(self._numbers)}"
        os.rename(path, name, dst_dir_fd=self._trash)
        self._sweeper.discard(f"{self._path}/{name}")

    def settle(self) -> None:
        """Something was made that should be flushed to disk soon."""
        self._queue.put(True)

    def close(self) -> None:
        if self._thread is not None:
            self._queue.put(False)
            self._thread.join(_PATIENCE_SECONDS)
            if not self._thread.is_alive():
                os.close(self._trash)
            self._thread = None
            self._sweeper.close()

    def _work(self) -> None:
        unsettled = False
        while True:
            try:
                unsettled = self._queue.get(timeout=_SETTLE_SECONDS if unsettled else None)
            except Empty:
                unsettled = False
                # A disk that fails now leaves the layers marked, so they are not believed after a reboot.
                with contextlib.suppress(OSError):
                    self._flush()
                continue
            if not unsettled:
                return
