"""docker-py, the library most programs use."""

import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from engine_client import Api

if TYPE_CHECKING:
    from docker import DockerClient

# It does not close the sockets of its streams.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


def test_running_and_reading(sdk: "DockerClient", image: str, name: str) -> None:
    assert sdk.ping()
    assert sdk.version()["Os"] == "linux"
    assert sdk.containers.run(image, ["echo", "hi"], remove=True) == b"hi\n"
    container = sdk.containers.run(image, ["sh", "-c", "echo o; echo e >&2; sleep 1000"], name=name, detach=True)
    assert container.status in ("created", "running")
    lines = container.logs(stream=True, follow=True)
    assert {next(lines), next(lines)} == {b"o\n", b"e\n"}
    container.reload()
    assert container.status == "running"
    assert container in sdk.containers.list(filters={"name": name})
    result = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True)
    assert (result.exit_code, result.output) == (4, (b"out\n", b"err\n"))
    container.pause()
    container.unpause()
    container.rename(f"{name}-b")
    container.stop(timeout=1)
    assert container.wait()["StatusCode"] == 137
    container.remove()


def test_errors_have_their_classes(sdk: "DockerClient", image: str, name: str) -> None:
    from docker import errors

    with pytest.raises(errors.NotFound, match="No such container"):
        sdk.containers.get(name)
    with pytest.raises(errors.ImageNotFound):
        sdk.images.get(f"{name}:nope")
    sdk.containers.create(image, name=name)
    with pytest.raises(errors.APIError, match="already in use"):
        sdk.containers.create(image, name=name)
    with pytest.raises(errors.ContainerError) as caught:
        sdk.containers.run(image, ["sh", "-c", "exit 3"], remove=True)
    assert caught.value.exit_status == 3


def test_sockets_of_attach_and_exec(sdk: "DockerClient", image: str, name: str) -> None:
    container = sdk.containers.create(image, ["cat"], name=name, stdin_open=True, tty=False)
    wire = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    raw = wire._sock
    raw.sendall(b"through\n")
    seen = b""
    while not seen.endswith(b"through\n"):
        seen += raw.recv(100)
    assert seen == b"\x01\0\0\0\0\0\0\x08through\n"
    _, stream = container.exec_run(["sh", "-c", "echo a; echo b"], stream=True)
    assert b"".join(stream) == b"a\nb\n"
    wire._response.close()
    raw.close()
    wire.close()
    container.remove(force=True)


def test_archives_and_images(sdk: "DockerClient", image: str, name: str) -> None:
    container = sdk.containers.create(image, ["cat", "/tmp/f"], name=name)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo("f")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"abc"))
    assert container.put_archive("/tmp", packed.getvalue())
    chunks, stat = container.get_archive("/tmp/f")
    assert stat["name"] == "f"
    assert b"abc" in b"".join(chunks)
    container.start()
    assert container.wait()["StatusCode"] == 0
    assert container.logs() == b"abc"
    assert {"Path": "/tmp/f", "Kind": 1} in container.diff()
    found = sdk.images.get(image)
    assert image in found.tags
    assert found.tag(name, "x")
    assert f"{name}:x" in sdk.images.get(f"{name}:x").tags
    sdk.images.remove(f"{name}:x")
    assert found.history()


def test_events_of_a_volume_that_a_container_brings(sdk: "DockerClient", image: str, name: str) -> None:
    events = sdk.events(decode=True, filters={"type": "volume", "volume": name})
    container = sdk.containers.create(image, "true", volumes=[f"{name}:/x"])
    seen = [next(events)]
    container.remove()
    sdk.volumes.get(name).remove()
    seen.append(next(events))
    events.close()
    assert [(event["Action"], event["Actor"]) for event in seen] == [
        ("create", {"ID": name, "Attributes": {"driver": "local"}}),
        ("destroy", {"ID": name, "Attributes": {"driver": "local"}}),
    ]


def test_events_volumes_networks(sdk: "DockerClient", api: Api, image: str, name: str) -> None:
    events = sdk.events(decode=True, filters={"type": "volume", "volume": name})
    volume = sdk.volumes.create(name)
    event = next(events)
    assert (event["Action"], event["Actor"]["ID"]) == ("create", name)
    events.close()
    assert volume in sdk.volumes.list(filters={"name": name})
    volume.remove()
    assert {network.name for network in sdk.networks.list()} >= {"bridge", "host", "none"}
    assert sdk.networks.get("bridge").attrs["Driver"] == "bridge"
    # Its form changed with API 1.52.
    assert {"LayersSize", "ImageUsage"} & sdk.df().keys()
    assert sdk.info()["OSType"] == "linux"
