"""The registry's backend in an object store: S3, Google Cloud Storage, Azure Blob Storage, through `obstore`.

Object stores cannot append, and cannot set a time. An upload is therefore a row of objects, put together when it is
committed (`_uploads/<id>/<offset>`); touching a key writes a marker beside it (`_touched/<key>`), whose time counts.
Uploads are not locked: two writers to one upload would both have to begin at its end, and the digest tells.
"""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wherry.errors import InvalidArgument
from wherry.registry.backend import Entry, Missing

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_TOUCHED, _UPLOADS = "_touched", "_uploads"
_PART = 8 << 20


def open_objects(url: str, options: dict[str, str]) -> "Objects":
    """The store at `url` (s3://bucket/prefix, gs://..., az://...); what else it needs comes from `options` and the
    environment, as the vendor's own tools take it. InvalidArgument."""
    try:
        import obstore.store
        from obstore.exceptions import BaseError
    except ImportError:
        raise InvalidArgument(
            f"{url} needs the package obstore", object=url, hint="install wherry with the extra `registry`"
        ) from None
    try:
        given: Any = options
        return Objects(obstore.store.from_url(url, **given))
    except (BaseError, TypeError, ValueError) as error:
        raise InvalidArgument(f"{url} cannot be used: {error}", object=url) from None


class Objects:
    """A Backend in an object store."""

    def __init__(self, store: "ObjectStore") -> None:
        import obstore

        self._api = obstore
        self._store = store

    async def stat(self, key: str) -> Entry | None:
        found = await self._head(key)
        if found is None:
            return None
        marker = await self._head(f"{_TOUCHED}/{key}")
        return Entry(found.size, max(found.time, marker.time if marker else 0.0))

    async def read(self, key: str) -> bytes:
        try:
            return bytes(await (await self._api.get_async(self._store, key)).bytes_async())
        except FileNotFoundError:
            raise Missing(f"{key} is not there", object=key) from None

    async def write(self, key: str, data: bytes) -> None:
        await self._api.put_async(self._store, key, data)

    async def touch(self, key: str) -> bool:
        if await self._head(key) is None:
            return False
        await self.write(f"{_TOUCHED}/{key}", b"")
        return True

    async def delete(self, key: str) -> None:
        for each in (key, f"{_TOUCHED}/{key}"):
            try:
                await self._api.delete_async(self._store, each)
            except FileNotFoundError:
                continue

    async def names(self, key: str) -> list[str]:
        prefix = f"{key}/" if key else ""
        found = await self._api.list_with_delimiter_async(self._store, prefix)
        paths = [entry["path"] for entry in found["objects"]] + list(found["common_prefixes"])
        return sorted({path.removeprefix(prefix).strip("/") for path in paths})

    def path(self, key: str) -> Path | None:
        return None

    async def stream(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        if start >= end:
            return
        try:
            found = await self._api.get_async(self._store, key, options={"range": (start, end)})
        except FileNotFoundError:
            raise Missing(f"{key} is not there", object=key) from None
        async for piece in found.stream():
            yield bytes(piece)

    async def begin(self, id: str) -> "ObjectUpload":
        await self.write(f"{_UPLOADS}/{id}/begun", str(time.time()).encode())
        return ObjectUpload(self, id, [])

    async def resume(self, id: str) -> "ObjectUpload":
        names = await self.names(f"{_UPLOADS}/{id}")
        if not names:
            raise Missing(f"upload {id} is not there", object=id)
        parts = []
        for name in sorted(name for name in names if name.isdigit()):
            found = await self._head(f"{_UPLOADS}/{id}/{name}")
            parts.append((name, found.size if found else 0))
        return ObjectUpload(self, id, parts)

    async def uploads(self) -> list[tuple[str, float]]:
        found = []
        for id in await self.names(_UPLOADS):
            times = [await self._head(f"{_UPLOADS}/{id}/{name}") for name in await self.names(f"{_UPLOADS}/{id}")]
            found.append((id, max((each.time for each in times if each), default=0.0)))
        return found

    async def check(self) -> None:
        await self.names("blobs")

    async def close(self) -> None:
        pass

    async def _head(self, key: str) -> Entry | None:
        try:
            found = await self._api.head_async(self._store, key)
        except FileNotFoundError:
            return None
        return Entry(found["size"], found["last_modified"].timestamp())


class ObjectUpload:
    """An upload as a row of objects; what is short of a whole one waits in memory until `close`."""

    def __init__(self, owner: Objects, id: str, parts: list[tuple[str, int]]) -> None:
        self._owner, self._id, self._parts = owner, id, parts
        self._flushed = sum(size for _, size in parts)
        self._pending = bytearray()
        self._gone = False

    @property
    def size(self) -> int:
        return self._flushed + len(self._pending)

    async def write(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) >= _PART:
            await self._flush()

    async def chunks(self) -> AsyncIterator[bytes]:
        await self._flush()
        for name, size in self._parts:
            async for piece in self._owner.stream(self._key(name), 0, size):
                yield piece

    async def commit(self, key: str) -> None:
        await self._owner._api.put_async(self._owner._store, key, self.chunks(), use_multipart=True)
        await self.discard()

    async def discard(self) -> None:
        self._gone = True
        for name in [*(name for name, _ in self._parts), "begun", "repository"]:
            await self._owner.delete(self._key(name))

    async def close(self) -> None:
        if not self._gone:
            await self._flush()

    async def _flush(self) -> None:
        if self._pending:
            name = f"{self._flushed:020d}"
            await self._owner.write(self._key(name), bytes(self._pending))
            self._parts.append((name, len(self._pending)))
            self._flushed += len(self._pending)
            self._pending.clear()

    def _key(self, name: str) -> str:
        return f"{_UPLOADS}/{self._id}/{name}"
