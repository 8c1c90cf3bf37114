"""A container that is changed stays itself: at once where that can be, else by one start anew; back on failure."""

import asyncio
from typing import Any

import pytest
from test_crash import _check
from test_lifecycle import create, play
from world import World

from wherry.engine import Engine
from wherry.errors import Conflict, FailedPrecondition, InvalidArgument, NotFound
from wherry.spec.alteration import parse_alteration


async def alter(engine: Engine, id: str, **body: Any) -> Any:
    return await engine.containers.alter(id, parse_alteration(body))


async def subject(engine: Engine, name: str = "subject", **host: Any) -> str:
    id = await create(
        engine,
        "sleep",
        name=name,
        Env=["A=1", "B=2"],
        Labels={"old": "1"},
        Volumes={"/scratch": {}},
        ExposedPorts={"80/tcp": {}},
        host={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}, "Binds": ["kept:/kept"], **host},
    )
    await engine.containers.start(id)
    return id


async def pid(engine: Engine, id: str) -> int:
    return int((await engine.containers.inspect(id))["State"]["Pid"])


def test_what_the_kernel_can_change_is_changed_while_it_runs(world: World) -> None:
    async def scenario(engine: Engine) -> None:
        id = await subject(engine)
        before = await pid(engine, id)
        done = await alter(
            engine,
            "subject",
            Ports={"Publish": {"81/udp": [{"HostPort": "8181"}]}, "Unpublish": ["8080:80"]},
            Labels={"Set": {"new": "2"}, "Remove": ["old"]},
            Limits={"PidsLimit": 77},
            RestartPolicy={"Name": "always"},
            Config={"StopTimeout": 3},
        )
        assert (done.id, done.restarted, done.warnings) == (id, False, [])
        shown = await engine.containers.inspect(id)
        assert shown["State"]["Pid"] == before
        assert shown["HostConfig"]["PortBindings"] == {"81/udp": [{"HostIp": "", "HostPort": "8181"}]}
        assert shown["NetworkSettings"]["Ports"] == {"81/udp": [{"HostIp": "0.0.0.0", "HostPort": "8181"}]}
        assert shown["Config"]["Labels"] == {"new": "2"}
        assert shown["Config"]["StopTimeout"] == 3
        assert (shown["HostConfig"]["PidsLimit"], shown["HostConfig"]["RestartPolicy"]["Name"]) == (77, "always")
        assert [port.host_port for port in world.endpoints[id].ports] == [8181]

    play(world, scenario)


def test_what_a_process_is_given_at_its_start_needs_one_and_keeps_the_rest(world: World) -> None:
    async def scenario(engine: Engine) -> None:
        id = await subject(engine, AutoRemove=True)
        before = await pid(engine, id)
        with pytest.raises(Conflict, match="changing User, Env needs a restart"):
            await alter(engine, id, Env={"Set": ["A=9"]}, Config={"User": "alice"}, LiveOnly=True)
        assert await pid(engine, id) == before
        done = await alter(
            engine,
            id,
            Env={"Set": ["A=9", "C=3"], "Remove": ["B"]},
            Config={"User": "alice", "Hostname": "other", "Cmd": ["stubborn", "x"]},
            Mounts={"Binds": ["data:/data"], "Tmpfs": {"/t": "size=1m"}, "Volumes": ["/more"], "Remove": ["/scratch"]},
        )
        assert done.restarted
        assert "anonymous volume" in done.warnings[0]
        shown = await engine.containers.inspect("subject")
        assert shown["Id"] == id
        assert shown["State"]["Pid"] != before
        assert shown["Config"]["Env"] == ["A=9", "C=3"]
        assert (shown["Path"], shown["Args"]) == ("stubborn", ["x"])
        assert {mount["Destination"] for mount in shown["Mounts"]} == {"/kept", "/data", "/more"}
        assert shown["HostConfig"]["Binds"] == ["kept:/kept", "data:/data"]
        assert shown["Config"]["Volumes"] == {"/more": {}}
        assert len(world.volumes) == 4  # the one that was at /scratch is kept
        assert world.processes[id].args == ["stubborn", "x"]

    play(world, scenario)


def test_a_start_that_fails_brings_back_what_was_there(world: World) -> None:
    async def scenario(engine: Engine) -> None:
        id = await subject(engine, RestartPolicy={"Name": "always"})
        before = await engine.containers.inspect(id)
        with pytest.raises(FailedPrecondition, match=r"it runs as it was: .*\"missing\": executable file not found"):
            await alter(engine, id, Config={"Cmd": ["missing"]}, Env={"Set": ["A=9"]}, Mounts={"Volumes": ["/more"]})
        after = await engine.containers.inspect(id)
        for part in ("Config", "HostConfig", "Mounts", "Args", "Path", "Name"):
            assert after[part] == before[part]
        assert after["State"]["Status"] == "running"
        assert len(world.volumes) == 2
        assert world.store.scan("alterations/") == world.store.scan("garbage/") == []

    play(world, scenario)


