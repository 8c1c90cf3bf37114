"""Images from containers, by docker's client and library; what comes back is what the container had."""

import io
import json
import tarfile
import time
from pathlib import Path
from typing import Any

from daemon import PEER
from engine_client import Api, DockerCli


def layer(docker: DockerCli, image: str, tmp_path: Path) -> tuple[dict[str, Any], dict[str, tarfile.TarInfo]]:
    """The configuration in an image's archive, and the entries of its topmost layer."""
    path = tmp_path / "image.tar"
    docker("save", "-o", str(path), image)
    with tarfile.open(path) as archive:

        def read(name: str) -> bytes:
            file = archive.extractfile(name)
            assert file is not None
            return file.read()

        (manifest,) = json.loads(read("manifest.json"))
        data = read(manifest["Layers"][-1])
        with tarfile.open(fileobj=io.BytesIO(data)) as packed:
            return json.loads(read(manifest["Config"])), {member.name: member for member in packed}


def test_what_changed_and_nothing_else_is_in_the_layer(
    docker: DockerCli, image: str, name: str, tmp_path: Path
) -> None:
    script = (
        "echo hi >/f; chown 7:8 /f; chmod 4751 /f; rm -rf /home; mkdir /home; touch /home/x; rm /etc/group; "
        "ln -s f /link; ln /f /hard; mkfifo /fifo; echo v >/data/v; echo t >/t/t; echo s >/dev/shm/s; "
        "echo e >>/etc/hosts"
    )
    docker("run", "--name", name, "-v", "/data", "--tmpfs", "/t", image, "sh", "-c", script)
    made = docker("commit", "-a", "Me", "-m", "what for", name, f"{name}:one").out.strip()
    assert made.startswith("sha256:")
    config, entries = layer(docker, f"{name}:one", tmp_path)
    names = {entry.strip("/") for entry in entries} - {"etc"}
    assert names == {
        *("f", "hard", "link", "fifo", "home", "home/.wh..wh..opq", "home/x", "data", "t", "etc/.wh.group"),
    }
    first = entries["f"] if entries["f"].isreg() else entries["hard"]
    assert (oct(first.mode), first.uid, first.gid) == ("0o4751", 7, 8)
    step = config["history"][-1]
    assert (step["author"], step["comment"], step["created_by"]) == ("Me", "what for", f"sh -c {script}")
    assert len(config["history"]) == len(config["rootfs"]["diff_ids"]) == 2
    tree = docker(
        "run", "--rm", f"{name}:one", "sh", "-c", "cat /f /hard; ls -A /home /data /t; test ! -e /etc/group"
    ).out
    assert tree.splitlines() == ["hi", "hi", "/data:", "", "/home:", "x", "", "/t:"]
    shown = json.loads(docker("inspect", f"{name}:one").out)[0]
    assert shown["Parent"] == docker("inspect", "-f", "{{.Id}}", image).out.strip()
    assert shown["Config"]["Volumes"] == {"/data": {}}
    assert "what for" in docker("history", f"{name}:one").out.splitlines()[1]


def test_configuration_is_merged_as_dockers_is(docker: DockerCli, api: Api, image: str, name: str) -> None:
    docker(
        *("create", "--name", name, "-e", "A=1", "-l", "own=1", "-p", "80", "--stop-signal", "USR1", "--workdir", "/x"),
        *(image, "sh", "-c", "true"),
    )

    def config(tag: str) -> dict[str, Any]:
        shown = json.loads(docker("inspect", f"{name}:{tag}").out)[0]["Config"]
        return {key: value for key, value in shown.items() if value}

    changes = ["ENV A=2 C=$A", "LABEL x=y", "EXPOSE 81/udp", "WORKDIR sub", "USER u", 'ENTRYPOINT ["e"]']
    docker("commit", *(word for change in changes for word in ("-c", change)), name, f"{name}:changed")
    assert config("changed") == {
        "Env": ["A=2", "C=1"],
        "Entrypoint": ["e"],
        "ExposedPorts": {"80/tcp": {}, "81/udp": {}},
        "Labels": {"own": "1", "x": "y"},
        "StopSignal": "USR1",
        "User": "u",
        "WorkingDir": "/x/sub",
    }
    body = {"Env": ["Z=1"], "Cmd": ["new"], "Labels": {"q": "1"}, "Hostname": "h"}
    answer = api.post(f"/commit?container={name}&repo={name}&tag=body&comment=c&author=a&pause=0", body)
    assert (answer.status, set(answer.json)) == (201, {"Id"})
    assert config("body") == {
        "Env": ["Z=1", "A=1"],
        "Cmd": ["new"],
        "ExposedPorts": {"80/tcp": {}},
        "Labels": {"own": "1", "q": "1"},
        "StopSignal": "USR1",
        "WorkingDir": "/x",
    }


