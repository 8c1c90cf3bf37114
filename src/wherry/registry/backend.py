"""What a place to keep bytes must do for the registry. `directory` and `objects` do it and pass one contract suite.

A *key* is a relative path ("blobs/sha256/ab/ab12..."). Writing a key is atomic: a reader finds the old value, the new
one or none. A key's *time* is when it was last written or touched; collection goes by it. An *upload* is bytes on their
way to become a blob; it survives the process that began it, and one writer at a time holds it.

    upload = await backend.begin(id)
    await upload.write(b"...")
    await upload.commit("blobs/sha256/...")

Errors: Missing for an absent key or upload, Busy for an upload somebody else writes to, OSError and what the object
store's library raises for the rest.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple, Protocol

from wherry.errors import Conflict, NotFound


class Missing(NotFound):
    """There is no such key or upload."""


class Busy(Conflict):
    """Somebody else writes to this upload."""


class Entry(NamedTuple):
    """Bytes, and Unix seconds."""

    size: int
    time: float


class Upload(Protocol):
    """One upload, held by this writer until `close`."""

    @property
    def size(self) -> int:
        """Bytes written so far."""
        ...

    async def write(self, data: bytes) -> None: ...
    def chunks(self) -> AsyncIterator[bytes]:
        """Everything written so far."""
        ...

    async def commit(self, key: str) -> None:
        """Make it the value of `key`, durably; the upload is gone."""
        ...

    async def discard(self) -> None: ...
    async def close(self) -> None:
        """Let go of it; idempotent, and after commit and discard too."""
        ...


class Backend(Protocol):
    """See the module. Any number of processes may use one place at once."""

    async def stat(self, key: str) -> Entry | None: ...
    async def read(self, key: str) -> bytes: ...
    async def write(self, key: str, data: bytes) -> None: ...
    async def touch(self, key: str) -> bool:
        """Set its time to now; False when it is absent."""
        ...

    async def delete(self, key: str) -> None:
        """Absent is no error."""
        ...

    async def names(self, key: str) -> list[str]:
        """The last parts of the keys right below `key`, and of the keys' parents there; sorted."""
        ...

    def path(self, key: str) -> Path | None:
        """The file that holds it, for sendfile; None where there are no files."""
        ...

    def stream(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes from `start` until before `end`."""
        ...

    async def begin(self, id: str) -> Upload: ...
    async def resume(self, id: str) -> Upload: ...
    async def uploads(self) -> list[tuple[str, float]]:
        """Every upload with its time."""
        ...

    async def check(self) -> None:
        """Raise when nothing can be kept here now: for health checks."""
        ...

    async def close(self) -> None: ...
