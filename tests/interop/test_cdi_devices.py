"""CDI devices by name and as GPUs, through a whole engine. With a peer, its /etc/cdi is WHERRY_TEST_PEER_CDI."""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import PEER, Daemon, busybox_tar
from engine_client import Api, unframe

pytestmark = pytest.mark.root
KIND = f"wt{uuid.uuid4().hex[:8]}.example/part"


def specification(scratch: Path) -> dict[str, object]:
    (scratch / "library").write_text("from the host\n")
    edits = {
        "env": ["PART=one"],
        "deviceNodes": [{"path": "/dev/part", "hostPath": "/dev/zero", "permissions": "r"}],
        "mounts": [{"hostPath": f"{scratch}/library", "containerPath": "/lib/part", "options": ["ro", "bind"]}],
        "additionalGids": [4321],
    }
    devices = [{"name": "one", "containerEdits": edits}, {"name": "two", "containerEdits": {"env": ["PART=two"]}}]
    return {"cdiVersion": "0.7.0", "kind": KIND, "devices": devices, "containerEdits": {"env": ["ANY=yes"]}}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if PEER and "WHERRY_TEST_PEER_CDI" not in os.environ:
        pytest.skip("where the peer looks for CDI specifications is not known")
    directory = Path(os.environ["WHERRY_TEST_PEER_CDI"]) if PEER else tmp_path_factory.mktemp("cdi")
    scratch = directory if PEER else tmp_path_factory.mktemp("scratch")
    directory.mkdir(exist_ok=True)
    file = directory / f"{KIND.partition('.')[0]}.json"
    document = specification(scratch)
    if PEER:
        # The peer has a root of its own.
        document = json.loads(json.dumps(document).replace(str(scratch), "/etc/cdi"))
    file.write_text(json.dumps(document))
    with contextlib.ExitStack() as stack:
        stack.callback(file.unlink)
        stack.callback((scratch / "library").unlink)
        host = PEER
        if not PEER:
            made = Daemon("--cdi-spec-dir", str(directory))
            stack.callback(made.remove)
            made.start()
            host = made.host
        api = stack.enter_context(Api(host))
        tar = {"Content-Type": "application/x-tar"}
        query = f"fromSrc=-&repo={file.stem}&tag=1"
        assert api.request("POST", f"/images/create?{query}", busybox_tar().read_bytes(), tar).status == 200
        stack.callback(api.delete, f"/images/{file.stem}:1?force=1")
        yield api


def output(api: Api, script: str, names: list[str]) -> str:
    request = {"Driver": "cdi", "DeviceIDs": names}
    host = {"NetworkMode": "none", "DeviceRequests": [request]}
    image = f"{KIND.partition('.')[0]}:1"
    id = api.run(f"wt-{uuid.uuid4().hex[:8]}", Image=image, Cmd=["sh", "-c", script], HostConfig=host)
    api.wait(id)
    streams = unframe(api.get(f"/containers/{id}/logs?stdout=1&stderr=1").body)
    api.delete(f"/containers/{id}?force=1")
    return (streams["stdout"] + streams["stderr"]).decode()


def test_a_device_brings_what_its_specification_says(engine: Api) -> None:
    script = (
        "echo $ANY $PART; head -c3 /dev/part | wc -c; cat /lib/part; id -G; "
        "(echo x > /dev/part) 2>/dev/null; mknod /tmp/m c 1 1; (: < /tmp/m) 2>/dev/null || echo denied"
    )
    lines = output(engine, script, [f"{KIND}=one"]).splitlines()
    assert lines[:3] == ["yes one", "3", "from the host"]
    # dockerd takes the specification's groups in, and then puts the user's over them.
    assert PEER or "4321" in lines[3].split()
    assert lines[-1] == "denied"


def test_two_devices_of_one_kind(engine: Api) -> None:
    assert output(engine, "echo $ANY $PART", [f"{KIND}=one", f"{KIND}=two"]) == "yes two\n"


def test_info_shows_them(engine: Api) -> None:
    info = engine.get("/info").json
    assert info["CDISpecDirs"]
    found = {device["ID"] for device in info["DiscoveredDevices"] if device["Source"] == "cdi"}
    assert {f"{KIND}=one", f"{KIND}=two"} <= found
