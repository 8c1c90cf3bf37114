"""Telling the resolver: whoever needs it first, and what it is told when it could not be had before."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from test_lifecycle import create
from world import World

from wherry.dns.records import Record
from wherry.engine import Engine
from wherry.engine.parts import Resolver
from wherry.errors import Unavailable


class FakeResolver:
    def __init__(self) -> None:
        self.known: set[str] = set()

    async def put(self, record: Record) -> None:
        self.known.add(record.id)

    async def drop(self, id: str) -> None:
        self.known.discard(id)

    async def reset(self, records: Iterable[Record]) -> Sequence[str]:
        self.known = {record.id for record in records}
        return ()

    def close(self) -> None:
        pass


async def with_names(world: World, resolver: FakeResolver, *, fail: bool = False) -> tuple[Engine, list[bool]]:
    """An engine whose containers have names on the default bridge too; an entry set to False ends the failing."""
    failing = [fail]

    async def open_resolver(on_lost: Callable[[], None], start: bool) -> Resolver | None:
        if failing[0]:
            raise Unavailable("the resolver did not start")
        if start:
            # It is spawned in a thread.
            await asyncio.to_thread(lambda: None)
        return resolver

    parts = replace(world.parts(), open_resolver=open_resolver)
    return await Engine.open(replace(world.config, bridge_dns=True), parts), failing


def test_more_first_starts_than_threads_do_not_wait_for_each_other(world: World) -> None:
    async def scenario() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        resolver = FakeResolver()
        engine, _ = await with_names(world, resolver)
        ids = [await create(engine, "sleep") for _ in range(5)]
        async with asyncio.timeout(10):
            await asyncio.gather(*(engine.containers.start(id) for id in ids))
        assert resolver.known == set(ids)
        await engine.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("fail", [False, True])
def test_who_was_found_running_is_told_of_as_soon_as_there_is_a_resolver(world: World, fail: bool) -> None:
    async def scenario() -> None:
        engine, _ = await with_names(world, FakeResolver())
        found = await create(engine, "sleep")
        await engine.containers.start(found)
        await engine.close()
        resolver = FakeResolver()
        engine, failing = await with_names(world, resolver, fail=fail)
        assert resolver.known == (set() if fail else {found})
        failing[0] = False
        other = await create(engine, "sleep")
        await engine.containers.start(other)
        assert resolver.known == {found, other}
        await engine.close()

    asyncio.run(scenario())
