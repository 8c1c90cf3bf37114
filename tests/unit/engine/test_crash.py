"""An engine that dies between any two operations, and the one that comes after it."""

import asyncio
import os

from test_lifecycle import create
from world import Killed, World

from wherry.engine import Engine
from wherry.errors import WherryError


async def _whole_life(engine: Engine) -> None:
    c = engine.containers
    id = await create(engine, "sleep", name="victim", Volumes={"/scratch": {}}, host={"Binds": ["kept:/kept"]})
    await c.start(id)
    await c.stop(id)
    await c.start(id)
    await c.remove(id, force=True, volumes=True)
    brief = await create(engine, "true", name="brief", host={"AutoRemove": True}, Volumes={"/scratch": {}})
    removed = c.wait_registered(brief, "removed")
    await c.start(brief)
    await removed
    await engine.settle()


async def _live_until_killed(world: World, kill_at: int) -> bool:
    """Whether the whole life was lived."""
    engine = await world.open()
    bystander = await create(engine, "sleep", name="bystander")
    await engine.containers.start(bystander)
    await engine.settle()
    world.operations, world.kill_at, world.killed = 0, kill_at, asyncio.Event()
    world.loop = asyncio.get_running_loop()
    task = asyncio.create_task(_whole_life(engine))
    try:
        async with asyncio.timeout(5):
            killed = asyncio.create_task(world.killed.wait())
            await asyncio.wait((task, killed), return_when=asyncio.FIRST_COMPLETED)
            if not world.killed.is_set():
                await task
                return True
    finally:
        # The process is gone: nothing of it runs on, whatever it was waiting for.
        world.clients.clear()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_default_executor()
        world.kill_at = None
    return False


def _check(world: World, engine: Engine) -> None:
    index = engine._core.index
    all_ids = {container.id for container in index}
    running = {container.id for container in index if container.state.status == "running"}
    assert {container.state.status for container in index} <= {"created", "running", "exited"}
    assert world.snapshots.keys() == all_ids
    assert world.endpoints.keys() == world.processes.keys() == world.streams.keys() == running
    assert set(os.listdir(world.config.containers_dir)) == all_ids
    assert set(os.listdir(world.config.bundles_dir)) == running
    assert world.store.scan("garbage/") == []
    assert len(world.store.scan("states/")) == len(world.store.scan("containers/")) == len(all_ids)
    used = {mount.name for container in index for mount in container.definition.mounts}
    assert world.volumes - used <= {"kept"}


def test_whatever_was_half_done_is_whole_after_the_next_start(tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    kill_at, lived = 0, False
    while not lived:
        kill_at += 1
        world = World(tmp_path_factory.mktemp("world"))
        try:
            lived = asyncio.run(_live_until_killed(world, kill_at))
            asyncio.run(_come_back(world, kill_at))
        finally:
            world.close()
    assert kill_at > 40


async def _come_back(world: World, kill_at: int) -> None:
    engine = await world.open()
    try:
        await engine.settle()
        try:
            _check(world, engine)
            state = (await engine.containers.inspect("bystander"))["State"]
            assert state["Status"] == "running"
        except (AssertionError, WherryError) as error:
            raise AssertionError(f"killed at operation {kill_at}: {error}") from error
    finally:
        await engine.close()


def test_an_exit_that_nobody_saw_is_dealt_with(world: World) -> None:
    async def before() -> tuple[str, str]:
        engine = await world.open()
        plain = await create(engine, "sleep")
        gone = await create(engine, "sleep", host={"AutoRemove": True})
        await engine.containers.start(plain)
        await engine.containers.start(gone)
        await engine.close()
        return plain, gone

    plain, gone = asyncio.run(before())
    world.end(plain, 9)
    world.end(gone, 0)

    async def after() -> None:
        engine = await world.open()
        await engine.settle()
        assert (await engine.containers.wait(plain)).status == 9
        assert [row["Id"] for row in await engine.containers.list(all=True)] == [plain]
        _check(world, engine)
        await engine.close()

    asyncio.run(after())


def test_a_logger_started_anew_is_given_the_streams(world: World) -> None:
    async def scenario() -> None:
        engine = await world.open()
        id = await create(engine, "sleep")
        await engine.containers.start(id)
        for fd in world.streams.pop(id):
            os.close(fd)
        await engine._after_logger()
        assert len(world.streams[id]) == 2
        await engine.close()

    asyncio.run(scenario())


def test_a_monitor_that_lost_a_container_has_its_end_told(world: World) -> None:
    async def scenario() -> None:
        engine = await world.open()
        id = await create(engine, "sleep")
        await engine.containers.start(id)
        pending = engine.containers.wait_registered(id)
        del world.processes[id]
        for client in list(world.clients):
            client.lose()
        assert (await pending).status == 255
        await engine.close()

    asyncio.run(scenario())


def test_killed_is_what_ends_the_engine_here(world: World) -> None:
    """The crash tests rest on this: after the kill nothing reaches the world."""

    async def scenario() -> None:
        engine = await world.open()
        world.kill_at = world.operations + 1
        try:
            await create(engine, "sleep")
        except Killed:
            assert world.snapshots == {}
            assert world.store.scan("") == []
        else:
            raise AssertionError("nothing was killed")
        world.kill_at = None
        await engine.close()

    asyncio.run(scenario())
