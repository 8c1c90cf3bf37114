"""Changing containers that exist: docker's update by its client, and ours beyond it by our command."""

import socket
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from cli_process import COMMAND, run

from daemon import PEER, wait_until
from engine_client import Api, DockerCli

Wherry = Callable[..., subprocess.CompletedProcess[bytes]]
ours = pytest.mark.skipif(bool(PEER), reason="docker has no such thing")


@pytest.fixture
def wherry(host: str) -> Wherry:
    def call(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[bytes]:
        done = run(COMMAND, host, list(arguments))
        assert done.returncode == code, (arguments, done)
        return done

    return call


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as client:
            client.settimeout(5)
            return client.recv(3) == b"hi\n"
    except OSError:
        return False


SERVE = "nc -ll -p 80 -e echo hi & nc -ll -p 81 -e echo hi & wait"


@pytest.mark.parametrize("client", ["docker", "wherry"])
def test_dockers_own_update(docker: DockerCli, host: str, api: Api, image: str, name: str, client: str) -> None:
    docker("run", "-d", "--name", name, "--restart", "no", image, "sleep", "1000")

    def update(*arguments: str) -> tuple[int, str, str]:
        if client == "docker":
            ran = docker("update", *arguments, code=None)
            return ran.code, ran.out, ran.err
        done = run(COMMAND, host, ["update", *arguments])
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    before = api.get(f"/containers/{name}/json").json
    code, out, _ = update(
        *("--memory", "64m", "--memory-swap", "128m", "--cpus", "0.5", "--pids-limit", "99", "--cpu-shares", "512"),
        *("--restart", "on-failure:3", name),
    )
    assert (code, out) == (0, f"{name}\n")
    after = api.get(f"/containers/{name}/json").json
    host_config = after["HostConfig"]
    assert (host_config["Memory"], host_config["MemorySwap"]) == (64 << 20, 128 << 20)
    assert (host_config["NanoCpus"], host_config["PidsLimit"], host_config["CpuShares"]) == (500_000_000, 99, 512)
    assert host_config["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert after["State"]["Pid"] == before["State"]["Pid"]
    for arguments, error in (
        (("--restart", "always:3", name), "maximum retry count can only be used with 'on-failure'"),
        (("--restart", "sometimes", name), "unknown policy 'sometimes'"),
        (("--memory", "1", name), "inimum memory limit allowed is 6MB"),
        (("--cpus", "99", name), "range of CPUs is from 0.01 to"),
        ((name,), "you must provide one or more flags when using this command"),
        (("--pids-limit", "98", "wt-nosuch", name), "No such container: wt-nosuch"),
    ):
        code, out, err = update(*arguments)
        assert (code, error in err) == (1, True), (arguments, err)
    assert out == f"{name}\n"
    assert update("--bogus", name)[0] == 125
    assert update("--memory", "64m")[0] == 1


@ours
def test_ports_come_and_go_while_it_runs(wherry: Wherry, api: Api, image: str, name: str) -> None:
    one, two = free_port(), free_port()
    id = wherry("run", "-d", "--name", name, "-p", f"127.0.0.1:{one}:80", image, "sh", "-c", SERVE).stdout.strip()
    wait_until(lambda: answers(one), 10, "the first port answers")
    pid = api.get(f"/containers/{name}/json").json["State"]["Pid"]
    assert wherry("update", "-p", f"127.0.0.1:{two}:81", "--publish-rm", "80", name).stdout.decode() == f"{name}\n"
    wait_until(lambda: answers(two), 10, "the second port answers")
    assert not answers(one)
    shown = api.get(f"/containers/{name}/json").json
    assert (shown["State"]["Pid"], shown["Id"]) == (pid, id.decode())
    assert wherry("port", name).stdout.decode() == f"81/tcp -> 127.0.0.1:{two}\n"
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", one))
        error = wherry("update", "-p", f"127.0.0.1:{one}:80", "-e", "A=1", name, code=1).stderr.decode()
        assert "address already in use" in error
    assert api.get(f"/containers/{name}/json").json["State"]["Pid"] == pid
    assert answers(two)
    wherry("update", "--publish-rm", "all", name)
    assert not answers(two)
    assert wherry("port", name).stdout == b""


@ours
def test_what_needs_a_new_process_keeps_files_name_and_id(
    wherry: Wherry, docker: DockerCli, api: Api, image: str, name: str
) -> None:
    docker(
        *("run", "-d", "--name", name, "--rm", "-e", "A=1", "-v", f"{name}-old:/old", "-v", "/anon", "-t", image),
        *(
            "sh",
            "-c",
            "trap exit TERM; echo mine >>/kept; echo v >/old/v; echo a >/anon/a; while :; do sleep 0.1; done",
        ),
    )
    before = api.get(f"/containers/{name}/json").json
    wait_until(lambda: docker("exec", name, "cat", "/anon/a", code=None).out == "a\n", 10, "it has written")
    refused = wherry("update", "--live", "-e", "A=2", name, code=1)
    assert b"changing Env needs a restart" in refused.stderr
    done = wherry(
        *("update", "-e", "A=2", "-e", "B=3", "-v", f"{name}-new:/new", "--tmpfs", "/t:size=1m", "--volume-rm", "/old"),
        *("--hostname", "other", "-l", "k=v", "--memory", "64m", "--user", "7:8", "--ulimit", "nofile=99:99", name),
    )
    assert done.stdout.decode() == f"{name}\n"
    after = api.get(f"/containers/{name}/json").json
    assert after["Id"] == before["Id"]
    assert after["State"]["Pid"] != before["State"]["Pid"]
    script = "cat /kept /anon/a; echo $A $B; hostname; id -u; ulimit -n; ls /old; grep -c ' /t ' /proc/mounts"
    assert docker("exec", name, "sh", "-c", script).out.splitlines() == ["mine", "a", "2 3", "other", "7", "99", "1"]
    assert docker("exec", "-u", "0", name, "touch", "/new/x", "/t/x").code == 0
    assert {mount["Destination"] for mount in after["Mounts"]} == {"/anon", "/new"}
    # Not startable: it is what it was, and runs.
    error = wherry("update", "--cmd", "/nosuch", "-e", "A=3", name, code=1).stderr.decode()
    assert "runs as it was" in error
    assert "no such file or directory" in error
    assert docker("exec", name, "sh", "-c", "echo $A").out == "2\n"
    docker("stop", "-t", "5", name)
    wait_until(lambda: api.get(f"/containers/{name}/json").status == 404, 10, "--rm still holds")
    docker("volume", "rm", f"{name}-old", f"{name}-new")


@ours
def test_fields_that_are_not_known_are_refused(api: Api, image: str, name: str) -> None:
    api.create(name, Image=image)
    bodies: list[Any] = [{"Bogus": 1}, {"Env": {"Add": ["A=1"]}}, {"HostConfig": {"Privileged": True}}, []]
    for body in bodies:
        assert api.post(f"/containers/{name}/alter", body).status == 400
    answer = api.post(f"/containers/{name}/alter", {"Env": {"Set": ["A=1"]}})
    assert answer.json == {"Id": api.get(f"/containers/{name}/json").json["Id"], "Restarted": False, "Warnings": None}
