"""`--init`, on both engines: who is PID 1, what it passes on, what it reaps, and what it says."""

import json

import pytest

from daemon import PEER, wait_until
from engine_client import Api, unframe

pytestmark = pytest.mark.root
ASLEEP = "trap 'echo told; exit 3' USR1; echo ready; while :; do sleep 0.1; done"


def run(api: Api, image: str, name: str, *command: str, tty: bool = False, **host: object) -> str:
    return api.run(name, Image=image, Cmd=list(command), Tty=tty, HostConfig={"Init": True, **host})


def execute(api: Api, id: str, *command: str) -> bytes:
    made = api.post(f"/containers/{id}/exec", {"Cmd": list(command), "AttachStdout": True}).json["Id"]
    with api.hijack(f"/exec/{made}/start", json.dumps({}).encode()) as wire:
        return b"".join(unframe(wire.rest()).values())


def logged(api: Api, id: str) -> bytes:
    return api.get(f"/containers/{id}/logs?stdout=1&stderr=1").body


def test_the_program_is_its_child_and_orphans_are_reaped(api: Api, image: str, name: str) -> None:
    id = run(api, image, name, "sh", "-c", "(sleep 0.01 & ) ; exec sleep 600", ReadonlyRootfs=PEER == "")
    assert execute(api, id, "cat", "/proc/1/cmdline").split(b"\0")[:3] == [b"/sbin/docker-init", b"--", b"sh"]
    assert execute(api, id, "cat", "/proc/1/comm") == b"docker-init\n"

    def states() -> list[str]:
        return [row[0] for row in api.get(f"/containers/{id}/top?ps_args=-o+stat,pid,args").json["Processes"]]

    wait_until(lambda: len(states()) == 2 and not any(state.startswith("Z") for state in states()), 10, "reaped")
    if not PEER:
        # Nothing of it is in the container's file system, and what it runs from cannot be written to.
        assert execute(api, id, "sh", "-c", "ls /sbin/docker-init 2>&1 || true").startswith(b"ls: ")
        assert b"/memfd:docker-init" in execute(api, id, "readlink", "/proc/1/exe")
        said = execute(api, id, "sh", "-c", "(echo x >/proc/1/exe) 2>&1 || cat /proc/1/exe | head -c 4")
        assert said.endswith(b"\x7fELF")


@pytest.mark.parametrize("tty", [False, True])
def test_signals_are_passed_on_and_the_status_is_its_own(api: Api, image: str, name: str, tty: bool) -> None:
    id = run(api, image, name, "sh", "-c", ASLEEP, tty=tty)
    wait_until(lambda: b"ready" in logged(api, id), 10, "ready")
    assert api.post(f"/containers/{id}/kill?signal=USR1").status == 204
    assert api.wait(id) == 3
    assert b"told" in logged(api, id)


def test_a_signal_ends_what_would_ignore_it_as_pid_1(api: Api, image: str, name: str) -> None:
    id = run(api, image, name, "sleep", "600")
    assert api.post(f"/containers/{id}/stop?t=60").status == 204
    assert api.wait(id) == 128 + 15


@pytest.mark.parametrize(("command", "status"), [("nosuch", 127), ("/etc/passwd", 126), ("true", 0)])
def test_what_cannot_be_run_is_told_by_the_init(api: Api, image: str, name: str, command: str, status: int) -> None:
    id = run(api, image, name, command)
    assert api.wait(id) == status
    assert (f"exec {command} failed".encode() in logged(api, id)) == bool(status)


def test_it_may_be_combined_with_what_restricts_a_process(api: Api, image: str, name: str) -> None:
    id = run(
        *(api, image, name, "sh", "-c", "id -u; grep -E 'NoNewPrivs|Seccomp:|CapEff' /proc/self/status"),
        CapDrop=["ALL"],
        SecurityOpt=["no-new-privileges"],
    )
    assert api.wait(id) == 0
    said = logged(api, id)
    assert b"CapEff:\t0000000000000000" in said
    assert b"NoNewPrivs:\t1" in said
    assert b"Seccomp:\t2" in said


def test_where_pid_1_is_the_hosts_there_is_none(api: Api, image: str, name: str) -> None:
    id = run(api, image, name, "sleep", "600", PidMode="host")
    top = api.get(f"/containers/{id}/top").json["Processes"]
    assert not any("docker-init" in row[-1] for row in top)
