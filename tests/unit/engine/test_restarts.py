"""Restart policies over exits and the machine's own restarts; the order of a boot; health without a kernel."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from test_lifecycle import create, play
from world import World

from wherry.engine import Engine, boot, exits
from wherry.engine.health import Check, Health
from wherry.engine.records import State

ALWAYS = {"RestartPolicy": {"Name": "always"}}
SECOND = 1_000_000_000


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    while not await check():  # noqa: ASYNC110 - the caller has a deadline
        await asyncio.sleep(0)


async def reboot(world: World, engine: Engine) -> Engine:
    """The machine goes down with all that ran, and comes up again."""
    await engine.close()
    world.close()
    world.processes.clear()
    world.streams.clear()
    return await world.open()


async def status(engine: Engine, id: str) -> str:
    found: str = (await engine.containers.inspect(id))["State"]["Status"]
    return found


def test_delays_double_up_to_a_minute_and_begin_anew_after_a_run_that_lasted() -> None:
    brief, long = State(started_ns=0, finished_ns=SECOND), State(started_ns=0, finished_ns=10 * SECOND)
    delays = [0.0]
    for _ in range(12):
        delays.append(exits.next_delay(delays[-1], brief))
    assert delays[1:5] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 60
    assert exits.next_delay(60, long) == 0.1


def test_a_boot_starts_what_its_policy_says_in_the_order_of_dependencies(world: World) -> None:
    async def scenario(engine: Engine) -> None:
        project = {"com.docker.compose.project": "p"}
        app_labels = {
            **project,
            "com.docker.compose.service": "app",
            "com.docker.compose.depends_on": "db:service_healthy:true,gone:service_started:false",
        }
        check = {"Test": ["CMD", "exit", "0"], "Interval": SECOND // 100}
        ids = {
            "late": await create(engine, "sleep", name="late", host=ALWAYS, Labels={boot.LABEL: "app, nobody"}),
            "app": await create(engine, "sleep", name="app", host=ALWAYS, Labels=app_labels),
            "db": await create(
                *(engine, "sleep"),
                name="db",
                host=ALWAYS,
                Healthcheck=check,
                Labels={**project, "com.docker.compose.service": "db"},
            ),
            "side": await create(engine, "sleep", name="side", host={**ALWAYS, "PidMode": "container:late"}),
            "round": await create(engine, "sleep", name="round", host=ALWAYS, Labels={boot.LABEL: "about"}),
            "about": await create(engine, "sleep", name="about", host=ALWAYS, Labels={boot.LABEL: "round:healthy"}),
            "never": await create(engine, "sleep", name="never"),
            "stopped": await create(
                engine, "sleep", name="stopped", host={"RestartPolicy": {"Name": "unless-stopped"}}
            ),
            "resumed": await create(engine, "sleep", name="resumed", host=ALWAYS),
            "unstarted": await create(engine, "sleep", name="unstarted", host=ALWAYS),
            "failed": await create(engine, "sleep", name="failed", host={"RestartPolicy": {"Name": "on-failure"}}),
        }
        for name in ("db", "app", "late", "side", "never", "stopped", "resumed", "failed", "round", "about"):
            await engine.containers.start(ids[name])
        await engine.containers.stop(ids["stopped"])
        await engine.containers.stop(ids["resumed"])
        engine = await reboot(world, engine)
        try:
            await engine.settle()
            running = [id for name, id in ids.items() if await status(engine, id) == "running"]
            assert {name for name, id in ids.items() if id in running} == {
                *("late", "app", "db", "side", "resumed", "failed", "round", "about")
            }
            started = list(world.processes)
            order = [started.index(ids[name]) for name in ("db", "app", "late", "side")]
            assert order == sorted(order)
            assert (await engine.containers.inspect(ids["app"]))["RestartCount"] == 0
        finally:
            await engine.close()

    play(world, scenario)


def test_who_is_stopped_while_it_waits_its_turn_stays_so(world: World) -> None:
    async def scenario(engine: Engine) -> None:
        check = {"Test": ["CMD", "exit", "1"], "Interval": SECOND, "StartPeriod": 100 * SECOND}
        db = await create(engine, "sleep", name="db", host=ALWAYS, Healthcheck=check)
        app = await create(engine, "sleep", name="app", host=ALWAYS, Labels={boot.LABEL: "db:healthy"})
        for id in (db, app):
            await engine.containers.start(id)
        engine = await reboot(world, engine)
        try:
            await until(lambda: _is(engine, db, "running"))
            assert await status(engine, app) == "restarting"
            await engine.containers.stop(app)
            await engine.settle()
            assert await status(engine, app) == "exited"
        finally:
            await engine.close()

    play(world, scenario)


async def _is(engine: Engine, id: str, wanted: str) -> bool:
    return await status(engine, id) == wanted


def test_health_outlives_the_daemon(world: World) -> None:
    async def scenario(engine: Engine) -> None:
        check = {"Test": ["CMD", "exit", "0", "well"], "Interval": SECOND // 100}
        id = await create(engine, "sleep", Healthcheck=check)

        async def health(of: Engine) -> Any:
            return (await of.containers.inspect(id))["State"].get("Health")

        assert await health(engine) is None
        await engine.containers.start(id)
        assert (await health(engine))["Status"] == "starting"

        async def is_healthy() -> bool:
            return (await health(engine))["Status"] == "healthy"

        await until(is_healthy)
        before = await health(engine)
        assert before["Log"][0]["Output"] == "well"
        await engine.close()
        engine = await world.open()
        try:
            found = await health(engine)
            assert (found["Status"], found["Log"][0]) == ("healthy", before["Log"][0])
            world.health = 1

            async def is_unhealthy() -> bool:
                return (await health(engine))["FailingStreak"] >= 3

            await until(is_unhealthy)
            assert (await health(engine))["Status"] == "unhealthy"
            await engine.containers.pause(id)
            streak = (await health(engine))["FailingStreak"]
            await asyncio.sleep(0.05)
            assert (await health(engine))["FailingStreak"] == streak
        finally:
            await engine.close()

    play(world, scenario)


@pytest.mark.parametrize(
    ("codes", "since_start", "expected"),
    [
        ([1, 1, 1], 5, ("unhealthy", 3)),
        ([1, 1, 0], 5, ("healthy", 0)),
        ([1, 1, 1, 1], 1, ("starting", 0)),
        ([0, 1, 1, 1], 1, ("unhealthy", 3)),  # once healthy, a failure counts in the start period too
    ],
)
def test_what_results_make_of_a_status(codes: list[int], since_start: int, expected: tuple[str, int]) -> None:
    check = Check(("true",), 1, 1, 3 * SECOND, 1, 3, "none")
    health = Health("starting", 0, [])
    for code in codes:
        health.note({"ExitCode": code}, check, since_start * SECOND)
    assert (health.status, health.streak) == expected
