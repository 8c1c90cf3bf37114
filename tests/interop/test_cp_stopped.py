"""docker cp and export where containers have volumes, run or not."""

import io
import socket
import tarfile
import threading
from pathlib import Path

import pytest

from daemon import PEER
from engine_client import Api, DockerCli


def names(data: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name.strip("/") for member in archive}


@pytest.mark.parametrize("started", [False, True])
def test_a_stopped_containers_volumes_are_seen(
    docker: DockerCli, api: Api, image: str, name: str, tmp_path: Path, started: bool
) -> None:
    docker("run", "--rm", "-v", f"{name}-v:/v", image, "sh", "-c", "mkdir /v/sub; echo there >/v/sub/f; echo x >/v/x")
    volumes = ("-v", f"{name}-v:/data", "-v", f"{name}-v:/ro:ro", "-v", "/deep/er/anon")
    docker("run" if started else "create", "--name", name, *volumes, image, "true")
    (tmp_path / "new").write_text("new\n")
    docker("cp", str(tmp_path / "new"), f"{name}:/data/sub/new")
    docker("cp", f"{name}:/data/sub/f", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "there\n"
    assert names(api.get(f"/containers/{name}/archive?path=/data").body) == {
        "data",
        "data/sub",
        "data/sub/f",
        "data/sub/new",
        "data/x",
    }
    whole = names(api.get(f"/containers/{name}/archive?path=/").body)
    assert {"data/sub/new", "ro/sub/new", "deep/er/anon", "bin/sh"} <= whole
    refused = docker("cp", str(tmp_path / "new"), f"{name}:/ro/y", code=1)
    assert "mounted volume is marked read-only" in refused.err
    assert docker("run", "--rm", "-v", f"{name}-v:/v", image, "cat", "/v/sub/new").out == "new\n"
    exported = names(docker_export(api, name))
    assert {"data", "ro", "deep/er/anon", "bin/sh"} <= exported
    assert not {path for path in exported if path.startswith(("data/", "ro/"))}
    assert docker("start", "-a", name).code == 0


def docker_export(api: Api, name: str) -> bytes:
    return api.get(f"/containers/{name}/export").body


def test_the_export_of_a_running_container_is_without_what_is_mounted_in_it(
    docker: DockerCli, api: Api, image: str, name: str
) -> None:
    script = "echo v >/v/f; echo t >/t/f; echo s >/dev/shm/f; echo k >/kept; echo h >>/etc/hosts; echo up; sleep 1000"
    docker("run", "-d", "--name", name, "-v", "/v", "--tmpfs", "/t", image, "sh", "-c", script)
    with docker.spawn("logs", "-f", name) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"up\n"
        follower.kill()
    with tarfile.open(fileobj=io.BytesIO(docker_export(api, name))) as archive:
        members = {member.name.strip("/"): member for member in archive}
    assert {"kept", "v", "t", "etc/hosts", "bin/sh", "proc", "sys"} <= members.keys()
    assert not {path for path in members if path.startswith(("v/", "t/", "proc/", "sys/", "dev/shm/"))}
    assert members["etc/hosts"].size == 0


@pytest.mark.skipif(bool(PEER), reason="docker's waits as long as the client likes")
def test_a_stalled_upload_holds_nobody_up(docker: DockerCli, api: Api, host: str, image: str, name: str) -> None:
    id = api.create(name, Image=image, Cmd=["true"])
    with socket.socket(socket.AF_UNIX) as stalled:
        stalled.connect(host.removeprefix("unix://"))
        head = f"PUT /containers/{id}/archive?path=/ HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-tar\r\n"
        stalled.sendall(f"{head}Expect: 100-continue\r\nContent-Length: 100000\r\n\r\n".encode())
        stalled.settimeout(20)
        assert stalled.recv(4096).startswith(b"HTTP/1.1 100 ")
        stalled.sendall(bytes(512))
        # Renamed and looked at at once, removed without waiting for it.
        assert api.post(f"/containers/{name}/rename?name={name}-2").status == 204
        assert api.get(f"/containers/{name}-2/json").status == 200
        done = threading.Event()
        answers = []

        def remove() -> None:
            with Api(host) as other:
                answers.append(other.delete(f"/containers/{name}-2").status)
            done.set()

        thread = threading.Thread(target=remove)
        thread.start()
        assert done.wait(5)
        thread.join()
        assert answers == [204]
        assert b" 409 " in stalled.recv(4096).split(b"\r\n")[0]