def test_commits_that_cannot_be(docker: DockerCli, api: Api, image: str, name: str) -> None:
    docker("create", "--name", name, image)
    for arguments, text in (
        (("wt-nosuch", "x"), "No such container: wt-nosuch"),
        ((name, "UPPER"), "must be lowercase"),
        (("-c", "FROM x", name), "FROM is not a valid change command"),
    ):
        assert text in docker("commit", *arguments, code=1).err
    answer = api.post("/commit", {})
    assert (answer.status, answer.message) == (400, 'invalid name or ID supplied: ""')
    answer = api.post(f"/commit?container={name}&repo=bad@sha256:{'0' * 64}", {})
    assert (answer.status, answer.message) == (400, "cannot import digest reference")


def test_a_running_container_is_paused_meanwhile_and_the_story_is_told(
    docker: DockerCli, sdk: Any, image: str, name: str
) -> None:
    container = sdk.containers.run(image, ["sleep", "1000"], name=name, detach=True)
    since = time.time() - 1
    made = container.commit(repository=name, tag="py", message="m", changes=['CMD ["q"]'])
    assert made.tags == [f"{name}:py"]
    assert made.attrs["Config"]["Cmd"] == ["q"]
    docker("commit", "--pause=false", name, f"{name}:b")
    events = [
        json.loads(line)
        for line in docker(
            *("events", "--since", f"{since:.3f}", "--until", f"{time.time() + 0.1:.3f}", "--format", "{{json .}}"),
            *("--filter", f"container={name}", "--filter", "type=container"),
        ).out.splitlines()
    ]
    seen = [event["Action"] for event in events]
    assert seen[-4:] == ["pause", "commit", "unpause", "commit"]
    attributes = events[-3]["Actor"]["Attributes"]
    assert (attributes["comment"], attributes["imageID"], attributes["imageRef"]) == ("m", made.id, f"{name}:py")
    container.reload()
    assert container.status == "running"


def test_nothing_changed_is_a_step_without_a_layer_or_an_empty_one(docker: DockerCli, image: str, name: str) -> None:
    docker("create", "--name", name, image)
    docker("commit", name, f"{name}:same")
    assert docker("run", "--rm", f"{name}:same", "echo", "runs").out == "runs\n"
    assert docker("history", "-q", f"{name}:same").out.count("\n") == 2


def test_the_same_changes_at_the_same_time_are_the_same_image(
    docker: DockerCli, api: Api, image: str, name: str
) -> None:
    if PEER:
        import pytest

        pytest.skip("docker's images are dated by the moment they are made")
    ids = set()
    for number in (1, 2):
        docker(
            "run", "--name", f"{name}-{number}", image, "sh", "-c", "echo hi >/f; mkdir /d; touch /d/x; rm /etc/group"
        )
        answer = api.post(f"/commit?container={name}-{number}&timestamp=1700000000")
        ids.add(answer.json["Id"])
        again = api.post(f"/commit?container={name}-{number}&timestamp=1700000000")
        ids.add(again.json["Id"])
    assert len(ids) == 1
    (made,) = ids
    shown = json.loads(docker("inspect", made).out)[0]
    assert shown["Created"] == "2023-11-14T22:13:20Z"
    for number in (1, 2):
        docker("rm", f"{name}-{number}")
    docker("rmi", made)
