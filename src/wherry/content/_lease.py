import json
import os
import time
from collections.abc import Callable
from threading import RLock
from types import TracebackType

from wherry.spec.digest import Digest
from wherry.state import Delete, Put, Store

_PREFIX = "content/leases/"


class Lease:
    """Protects blobs from collection until it is released; leaving its `with` block releases it."""

    def __init__(self, store: Store, lock: RLock, name: str) -> None:
        self.name = name
        self._store = store
        self._lock = lock

    def add(self, digest: Digest) -> None:
        """Protect `digest` from now on, whether its blob is there yet or not."""
        with self._lock:
            self._store.write(Put(f"{_PREFIX}{self.name}/{digest}", b"{}"))

    def release(self) -> None:
        """Let go of everything; twice is harmless."""
        keys = [key for key, _ in self._store.scan(f"{_PREFIX}{self.name}/")]
        self._store.write(*(Delete(key) for key in keys), Delete(f"{_PREFIX}{self.name}"))

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Leases:
    """The leases of a content store."""

    def __init__(self, store: Store, lock: RLock) -> None:
        self._store = store
        self._lock = lock

    def take(self, purpose: str) -> Lease:
        """A new lease; `purpose` ("pull", "load") is for people who look into the store."""
        name = f"{purpose}-{os.urandom(8).hex()}"
        self._store.write(Put(f"{_PREFIX}{name}", json.dumps({"created": time.time_ns()}).encode()))
        return Lease(self._store, self._lock, name)

    def digests(self) -> set[Digest]:
        """Everything leased now."""
        found = (key.removeprefix(_PREFIX).partition("/")[2] for key, _ in self._store.scan(_PREFIX))
        return {Digest(digest) for digest in found if digest}

    def recent(self, purpose: str, seconds: float) -> dict[str, set[Digest]]:
        """The leases taken for `purpose` in the last `seconds`: their names, and what each protects."""
        since = time.time_ns() - int(seconds * 1e9)
        found: dict[str, set[Digest]] = {}
        for key, value in self._store.scan(f"{_PREFIX}{purpose}-"):
            name, _, digest = key.removeprefix(_PREFIX).partition("/")
            if not digest and json.loads(value)["created"] >= since:
                found[name] = set()
            elif digest and name in found:
                found[name].add(Digest(digest))
        return found

    def drop(self, unwanted: Callable[[str], bool] = lambda name: True) -> None:
        """Release leases by name: at start, those of the operations that died with the last process."""
        keys = [key for key, _ in self._store.scan(_PREFIX)]
        self._store.write(*(Delete(key) for key in keys if unwanted(key.removeprefix(_PREFIX).partition("/")[0])))
