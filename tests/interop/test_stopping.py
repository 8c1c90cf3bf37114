"""Stop and restart: the signal, the time given, and what is done where the signal cannot be received."""

import time

import pytest

from daemon import PEER, wait_until
from engine_client import Api

pytestmark = pytest.mark.root
NOTE = "Wherry-Note"


def ready(api: Api, id: str) -> None:
    wait_until(lambda: b"ready" in api.get(f"/containers/{id}/logs?stdout=1").body, 10, "ready")


@pytest.mark.skipif(bool(PEER), reason="dockerd waits the time out")
@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_what_has_no_handler_is_killed_at_once_and_that_is_told(api: Api, image: str, name: str, verb: str) -> None:
    id = api.run(name, Image=image, Cmd=["sh", "-c", "echo ready; sleep 600; true"])
    ready(api, id)
    begun = time.monotonic()
    answer = api.post(f"/containers/{id}/{verb}?t=300")
    assert (answer.status, time.monotonic() - begun < 60) == (204, True)
    assert answer.headers[NOTE] == f"{name}: its first process has no handler for SIGTERM; killed without waiting"
    state = api.get(f"/containers/{id}/json").json["State"]
    assert state["Running"] == (verb == "restart")
    if verb == "stop":
        assert state["ExitCode"] == 137


def test_a_handler_is_given_its_time(api: Api, image: str, name: str) -> None:
    late = "trap 'sleep 2; exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    id = api.run(name, Image=image, Cmd=["sh", "-c", late])
    ready(api, id)
    answer = api.post(f"/containers/{id}/stop?t=30")
    assert answer.status == 204
    assert NOTE not in answer.headers
    assert api.get(f"/containers/{id}/json").json["State"]["ExitCode"] == 5
    assert api.post(f"/containers/{id}/stop").status == 304


def test_a_container_that_waits_for_its_next_start_can_be_stopped(api: Api, image: str, name: str) -> None:
    host = {"RestartPolicy": {"Name": "always"}, "NetworkMode": "none"}
    id = api.run(name, Image=image, Cmd=["false"], HostConfig=host)
    wait_until(lambda: api.get(f"/containers/{id}/json").json["RestartCount"] >= 3, 30, "restarts")
    assert api.post(f"/containers/{id}/stop").status == 204
    state = api.get(f"/containers/{id}/json").json
    assert state["State"]["Status"] == "exited"


@pytest.mark.parametrize("name_of_policy", ["on-failure", "always"])
def test_restarts_are_counted_and_end(api: Api, image: str, name: str, name_of_policy: str) -> None:
    policy = {"Name": name_of_policy, "MaximumRetryCount": 2 if name_of_policy == "on-failure" else 0}
    command = ["sh", "-c", "echo x >>/count; test $(wc -l </count) -lt 3 || exec sleep 600; exit 1"]
    if name_of_policy == "on-failure":
        command = ["sh", "-c", "exit 3"]
    id = api.run(name, Image=image, Cmd=command, HostConfig={"RestartPolicy": policy, "NetworkMode": "none"})
    wanted = "exited" if name_of_policy == "on-failure" else "running"

    def settled() -> bool:
        found = api.get(f"/containers/{id}/json").json
        return found["RestartCount"] == 2 and found["State"]["Status"] == wanted

    wait_until(settled, 30, "two restarts, and the end of it")
    found = api.get(f"/containers/{id}/json").json
    assert found["State"]["ExitCode"] == (3 if wanted == "exited" else 0)
    assert api.post(f"/containers/{id}/restart?t=0").status == 204
    assert api.get(f"/containers/{id}/json").json["RestartCount"] in ((0, 1, 2) if wanted == "exited" else (0,))


def test_memory_that_is_used_up_is_told(api: Api, image: str, name: str) -> None:
    eat = ["sh", "-c", "exec tail /dev/zero"]
    host = {"Memory": 16 << 20, "MemorySwap": 16 << 20, "NetworkMode": "none"}
    begun = time.time()
    id = api.run(name, Image=image, Cmd=eat, HostConfig=host)
    assert api.wait(id) == 137
    assert api.get(f"/containers/{id}/json").json["State"]["OOMKilled"] is True
    query = f'since={begun:.9f}&until={time.time():.9f}&filters={{"container":["{name}"]}}'
    actions = [event["Action"] for event in api.get(f"/events?{query}").lines]
    assert "oom" in actions
    assert actions.index("oom") < actions.index("die")


def test_oom_settings(api: Api, image: str, name: str) -> None:
    command = ["sh", "-c", "cat /proc/self/oom_score_adj"]
    id = api.run(name, Image=image, Cmd=command, HostConfig={"OomScoreAdj": 321, "NetworkMode": "none"})
    assert api.wait(id) == 0
    assert b"321" in api.get(f"/containers/{id}/logs?stdout=1").body
    answer = api.post(f"/containers/create?name={name}-no", {"Image": image, "HostConfig": {"OomScoreAdj": 1001}})
    assert answer.status == 400
    assert "range for oom score adj is [-1000, 1000]" in answer.message
