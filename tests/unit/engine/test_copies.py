"""Copying into a container, and what must not wait for it."""

import asyncio
import os

import pytest
from test_lifecycle import create, play
from world import World

from wherry.engine import Engine, copies
from wherry.errors import Conflict


def test_a_start_waits_for_a_copy_only_while_it_gets_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "STALL_SECONDS", 0.2)

    async def scenario(engine: Engine) -> None:
        id = await create(engine, "sleep")
        reading, writing = os.pipe()
        with open(reading, "rb") as stream:
            copying = asyncio.create_task(engine.containers.archive_put(id, "/", stream))
            copying.add_done_callback(lambda _: os.close(writing))
            await asyncio.sleep(0)
            # Neither looking at it nor a new name waits for anything.
            await engine.containers.rename(id, "other")
            starting = asyncio.create_task(engine.containers.start(id))
            with pytest.raises(Conflict, match="stalled while it was to be started"):
                await copying
            assert await starting
            assert not engine._core.index.find(id).copies

    play(world, scenario)
