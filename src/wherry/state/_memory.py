from threading import Lock

from wherry.state._store import Change, Put


class MemoryStore:
    """A Store that is gone with the process: for tests."""

    def __init__(self) -> None:
        self._items: dict[str, bytes] = {}
        self._lock = Lock()
        self._closed = False

    def get(self, key: str) -> bytes | None:
        with self._lock:
            self._require_open()
            return self._items.get(key)

    def scan(self, prefix: str) -> list[tuple[str, bytes]]:
        with self._lock:
            self._require_open()
            return sorted(item for item in self._items.items() if item[0].startswith(prefix))

    def write(self, *changes: Change) -> None:
        with self._lock:
            self._require_open()
            for change in changes:
                if isinstance(change, Put):
                    self._items[change.key] = change.value
                else:
                    self._items.pop(change.key, None)

    def close(self) -> None:
        self._closed = True

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError("the store is closed")