@pytest.mark.parametrize(
    ("body", "error", "text"),
    [
        (
            {"Ports": {"Publish": {"81/tcp": [{"HostPort": "8090"}]}}},
            Conflict,
            "8090 failed: port is already allocated",
        ),
        (
            {"Ports": {"Publish": {"81/tcp": [{"HostPort": "8090"}]}}, "Env": {"Set": ["A=2"]}},
            Conflict,
            "8090 failed: port is already allocated",
        ),
        ({"Ports": {"Unpublish": ["99"]}}, NotFound, "does not publish 99"),
        ({"Ports": {"Unpublish": ["x"]}}, InvalidArgument, "invalid port"),
        ({"Env": {"Remove": ["NOPE"]}}, NotFound, "no environment variable NOPE"),
        ({"Labels": {"Remove": ["nope"]}}, NotFound, "no label nope"),
        ({"Mounts": {"Remove": ["/nope"]}}, NotFound, "nothing is mounted at /nope"),
        ({"Mounts": {"Binds": ["x1:/kept"]}}, Conflict, "Duplicate mount point: /kept"),
        ({"Config": {"WorkingDir": "relative"}}, InvalidArgument, "needs to be an absolute path"),
        ({"HostConfig": {"CapAdd": ["NOPE"]}}, InvalidArgument, "NOPE"),
        ({"Limits": {"Memory": 1}}, InvalidArgument, "Minimum memory limit"),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_stopped(
    world: World, body: dict[str, Any], error: type[Exception], text: str
) -> None:
    async def scenario(engine: Engine) -> None:
        other = await create(engine, "sleep", host={"PortBindings": {"80/tcp": [{"HostPort": "8090"}]}})
        await engine.containers.start(other)
        id = await subject(engine)
        before, volumes = await engine.containers.inspect(id), set(world.volumes)
        with pytest.raises(error, match=text):
            await alter(engine, id, **body)
        assert await engine.containers.inspect(id) == before
        assert world.volumes == volumes

    play(world, scenario)


@pytest.mark.parametrize(
    "body",
    [
        {"Bogus": 1},
        {"Env": {"Add": []}},
        {"Config": {"Image": "x"}},
        {"HostConfig": {"Privileged": True}},
        {"Limits": 3},
    ],
)
def test_no_field_is_ignored(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        parse_alteration(body)


def test_a_stopped_container_is_changed_without_a_process(world: World) -> None:
    async def scenario(engine: Engine) -> None:
        id = await create(engine, "sleep", Env=["A=1"])
        assert not (await alter(engine, id, Env={"Set": ["A=2"]}, Config={"Cmd": ["exit", "5"]})).restarted
        assert world.processes == {}
        await engine.containers.start(id)
        assert (await engine.containers.wait(id)).status == 5

    play(world, scenario)


async def _life(engine: Engine) -> None:
    await alter(engine, "subject", Ports={"Publish": {"81/tcp": [{"HostPort": "8181"}]}})
    await alter(engine, "subject", Env={"Set": ["A=9"]}, Mounts={"Volumes": ["/more"]}, Labels={"Set": {"new": "2"}})
    await engine.settle()


async def _until_killed(world: World, kill_at: int) -> bool:
    engine = await world.open()
    # --rm and no policy: what a start in between would lose for good.
    await subject(engine, AutoRemove=True)
    await engine.settle()
    world.operations, world.kill_at, world.killed = 0, kill_at, asyncio.Event()
    world.loop = asyncio.get_running_loop()
    task = asyncio.create_task(_life(engine))
    killed = asyncio.create_task(world.killed.wait())
    try:
        async with asyncio.timeout(5):
            await asyncio.wait((task, killed), return_when=asyncio.FIRST_COMPLETED)
            if not world.killed.is_set():
                await task
                return True
    finally:
        world.clients.clear()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_default_executor()
        world.kill_at = None
    return False


async def _old_or_new(world: World) -> str:
    engine = await world.open()
    try:
        await engine.settle()
        _check(world, engine)
        shown = await engine.containers.inspect("subject")
        assert shown["State"]["Status"] == "running"
        assert world.store.scan("alterations/") == []
        seen = (
            shown["Config"]["Env"],
            shown["Config"]["Labels"],
            sorted(mount["Destination"] for mount in shown["Mounts"]),
            sorted(shown["HostConfig"]["PortBindings"]),
        )
        published = sorted(port.host_port for port in world.endpoints[shown["Id"]].ports)
        assert len(world.volumes) == len(shown["Mounts"])
    finally:
        await engine.close()
    states = {
        "old": (["A=1", "B=2"], {"old": "1"}, ["/kept", "/scratch"], ["80/tcp"]),
        "ports": (["A=1", "B=2"], {"old": "1"}, ["/kept", "/scratch"], ["80/tcp", "81/tcp"]),
        "new": (["A=9", "B=2"], {"old": "1", "new": "2"}, ["/kept", "/more", "/scratch"], ["80/tcp", "81/tcp"]),
    }
    (state,) = [name for name, wanted in states.items() if seen == wanted] or [str(seen)]
    assert published == ([8080] if state == "old" else [8080, 8181])
    return state


def test_killed_at_any_moment_it_is_the_old_or_the_new_one_and_runs(tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    kill_at, lived, outcomes = 0, False, []
    while not lived:
        kill_at += 1
        world = World(tmp_path_factory.mktemp("world"))
        try:
            lived = asyncio.run(_until_killed(world, kill_at))
            outcomes.append(asyncio.run(_old_or_new(world)))
        except BaseException as error:
            raise AssertionError(f"killed at operation {kill_at}: {error!r}") from error
        finally:
            world.close()
    # Never back to something older, and in the end what was asked for.
    assert outcomes == sorted(outcomes, key=["old", "ports", "new"].index)
    assert outcomes[-1] == "new"
    assert len(outcomes) > 12
