"""Every backend of the registry keeps the contract of `wherry.registry.backend`."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from wherry.errors import InvalidArgument
from wherry.registry.backend import Backend, Busy, Missing
from wherry.registry.directory import Directory
from wherry.registry.objects import Objects

Open = Callable[[], Backend]


@pytest.fixture(params=["directory", "objects"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same place anew, as another process would."""
    if request.param == "directory":
        return lambda: Directory(tmp_path / "store")
    store = MemoryStore()
    return lambda: Objects(store)


def test_values(opened: Open) -> None:
    async def check() -> None:
        backend = opened()
        await backend.write("a/b/c", b"one")
        await backend.write("a/b/c", b"two")
        await backend.write("a/d", b"")
        assert await opened().read("a/b/c") == b"two"
        found = await backend.stat("a/b/c")
        assert found is not None
        assert found.size == 3
        assert await backend.names("a") == ["b", "d"]
        assert await backend.names("nothing") == []
        assert [piece async for piece in backend.stream("a/b/c", 1, 3)] == [b"wo"]
        await backend.delete("a/b/c")
        await backend.delete("a/b/c")
        assert await backend.stat("a/b/c") is None
        assert await backend.names("a") == ["d"]
        with pytest.raises(Missing):
            await backend.read("a/b/c")
        await backend.check()

    asyncio.run(check())


def test_touching_makes_a_value_new(opened: Open) -> None:
    async def check() -> None:
        backend = opened()
        assert not await backend.touch("a")
        await backend.write("a", b"x")
        before = await backend.stat("a")
        assert await backend.touch("a")
        after = await opened().stat("a")
        assert before is not None
        assert after is not None
        assert after.time >= before.time
        assert await backend.read("a") == b"x"

    asyncio.run(check())


def test_an_upload_survives_who_began_it(opened: Open) -> None:
    async def check() -> None:
        upload = await opened().begin("u")
        await upload.write(b"first ")
        await upload.close()
        assert [id for id, _ in await opened().uploads()] == ["u"]
        upload = await opened().resume("u")
        assert upload.size == 6
        await upload.write(b"second")
        assert b"".join([piece async for piece in upload.chunks()]) == b"first second"
        await upload.commit("blobs/x")
        await upload.close()
        assert await opened().read("blobs/x") == b"first second"
        with pytest.raises(Missing):
            await opened().resume("u")
        assert await opened().uploads() == []

    asyncio.run(check())


def test_a_large_upload_is_put_together_in_order(opened: Open) -> None:
    async def check() -> None:
        pieces = [bytes([number]) * (3 << 20) for number in range(7)]
        upload = await opened().begin("u")
        for piece in pieces:
            await upload.write(piece)
        await upload.commit("big")
        assert await opened().read("big") == b"".join(pieces)

    asyncio.run(check())


def test_a_discarded_upload_is_gone(opened: Open) -> None:
    async def check() -> None:
        backend = opened()
        upload = await backend.begin("u")
        await upload.write(b"x")
        await upload.discard()
        await upload.close()
        assert await backend.uploads() == []
        with pytest.raises(Missing):
            await backend.resume("u")

    asyncio.run(check())


def test_one_writer_at_a_time_where_files_can_be_locked(tmp_path: Path) -> None:
    async def check() -> None:
        first = await Directory(tmp_path).begin("u")
        with pytest.raises(Busy):
            await Directory(tmp_path).resume("u")
        await first.close()
        await (await Directory(tmp_path).resume("u")).close()

    asyncio.run(check())


def test_a_key_does_not_lead_out(tmp_path: Path) -> None:
    for key in ("../x", "a/../../x", "/etc/passwd"):
        with pytest.raises(InvalidArgument):
            asyncio.run(Directory(tmp_path).read(key))
