"""Mounts by the real docker client: what is refused, in which words, and what a container then has."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon import PEER
from engine_client import Api, DockerCli


@pytest.fixture
def vol(host: str, name: str, image: str) -> Iterator[str]:
    """What the names of volumes and containers begin with; they are gone after the test."""
    yield name
    with Api(host) as client:
        for container in client.get(f'/containers/json?all=1&filters={{"name":["{name}"]}}').json:
            client.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")
        for volume in client.get(f'/volumes?filters={{"name":["{name}"]}}').json["Volumes"]:
            client.request("DELETE", f"/volumes/{volume['Name']}?force=1")


def mount_line(docker: DockerCli, image: str, *flags: str) -> str:
    """Options and source of what is mounted at /x."""
    return docker("run", "--rm", *flags, image, "grep", " /x ", "/proc/self/mountinfo").out


_BIND, _VOLUME = 'invalid mount config for type "bind": ', 'invalid mount config for type "volume": '


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-v", "VOL:/"], f"invalid volume specification: 'VOL:/': {_VOLUME}invalid specification: destination"),
        (["-v", "/tmp:/"], f"invalid volume specification: '/tmp:/': {_BIND}invalid specification: destination can't"),
        (["-v", "VOL:/x:foo"], "invalid mode: foo"),
        (["-v", "/tmp:/x:z,Z"], "invalid mode: z,Z"),
        (["-v", "/tmp:/x:ro,rw"], "invalid mode: ro,rw"),
        (["-v", "/tmp:/x:cached,delegated"], "invalid mode: cached,delegated"),
        (["-v", "VOL:/x:nocopy,nocopy"], "invalid mode: nocopy,nocopy"),
        (["-v", "/tmp:/x:nocopy"], f"'/tmp:/x:nocopy': {_BIND}field VolumeOptions must not be specified"),
        (["-v", "VOL:/x:shared"], f"'VOL:/x:shared': {_VOLUME}field BindOptions must not be specified"),
        (["-v", "VOL:rel"], f"'VOL:rel': {_VOLUME}invalid mount path: 'rel' mount path must be absolute"),
        (["-v", "a/b:/x"], 'create a/b: "a/b" includes invalid characters for a local volume name'),
        (["-v", "VOL:/x", "--tmpfs", "/x"], "Duplicate mount point: /x"),
        (["-v", "VOL:/x", "--mount", "type=tmpfs,target=/x"], "Duplicate mount point: /x"),
        (["-v", "VOL:/x", "-v", "/tmp:/x"], "Duplicate mount point: /x"),
        (["--mount", "type=bind,source=/no/such,target=/x"], f"{_BIND}bind source path does not exist: /no/such"),
        (["--mount", "type=bind,source=tmp,target=/x"], f"{_BIND}invalid mount path: 'tmp' mount path must be absolut"),
        (["--mount", "type=bind,target=/x"], f"{_BIND}field Source must not be empty"),
        (["--mount", "type=bind,source=/tmp,target=/x,bind-propagation=foo"], f"{_BIND}invalid propagation mode: foo"),
        (["--mount", "type=bind,source=/tmp,target=/"], f"{_BIND}invalid specification: destination can't be '/'"),
        (["--mount", "type=foo,source=/tmp,target=/x"], 'invalid mount config for type "foo": mount type unknown'),
        (["--mount", "type=npipe,source=a,target=/x"], 'invalid mount config for type "npipe": mount type unknown'),
        (["--mount", "type=image,target=/x"], 'invalid mount config for type "image": field Source must not be empty'),
        (["--mount", "type=tmpfs,source=a,target=/x"], 'type "tmpfs": field Source must not be specified'),
        (
            ["--mount", "type=volume,source=VOL,target=/x,volume-subpath=../x"],
            f"{_VOLUME}subpath must be a relative path within the volume",
        ),
        (
            ["--mount", "type=volume,target=/x,volume-subpath=y"],
            f"{_VOLUME}must not set Subpath when using anonymous volumes",
        ),
        (["--tmpfs", "x"], "invalid mount path: 'x' mount path must be absolute"),
        (["--tmpfs", "/"], "invalid specification: destination can't be '/'"),
        (["--volumes-from", ""], "volumes-from specification cannot be an empty string"),
        (["--volumes-from", "nosuchcontainer"], "No such container: nosuchcontainer"),
    ],
)
def test_what_is_refused(docker: DockerCli, image: str, vol: str, flags: list[str], message: str) -> None:
    flags = [flag.replace("VOL", vol) for flag in flags]
    refused = docker("create", "--name", vol, *flags, image, "true", code=1)
    assert message.replace("VOL", vol) in refused.err
    assert docker("ps", "-aq", "-f", f"name={vol}").out == ""


def test_volumes_from(docker: DockerCli, image: str, vol: str) -> None:
    docker("create", "--name", vol, "-v", f"{vol}:/x", "-v", "/tmp:/y:ro", "--tmpfs", "/t", image, "true")
    for mode, access in (("", "rw"), (":ro", "ro"), (":ro,z", "ro"), (":Z", "rw")):
        assert f" /x {access}," in mount_line(docker, image, "--volumes-from", vol + mode)
    for mode in ("foo", "nocopy"):
        refused = docker("create", "--volumes-from", f"{vol}:{mode}", image, "true", code=1)
        assert f"invalid mode: {mode}" in refused.err
    docker("create", "--name", f"{vol}-2", "--volumes-from", vol, image, "true")
    shown = json.loads(docker("inspect", "-f", "{{json .Mounts}}", f"{vol}-2").out)
    assert sorted((m["Destination"], m["Mode"], m["RW"]) for m in shown) == [("/x", "", True), ("/y", "", False)]


def test_a_mount_brings_its_volume_with_driver_options_and_labels(docker: DockerCli, image: str, vol: str) -> None:
    spec = f"type=volume,source={vol},target=/x,volume-label=a=b"
    for option in ("type=tmpfs", "device=tmpfs", "o=size=1m"):
        spec += f",volume-opt={option}"
    assert " - tmpfs tmpfs rw,size=1024k" in mount_line(docker, image, "--mount", spec)
    made: Any = json.loads(docker("volume", "inspect", vol).out)[0]
    assert made["Labels"] == {"a": "b"}
    assert made["Options"] == {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}


def test_tmpfs(docker: DockerCli, image: str, vol: str) -> None:
    line = mount_line(docker, image, "--tmpfs", "/x:size=1m,exec,mode=700,uid=7")
    assert "/x rw,nosuid,nodev,relatime" in line
    for option in ("size=1024k", "mode=700", "uid=7"):
        assert option in line.split(" - ")[1]
    line = mount_line(docker, image, "--mount", "type=tmpfs,target=/x,tmpfs-size=1m,tmpfs-mode=1770,readonly")
    assert "/x ro,nosuid,nodev,noexec,relatime" in line
    refused = docker("run", "--rm", "--tmpfs", "/x:foo", image, "true", code=None)
    assert 'invalid tmpfs option "foo"' in refused.err


def test_an_image_is_mounted_and_outlives_its_name(docker: DockerCli, image: str, vol: str) -> None:
    docker("tag", image, f"{vol}:1")
    script = "ls /x/bin/sh && ! touch /x/f 2>&1 && grep ' /x ' /proc/mounts"
    docker("create", "--name", vol, "--mount", f"type=image,source={vol}:1,target=/x", image, "sh", "-c", script)
    shown = json.loads(docker("inspect", "-f", "{{json .Mounts}}", vol).out)[0]
    assert (shown["Type"], shown["Name"], shown["RW"]) == ("image", f"{vol}:1", False)
    assert docker("rmi", f"{vol}:1").out.startswith("Untagged")
    for _ in range(2):
        out = docker("start", "-a", vol).out
        assert "Read-only file system" in out
        assert " /x overlay ro," in out
    part = f"type=image,source={image},target=/x,image-subpath="
    assert docker("run", "--rm", "--mount", f"{part}bin", image, "ls", "/x/sh").out == "/x/sh\n"
    refused = docker("run", "--rm", "--mount", f"{part}nope", image, "true", code=None)
    assert "cannot access path " in refused.err
    assert "/nope: no such file or directory" in refused.err


def test_a_part_of_a_volume(docker: DockerCli, image: str, vol: str) -> None:
    spec = f"type=volume,source={vol},target=/x,volume-subpath="
    docker("run", "--rm", "-v", f"{vol}:/v", image, "sh", "-c", "mkdir -p /v/in/side && touch /v/in/side/f")
    assert docker("run", "--rm", "--mount", f"{spec}in/side", image, "ls", "/x").out == "f\n"
    refused = docker("run", "--rm", "--mount", f"{spec}nope", image, "true", code=None)
    assert "/nope: no such file or directory" in refused.err
    docker("run", "--rm", "-v", f"{vol}:/v", image, "ln", "-s", "/etc", "/v/out")
    refused = docker("run", "--rm", "--mount", f"{spec}out", image, "true", code=None)
    assert "cannot access path " in refused.err or "escape" in refused.err


@pytest.mark.skipif(bool(PEER), reason="not docker's")
def test_what_roots_in_a_container_make_belongs_to_the_owner_outside(
    docker: DockerCli, image: str, vol: str, tmp_path: Path
) -> None:
    os.chown(tmp_path, 1234, 1235)
    docker("run", "--rm", "-v", f"{tmp_path}:/x:idmap", image, "sh", "-c", "touch /x/f && [ $(stat -c %u /x) = 0 ]")
    status = (tmp_path / "f").stat()
    assert (status.st_uid, status.st_gid) == (1234, 1235)
    # Nobody in there can make what belongs to the host's root.
    refused = docker("run", "--rm", "-u", "1234", "-v", f"{tmp_path}:/x:idmap", image, "touch", "/x/g", code=1)
    assert not (tmp_path / "g").exists(), refused
