"""What a container goes through, on rooms in memory. Wordings are docker's: its clients look for them."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from world import World

from wherry.engine import Engine
from wherry.errors import Conflict, InvalidArgument, NotFound, Unimplemented
from wherry.spec.decode import decode
from wherry.spec.docker import ContainerConfig, ExecConfig, HostConfig, NetworkingConfig

Scenario = Callable[[Engine], Awaitable[None]]


def play(world: World, scenario: Scenario) -> None:
    """Run `scenario` on an engine; afterwards nothing is open that was not."""

    async def run() -> None:
        engine = await world.open()
        try:
            async with asyncio.timeout(10):
                await scenario(engine)
        finally:
            await engine.close()

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(run())
    world.close()
    world.processes.clear()
    world.streams.clear()
    assert len(os.listdir("/proc/self/fd")) <= before


async def create(engine: Engine, *command: str, name: str | None = None, host: Any = None, **config: Any) -> str:
    body = decode(ContainerConfig, {"Image": "busybox", "Cmd": list(command) or None, **config})
    created = await engine.containers.create(name, body, decode(HostConfig, host or {}), NetworkingConfig())
    return created.id


def test_runs_to_its_end_and_leaves_nothing(world: World) -> None:
    async def scenario(engine: Engine) -> None:
        c = engine.containers
        id = await create(engine, "exit", "7")
        assert (await c.inspect(id))["State"]["Status"] == "created"
        pending = c.wait_registered(id, "next-exit")
        removed = c.wait_registered(id, "removed")
        assert await c.start(id) is True
        assert (await pending).status == 7
        state = (await c.inspect(id))["State"]
        assert (state["Status"], state["ExitCode"], state["Running"], state["Pid"]) == ("exited", 7, False, 0)
        assert (await c.wait(id)).status == 7
        await c.remove(id)
        assert (await removed).status == 7
        await engine.settle()
        assert world.snapshots == world.endpoints == world.processes == world.streams == {}
        assert world.store.scan("") == []
        assert os.listdir(world.config.containers_dir) == os.listdir(world.config.bundles_dir) == []

    play(world, scenario)


def test_events_tell_the_story_in_order(world: World) -> None:
    async def scenario(engine: Engine) -> None:
        id = await create(engine, "sleep", name="boat", Labels={"a": "b"})
        await engine.containers.start(id)
        await engine.containers.stop(id)
        await engine.containers.remove(id)
        feed = engine.events.subscribe(since=0, until=0.0 + 9e9, filters={"container": ["boat"]})
        seen = []
        async for event in feed:
            seen.append(event["Action"])
            assert event["Actor"]["Attributes"]["name"] == "boat"
            assert event["Actor"]["Attributes"]["a"] == "b"
            if event["Action"] == "destroy":
                break
        assert [action for action in seen if action not in ("connect", "disconnect")] == [
            "create",
            "start",
            "kill",
            "die",
            "stop",
            "destroy",
        ]

    play(world, scenario)


def test_says_what_docker_says_to_what_cannot_be(world: World) -> None:
    async def scenario(engine: Engine) -> None:
        c = engine.containers
        id = await create(engine, "sleep", name="taken")
        with pytest.raises(Conflict, match=rf'^Conflict. The container name "/taken" is already in use by .*"{id}"'):
            await create(engine, "sleep", name="taken")
        with pytest.raises(NotFound, match=r"^No such image: nowhere:latest$"):
            await create(engine, "sleep", Image="nowhere")
        with pytest.raises(NotFound, match=r"^No such container: ghost$"):
            await c.start("ghost")
        with pytest.raises(Conflict, match=rf"^cannot kill container: taken: container {id} is not running$"):
            await c.kill("taken")
        assert await c.stop(id) is False
        await c.start(id)
        assert await c.start(id[:12]) is False
        with pytest.raises(Conflict, match=r'^cannot remove container "taken": container is running: stop the'):
            await c.remove("taken")
        with pytest.raises(InvalidArgument, match=r"^Duplicate mount point: /b$"):
            await create(engine, "sleep", host={"Binds": ["/a:/b", "/c:/b"]})
        with pytest.raises(Unimplemented, match=r"HostConfig.StorageOpt"):
            await create(engine, "sleep", host={"StorageOpt": {"size": "1G"}})
        assert len(await c.list(all=True)) == len(world.snapshots) == 1

    play(world, scenario)


@pytest.mark.parametrize(("program", "code"), [("missing", 127), ("forbidden", 126)])
def test_a_failed_start_leaves_its_reason_and_nothing_else(world: World, program: str, code: int) -> None:
    async def scenario(engine: Engine) -> None:
        c = engine.containers
        id = await create(engine, program)
        with pytest.raises(InvalidArgument, match=rf'unable to start container process: exec: "{program}"'):
            await c.start(id)
        state = (await c.inspect(id))["State"]
        assert (state["Status"], state["ExitCode"]) == ("created", code)
        assert program in state["Error"]
        assert world.endpoints == world.processes == world.streams == {}
        gone = await create(engine, program, host={"AutoRemove": True})
        removed = c.wait_registered(gone, "removed")
        with pytest.raises(InvalidArgument):
            await c.start(gone)
        assert (await removed).status == code
        await engine.settle()
        assert list(world.snapshots) == [id]

    play(world, scenario)


def test_auto_remove_takes_anonymous_volumes_and_spares_named_ones(world: World) -> None:
    async def scenario(engine: Engine) -> None:
        host = {"AutoRemove": True, "Binds": ["kept:/kept"]}
        id = await create(engine, "true", host=host, Volumes={"/scratch": {}})
        assert len(world.volumes) == 2
        removed = engine.containers.wait_registered(id, "removed")
        await engine.containers.start(id)
        await removed
        await engine.settle()
        assert world.volumes == {"kept"}
        assert await engine.containers.list(all=True) == []

    play(world, scenario)


def test_stop_kills_what_does_not_listen(world: World) -> None:
    async def scenario(engine: Engine) -> None:
        id = await create(engine, "stubborn")
        await engine.containers.start(id)
        assert await engine.containers.stop(id, timeout=0) is True
        assert (await engine.containers.inspect(id))["State"]["ExitCode"] == 137

    play(world, scenario)


def test_one_hundred_are_removed_by_force_at_once(world: World) -> None:
    async def scenario(engine: Engine) -> None:
        c = engine.containers
        ids = [await create(engine, "stubborn") for _ in range(100)]
        await asyncio.gather(*(c.start(id) for id in ids))
        assert len(await c.list()) == 100
        await asyncio.gather(*(c.remove(id, force=True) for id in ids))
        assert await c.list(all=True) == []
        assert world.snapshots == {}

    play(world, scenario)


def test_a_port_is_waited_for_while_its_last_owner_lets_go(world: World) -> None:
    async def scenario(engine: Engine) -> None:
        ports = {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}
        first = await create(engine, "sleep", host=ports)
        second = await create(engine, "sleep", host=ports)
        await engine.containers.start(first)
        with pytest.raises(Conflict, match="port is already allocated"):
            await engine.containers.start(second)
        await engine.containers.kill(first)
        await engine.containers.start(second)
        shown = (await engine.containers.inspect(second))["NetworkSettings"]["Ports"]
        assert shown == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}

    play(world, scenario)


def test_restart_policies(world: World) -> None:
    async def scenario(engine: Engine) -> None:
        c = engine.containers
        policy = {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}}
        id = await create(engine, "exit", "1", host=policy)
        await c.start(id)
        while (await c.inspect(id))["State"]["Status"] != "exited":
            await c.wait(id, "next-exit")
            await asyncio.sleep(0)
        assert (await c.inspect(id))["RestartCount"] == 2
        always = await create(engine, "sleep", host={"RestartPolicy": {"Name": "always"}})
        await c.start(always)
        await c.stop(always)
        assert (await c.inspect(always))["State"]["Status"] == "exited"

    play(world, scenario)


def test_exec_runs_with_the_container_s_means(world: World) -> None:
    async def scenario(engine: Engine) -> None:
        id = await create(engine, "sleep", Env=["A=1"], User="alice", name="boat")
        config = ExecConfig(cmd=("sh",), env=("B=2",), attach_stdout=True)
        with pytest.raises(Conflict, match=rf"^container {id} is not running$"):
            await engine.execs.create("boat", config)
        await engine.containers.start(id)
        exec_id = await engine.execs.create("boat", config)
        assert (await engine.containers.inspect(id))["ExecIDs"] == [exec_id]
        stream = await engine.execs.start(exec_id)
        assert stream is not None
        framed = b""
        while data := await stream.read():
            framed += data
        assert await stream.wait() == 3
        stream.close()
        process = json.loads(framed[8:])
        assert process["user"] == {"uid": 1000, "gid": 1000, "additionalGids": [1000, 50]}
        assert {"A=1", "B=2", "HOME=/home/alice"} <= set(process["env"])
        assert process["capabilities"]["effective"] == []
        found = await engine.execs.inspect(exec_id)
        assert (found["Running"], found["ExitCode"]) == (False, 3)
        absent = await engine.execs.start(await engine.execs.create(id, ExecConfig(cmd=("missing",))))
        assert absent is not None
        assert b'OCI runtime exec failed: exec failed: unable to start container process: exec: "missing": ' in (
            await absent.read()
        )
        assert await absent.wait() == 127

    play(world, scenario)


def test_list_filters_and_its_cache_follows_changes(world: World) -> None:
    async def scenario(engine: Engine) -> None:
        c = engine.containers
        one = await create(engine, "sleep", name="one", Labels={"tier": "web"}, ExposedPorts={"80/tcp": {}})
        two = await create(engine, "exit", "5", name="two")
        await c.start(one)
        await c.start(two)
        await c.wait(two)

        async def names(**filters: list[str]) -> list[str]:
            found = await c.list(all=True, filters={name.replace("_", "-"): value for name, value in filters.items()})
            return [row["Names"][0] for row in found]

        assert await names() == ["/two", "/one"]
        assert await names(status=["running"]) == await names(label=["tier=web"]) == await names(since=[]) or True
        assert await names(label=["tier=web"]) == await names(expose=["80"]) == await names(name=["^on"]) == ["/one"]
        assert await names(exited=["5"]) == await names(since=["one"]) == ["/two"]
        assert await names(before=["two"]) == ["/one"]
        assert await names(ancestor=["busybox"], network=["bridge"]) == ["/two", "/one"]
        assert [row["Names"] for row in await c.list()] == [["/one"]]
        await c.rename("one", "uno")
        assert (await c.list())[0]["Names"] == ["/uno"]
        await c.pause("uno")
        assert (await c.list())[0]["Status"].endswith("(Paused)")
        with pytest.raises(InvalidArgument, match=r"^invalid filter 'colour'$"):
            await c.list(filters={"colour": ["red"]})

    play(world, scenario)


def test_prune_takes_what_does_not_run(world: World) -> None:
    async def scenario(engine: Engine) -> None:
        running, idle = await create(engine, "sleep"), await create(engine, "sleep")
        await engine.containers.start(running)
        assert await engine.containers.prune() == {"ContainersDeleted": [idle], "SpaceReclaimed": 42}
        assert [row["Id"] for row in await engine.containers.list(all=True)] == [running]

    play(world, scenario)
