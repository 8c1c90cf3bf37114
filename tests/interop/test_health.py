"""Health checks as a client sees them; each behaviour was looked up on dockerd, where these pass too."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from daemon import PEER, wait_until
from engine_client import Api, Hijacked

pytestmark = pytest.mark.root

SECOND = 1_000_000_000
TENTH = SECOND // 10


def health(api: Api, id: str) -> Any:
    return api.get(f"/containers/{id}/json").json["State"].get("Health")


def checked(api: Api, image: str, name: str, test: list[str], host: Any = None, **options: Any) -> str:
    check = {"Test": test, "Interval": TENTH, "Timeout": 20 * SECOND, **options}
    return api.run(name, Image=image, Cmd=["sleep", "600"], Healthcheck=check, HostConfig=host or {})


def await_health(api: Api, id: str, wanted: Callable[[Any], bool], what: str) -> Any:
    wait_until(lambda: wanted(health(api, id)), 30, what)
    return health(api, id)


def test_from_starting_to_healthy_to_unhealthy(api: Api, image: str, name: str) -> None:
    id = checked(api, image, name, ["CMD-SHELL", "echo told; echo err >&2; test ! -e /bad"], Retries=2)
    found = await_health(api, id, lambda h: h["Status"] == "healthy", "healthy")
    assert found["FailingStreak"] == 0
    assert found["Log"][-1]["ExitCode"] == 0
    assert sorted(found["Log"][-1]["Output"].split()) == ["err", "told"]
    (row,) = api.get(f'/containers/json?filters={{"health":["healthy"],"name":["{name}"]}}').json
    assert row["Status"].endswith(" (healthy)")
    with Hijacked(api.path, f"/containers/{id}/exec", b'{"Cmd":["touch","/bad"]}', upgrade=False) as wire:
        assert b" 201 " in wire.head
        made = json.loads(wire.receive(b"}"))["Id"]
    api.post(f"/exec/{made}/start", {"Detach": True})
    found = await_health(api, id, lambda h: h["Status"] == "unhealthy" and len(h["Log"]) == 5, "unhealthy")
    assert found["FailingStreak"] >= 2
    assert found["Log"][-1]["ExitCode"] == 1
    assert api.get(f'/containers/json?filters={{"health":["healthy"],"name":["{name}"]}}').json == []
    told = api.get(f'/events?since=1&until={time.time():.9f}&filters={{"container":["{name}"]}}').lines
    statuses = [event["Action"] for event in told if event["Action"].startswith("health_status")]
    assert statuses == ["health_status: healthy", "health_status: unhealthy"][-len(statuses) :]
    ends = [event["Actor"]["Attributes"] for event in told if event["Action"] == "exec_die"]
    assert {"exitCode": "1", "name": name}.items() <= ends[-1].items()
    assert ends[-1]["execID"]


def test_output_is_cut_and_a_command_that_is_not_there_fails(api: Api, image: str, name: str) -> None:
    long = checked(api, image, name, ["CMD-SHELL", "head -c 5000 /dev/zero | tr '\\0' x"])
    missing = checked(api, image, f"{name}-missing", ["CMD", "nosuch", "x"], Retries=1)
    found = await_health(api, long, lambda h: h["Log"], "a result")
    assert found["Log"][0]["Output"] == "x" * 4096 + "..."
    found = await_health(api, missing, lambda h: h["Status"] == "unhealthy", "unhealthy")
    assert found["Log"][0]["ExitCode"] == -1
    assert 'exec: "nosuch": executable file not found in $PATH' in found["Log"][0]["Output"]


def test_a_probe_that_takes_too_long_is_killed(api: Api, image: str, name: str) -> None:
    id = checked(api, image, name, ["CMD-SHELL", "echo half; exec sleep 1234"], Timeout=SECOND // 2, Retries=1)
    found = await_health(api, id, lambda h: h["Status"] == "unhealthy", "unhealthy")
    assert found["Log"][0]["ExitCode"] == -1
    assert found["Log"][0]["Output"] == "Health check exceeded timeout (500ms): half\n"
    api.post(f"/containers/{id}/pause")
    api.post(f"/containers/{id}/unpause")

    def probes() -> int:
        rows = api.get(f"/containers/{id}/top?ps_args=-o+pid,args").json["Processes"]
        return sum("sleep 1234" in row[1] for row in rows)

    wait_until(lambda: probes() <= 1, 10, "earlier probes are gone")


def test_start_period_and_what_a_stop_leaves(api: Api, image: str, name: str) -> None:
    patient = {"StartPeriod": 300 * SECOND, "StartInterval": TENTH, "Interval": 200 * SECOND, "Retries": 1}
    id = checked(api, image, name, ["CMD", "false"], **patient)
    found = await_health(api, id, lambda h: len(h["Log"]) >= 3, "checks at the start interval")
    assert (found["Status"], found["FailingStreak"]) == ("starting", 0)
    (row,) = api.get(f'/containers/json?filters={{"name":["{name}"]}}').json
    assert row["Status"].endswith(" (health: starting)")
    api.post(f"/containers/{id}/pause")
    (row,) = api.get(f'/containers/json?filters={{"name":["{name}"]}}').json
    assert row["Status"].endswith(" (Paused)")
    api.post(f"/containers/{id}/unpause")
    api.post(f"/containers/{id}/kill")
    assert health(api, id)["Status"] == "unhealthy"


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({"Test": ["CMD", "true"], "Interval": 1000}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"Timeout": -1}, "Timeout in Healthcheck cannot be less than 1ms"),
        ({"Test": ["CMD", "true"], "Retries": -1}, "Retries in Healthcheck cannot be negative"),
    ],
)
def test_refusals(api: Api, image: str, name: str, check: Any, message: str) -> None:
    answer = api.post(f"/containers/create?name={name}", {"Image": image, "Healthcheck": check})
    assert (answer.status, answer.message) == (400, message)


@pytest.mark.skipif(bool(PEER), reason="Wherry's own")
@pytest.mark.parametrize("action", ["kill", "restart", "stop"])
def test_what_follows_from_unhealthy(api: Api, image: str, name: str, action: str) -> None:
    once = ["CMD-SHELL", "test -e /once || { touch /once; false; }"]
    host = {"RestartPolicy": {"Name": "always"}, "NetworkMode": "none"}
    begun = api.create(
        name,
        Image=image,
        Cmd=["sleep", "600"],
        StopSignal="KILL",
        Healthcheck={"Test": once, "Interval": TENTH, "Retries": 1, "OnFailure": action},
        HostConfig=host,
    )
    api.post(f"/containers/{begun}/start")
    if action == "stop":
        wait_until(lambda: api.get(f"/containers/{begun}/json").json["State"]["Status"] == "exited", 20, "stopped")
        assert api.get(f"/containers/{begun}/json").json["RestartCount"] == 0
        return
    found = await_health(api, begun, lambda h: h["Status"] == "healthy", "healthy after it began anew")
    assert found["FailingStreak"] == 0
    state = api.get(f"/containers/{begun}/json").json
    assert state["RestartCount"] == (1 if action == "kill" else 0)
    assert state["Config"]["Healthcheck"]["OnFailure"] == action
