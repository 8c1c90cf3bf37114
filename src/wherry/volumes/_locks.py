"""A lock for each name, there while anyone holds it or waits for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, RLock


class Locks:
    """What is slow for one volume, such as a plugin's call, must not keep the others waiting."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._held: dict[str, tuple[RLock, int]] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        with self._guard:
            lock, count = self._held.get(name) or (RLock(), 0)
            self._held[name] = (lock, count + 1)
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, count = self._held[name]
                if count == 1:
                    del self._held[name]
                else:
                    self._held[name] = (lock, count - 1)
