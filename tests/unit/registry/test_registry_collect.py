"""Collection: what nothing refers to goes, what is new or in use stays, whatever runs at the same time."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from registry_process import dump, image
from wherry.registry.collect import Collected, collect
from wherry.registry.directory import Directory
from wherry.registry.errors import Refused
from wherry.registry.manifest import parse_manifest
from wherry.registry.store import Repositories, blob_key, blob_link
from wherry.spec.digest import Digest, sha256

GRACE = 3600.0


class World:
    """A store in a directory, whose files can be made old."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.backend = Directory(root)
        self.repositories = Repositories(self.backend)

    async def push_blob(self, name: str, data: bytes) -> Digest:
        digest = sha256(data)
        await self.backend.write(blob_key(digest), data)
        assert await self.repositories.link(name, digest)
        return digest

    async def push(self, name: str, tag: str, layer: bytes, **more: Any) -> Digest:
        for data in (b"config", layer):
            await self.push_blob(name, data)
        manifest = parse_manifest(dump(image(b"config", layer, **more)))
        await self.repositories.put_manifest(name, manifest, [tag] if tag else [])
        return manifest.digest

    def age(self) -> None:
        """As if two grace periods had gone by."""
        for directory, _, files in os.walk(self.root):
            for name in files:
                path = Path(directory) / name
                then = path.stat().st_mtime - 2 * GRACE
                os.utime(path, (then, then))

    async def collect(self, **options: Any) -> Collected:
        return await collect(self.repositories, GRACE, **options)

    async def has(self, digest: Digest) -> bool:
        return await self.backend.stat(blob_key(digest)) is not None


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


def test_only_what_is_old_and_referred_to_by_nothing_goes(world: World) -> None:
    async def check() -> None:
        kept = await world.push("a/b", "v1", b"layer")
        orphan = await world.push_blob("a/b", b"orphan")
        upload = await world.backend.begin("abandoned")
        await upload.close()
        assert await world.collect() == Collected(0, 0, 0, 0)
        world.age()
        fresh = await world.push_blob("a/b", b"fresh")
        assert await world.collect() == Collected(1, 1, len(b"orphan"), 1)
        assert [await world.has(digest) for digest in (kept, sha256(b"layer"), fresh, orphan)] == [
            True,
            True,
            True,
            False,
        ]
        assert (await world.repositories.manifest("a/b", "v1"))[0] == kept

    run(check)


def test_a_deleted_image_gives_back_only_what_no_other_has(world: World) -> None:
    async def check() -> None:
        one, two = await world.push("a", "v1", b"one"), await world.push("b", "v1", b"two")
        await world.repositories.delete_manifest("a", one)
        world.age()
        await world.collect()
        assert [await world.has(sha256(data)) for data in (b"one", b"config", b"two")] == [False, True, True]
        assert await world.has(two)
        assert [name async for name in world.repositories.names()] == ["b"]

    run(check)


def test_untagged_manifests_go_when_that_is_asked_for(world: World) -> None:
    async def check() -> None:
        kept = await world.push("a", "v1", b"one")
        loose = await world.push("a", "", b"two")
        signature = await world.push("a", "", b"sig", subject={"mediaType": "x/y", "digest": kept, "size": 1})
        world.age()
        await world.collect()
        assert await world.has(loose)
        await world.collect(untagged=True)
        await world.collect()
        assert [await world.has(digest) for digest in (kept, loose, signature)] == [True, False, True]

    run(check)


def test_a_push_that_meets_a_collection_is_whole_or_refused(world: World) -> None:
    """The collector runs between any two steps of a push whose layer is old and referred to by nothing."""

    async def check() -> None:
        outcomes = set()
        for stop in range(12):
            layer = f"layer {stop}".encode()
            name = f"repo{stop}"
            for data in (b"config", layer):
                await world.push_blob(name, data)
            world.age()
            manifest = parse_manifest(dump(image(b"config", layer)))
            meddler = _Meddler(world, stop)
            meddled = Repositories(meddler)  # type: ignore[arg-type]
            try:
                await meddled.put_manifest(name, manifest, ["v1"])
            except Refused as refused:
                outcomes.add(refused.code)
                with pytest.raises(Refused):
                    await world.repositories.manifest(name, "v1")
                continue
            outcomes.add("whole")
            await world.collect()
            for digest in manifest.blobs:
                assert await world.has(digest), stop
                assert await world.backend.stat(blob_link(name, digest)), stop
        assert outcomes == {"MANIFEST_BLOB_UNKNOWN", "whole"}

    run(check)


class _Meddler:
    """A backend that lets a collection run before its n-th call."""

    def __init__(self, world: World, when: int) -> None:
        self._world, self._left = world, when

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._world.backend, name)

        async def call(*arguments: Any) -> Any:
            if self._left == 0:
                await self._world.collect()
            self._left -= 1
            return await real(*arguments)

        return call
