"""CDI: specifications found, devices resolved, and what they do to a container's configuration."""

import json
from pathlib import Path
from typing import Any

import pytest

from wherry.engine.cdi import Registry, apply
from wherry.engine.device_requests import resolve
from wherry.errors import FailedPrecondition, InvalidArgument
from wherry.spec.cdi import Edits, parse, split_name
from wherry.spec.decode import decode
from wherry.spec.docker import DeviceRequest


def document(kind: str = "vendor.com/class", **devices: Any) -> dict[str, Any]:
    entries = [{"name": name, "containerEdits": edits} for name, edits in devices.items()]
    return {"cdiVersion": "0.7.0", "kind": kind, "devices": entries, "containerEdits": {"env": ["ANY=1"]}}


def write(directory: Path, name: str, content: dict[str, Any]) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(json.dumps(content))


def requests(*documents: dict[str, Any]) -> list[DeviceRequest]:
    return [decode(DeviceRequest, found) for found in documents]


def test_a_later_directory_goes_before_and_one_directory_does_not_contradict_itself(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    write(first, "one.json", document(x={"env": ["X=1"]}, y={"env": ["Y=1"]}))
    write(second, "one.json", document(x={"env": ["X=2"]}))
    registry = Registry((first, second))
    assert registry.edits(["vendor.com/class=x"]).env == ("ANY=1", "X=2")
    # A file's own edits come once, however many of its devices are asked for.
    write(first, "one.json", document(y={"env": ["Y=1"]}, z={"env": ["Z=1"]}))
    assert registry.edits(["vendor.com/class=y", "vendor.com/class=z"]).env == ("ANY=1", "Y=1", "Z=1")
    write(second, "two.json", document(x={"env": ["X=3"]}))
    assert registry.names() == ["vendor.com/class=y", "vendor.com/class=z"]
    with pytest.raises(FailedPrecondition, match=r"CDI device injection failed: unresolvable CDI devices .*=x"):
        registry.edits(["vendor.com/class=x"])


def test_yaml_and_files_that_are_wrong(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("cdiVersion: 0.5.0\nkind: v.com/c\ndevices:\n- name: '0'\n  containerEdits: {}\n")
    (tmp_path / "b.yaml").write_text("cdiVersion: [")
    (tmp_path / "c.json").write_text("{")
    (tmp_path / "d.json").mkdir()
    (tmp_path / "e.txt").write_text("not looked at")
    (tmp_path / "f.json").symlink_to("/dev/zero")
    assert Registry((tmp_path, tmp_path / "absent")).names() == ["v.com/c=0"]


@pytest.mark.parametrize(
    "change",
    [
        {"cdiVersion": "9.0.0"},
        {"kind": "novendor"},
        {"devices": []},
        {"devices": [{"name": "../x", "containerEdits": {}}]},
        {"unknown": 1},
        {"containerEdits": {"env": ["=x"]}},
        {"containerEdits": {"hooks": [{"hookName": "never", "path": "/x"}]}},
        {"containerEdits": {"hooks": [{"hookName": "poststop", "path": "x"}]}},
        {"containerEdits": {"deviceNodes": [{"path": "relative"}]}},
        {"containerEdits": {"deviceNodes": [{"path": "/dev/x", "permissions": "q"}]}},
        {"containerEdits": {"mounts": [{"hostPath": "/x"}]}},
        {"containerEdits": {"intelRdt": {"closID": "x"}}},
        {"containerEdits": {"netDevices": [{"hostInterfaceName": "eth0", "name": "eth1"}]}},
        {"containerEdits": {"additionalGids": [-1]}},
    ],
)
def test_what_is_no_specification(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        parse(document(x={}) | change)


@pytest.mark.parametrize("name", ["vendor.com/class=x", "a.b/c-d.e=GPU-1:2", "v.com/c=0"])
def test_names(name: str) -> None:
    assert split_name(name)


@pytest.mark.parametrize("name", ["/dev/x", "class=x", "vendor.com/=x", "vendor.com/a/b=x", "v.com/c=", "v.com/c=../x"])
def test_no_names(name: str) -> None:
    assert split_name(name) is None


def configuration() -> dict[str, Any]:
    return {
        "process": {"env": ["A=1", "B=1"], "user": {"uid": 7, "gid": 8, "additionalGids": [8]}},
        "mounts": [{"destination": "/proc"}, {"destination": "/lib/x"}],
        "linux": {"resources": {"devices": [{"allow": False}]}},
    }


def edits() -> Edits:
    found = {
        "env": ["B=2", "C=3"],
        "deviceNodes": [
            {"path": "/dev/inside", "hostPath": "/dev/null", "permissions": "r", "gid": 9},
            {"path": "/dev/made", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "permissions": "none"},
        ],
        "mounts": [{"hostPath": "/usr/lib", "containerPath": "/lib/x", "options": ["ro"]}],
        "hooks": [{"hookName": "createContainer", "path": "/bin/true", "args": ["true"], "timeout": 3}],
        "additionalGids": [0, 44],
    }
    return parse(document(x=found)).devices["x"]


def test_edits_of_a_configuration() -> None:
    made = configuration()
    apply(made, edits(), privileged=False)
    assert made["process"]["env"] == ["A=1", "B=2", "C=3"]
    assert made["process"]["user"]["additionalGids"] == [8, 44]
    assert made["mounts"][1:] == [
        {"destination": "/lib/x", "source": "/usr/lib", "type": "bind", "options": ["rbind", "ro"]}
    ]
    assert made["hooks"] == {"createContainer": [{"path": "/bin/true", "args": ["true"], "timeout": 3}]}
    inside, plain = made["linux"]["devices"]
    # Owners that the specification leaves out are the container's user.
    assert (inside["path"], inside["major"], inside["minor"], inside["uid"], inside["gid"]) == (
        "/dev/inside",
        1,
        3,
        7,
        9,
    )
    assert (plain["fileMode"], plain["uid"], plain["gid"]) == (0o600, 7, 8)
    rules = made["linux"]["resources"]["devices"]
    assert rules[1:] == [{"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"}]
    privileged = configuration()
    apply(privileged, edits(), privileged=True)
    assert privileged["linux"]["resources"]["devices"] == [{"allow": False}]


def test_gpus_are_cdi_devices(tmp_path: Path) -> None:
    write(tmp_path, "n.json", document("nvidia.com/gpu", **{"0": {"env": ["G=0"]}, "all": {"env": ["G=all"]}}))
    registry = Registry((tmp_path,))
    gpu = {"Capabilities": [["gpu"]]}
    for request, value in (
        ({"Count": -1}, "all"),
        ({"Count": 1}, "0"),
        ({"DeviceIDs": ["0"], "Driver": "nvidia"}, "0"),
    ):
        found = resolve(requests(gpu | request), registry)
        assert found is not None
        assert found.env[-1] == f"G={value}"
    assert resolve(requests({"Driver": "cdi"}), registry) is None


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, r'could not select device driver "" with capabilities: \[\]'),
        ({"Count": -1, "Capabilities": [["gpu"]]}, r'could not select device driver "" with capabilities: \[\[gpu\]\]'),
        ({"Driver": "foo", "Capabilities": [["gpu"]]}, 'could not select device driver "foo"'),
        ({"Count": 1, "Capabilities": [["tpu"]]}, r'could not select device driver "" with capabilities: \[\[tpu\]\]'),
        ({"Driver": "cdi", "DeviceIDs": ["v.com/c=x"]}, "unresolvable CDI devices v.com/c=x"),
        ({"Driver": "cdi", "DeviceIDs": ["v.com/c=x"], "Count": 2}, "unexpected count in CDI device request"),
        ({"Driver": "cdi", "Options": {"a": "b"}}, "unexpected options in CDI device request"),
        ({"Driver": "nvidia", "Count": 1, "DeviceIDs": ["0"]}, "cannot set both Count and DeviceIDs"),
    ],
)
def test_requests_that_cannot_be_met(tmp_path: Path, request_: dict[str, Any], message: str) -> None:
    with pytest.raises((FailedPrecondition, InvalidArgument), match=message):
        resolve(requests(request_), Registry((tmp_path,)))
