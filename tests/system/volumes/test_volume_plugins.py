"""Volumes of plugins, the good and the bad ones."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volume_plugin import VolumePlugin, announce, serving
from wherry.errors import Conflict, FailedPrecondition, Internal, NotFound, Unavailable, WherryError
from wherry.plugins import Places
from wherry.state import MemoryStore
from wherry.volumes import Volumes

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


class Bench:
    """Volumes with one plugin, "fake"."""

    def __init__(self, root: Path, plugin: VolumePlugin) -> None:
        self.root, self.plugin, self.store = root, plugin, MemoryStore()
        self.volumes = self.open()

    def open(self) -> Volumes:
        """As a daemon that starts."""
        places = Places((self.root / "run",), (self.root / "etc",))
        return Volumes(self.root / "volumes", self.store, places, short=0.5, long=1.0)

    def called(self, method: str) -> list[Any]:
        return [body for name, body in self.plugin.calls if name == f"VolumeDriver.{method}"]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    (tmp_path / "served").mkdir()
    announce("fake", str(tmp_path / "p.sock"), tmp_path / "etc")
    with serving(VolumePlugin(tmp_path / "served"), tmp_path / "p.sock") as plugin:
        made = Bench(tmp_path, plugin)
        yield made
        made.volumes.close()


def test_a_plugins_volume(bench: Bench) -> None:
    volumes = bench.volumes
    made = volumes.create("data", "fake", {"a": "b"}, {"l": "1"})
    assert bench.plugin.volumes == {"data": {"a": "b"}}
    assert volumes.create("data", "fake") == made
    assert volumes.get("data").to_json() == {
        "CreatedAt": "0001-01-01T00:00:00Z",
        "Driver": "fake",
        "Labels": {"l": "1"},
        "Mountpoint": "",
        "Name": "data",
        "Options": {"a": "b"},
        "Scope": "local",
        "Status": {"users": 0},
    }
    path = volumes.acquire("data", "c1")
    assert volumes.acquire("data", "c1") == path == bench.root / "served/data"
    assert bench.called("Mount") == [{"Name": "data", "ID": "c1"}]
    with pytest.raises(Conflict, match=r"remove data: volume is in use - \[c1\]"):
        volumes.remove("data")
    volumes.release("data", "c1")
    volumes.release("data", "c1")
    assert bench.called("Unmount") == [{"Name": "data", "ID": "c1"}]
    volumes.remove("data")
    assert bench.plugin.volumes == {}
    assert volumes.known("data") is None
    assert bench.store.scan("volume") == []


def test_names_belong_to_one_driver(bench: Bench) -> None:
    bench.volumes.create("data", "fake")
    bench.volumes.create("plain")
    words = "volume name must be unique"
    with pytest.raises(Conflict, match=f"create data: driver 'fake' already has volume 'data': {words}"):
        bench.volumes.create("data", "local")
    with pytest.raises(Conflict, match=f"create plain: driver 'local' already has volume 'plain': {words}"):
        bench.volumes.create("plain", "fake")
    with pytest.raises(NotFound, match='create x1: error looking up volume plugin nope: plugin "nope" not found'):
        bench.volumes.create("x1", "nope")


def test_listing_merges_what_plugins_have(bench: Bench) -> None:
    bench.volumes.create("mine")
    bench.volumes.create("theirs", "fake", labels={"l": ""})
    bench.plugin.volumes["foreign"] = {}
    listing = bench.volumes.list_all()
    assert [(v.name, v.driver) for v in listing.volumes] == [("foreign", "fake"), ("mine", "local"), ("theirs", "fake")]
    assert bench.volumes.get("foreign").driver == "fake"
    assert [v.name for v in bench.volumes.list_all({"label": ["l"]}).volumes] == ["theirs"]
    bench.plugin.behave["VolumeDriver.List"] = lambda body: {"Err": "on fire"}
    listing = bench.volumes.list_all()
    assert [v.name for v in listing.volumes] == ["mine", "theirs"]
    assert listing.warnings == ['error while listing volumes from driver "fake": VolumeDriver.List: on fire']
    del bench.plugin.volumes["theirs"], bench.plugin.behave["VolumeDriver.List"]
    assert [v.name for v in bench.volumes.list_all().volumes] == ["foreign", "mine"]


@pytest.mark.parametrize(
    "told",
    [{"Mountpoint": "relative/x"}, {"Mountpoint": "/"}, {"Mountpoint": "/proc/1"}, {"Mountpoint": "/no/where"}]
    + [{"Mountpoint": "/var/../etc"}, {"Mountpoint": 5}, {}],
)
def test_a_mount_point_that_is_none(bench: Bench, told: Any) -> None:
    bench.volumes.create("data", "fake")
    bench.plugin.behave["VolumeDriver.Mount"] = lambda body: told
    with pytest.raises(FailedPrecondition, match="error while mounting volume 'data'"):
        bench.volumes.acquire("data", "c1")
    assert bench.called("Unmount") == [{"Name": "data", "ID": "c1"}]
    bench.volumes.remove("data")


@pytest.mark.parametrize("reply", [None, b"\xff\xfe not json", [1, 2], {"Err": "cannot"}])
@pytest.mark.parametrize("method", ["Create", "Mount", "Remove"])
def test_bad_answers_leave_nothing_half_made(bench: Bench, method: str, reply: Any) -> None:
    """None: no answer at all, which costs no more than the deadline, and nobody else anything."""
    if method != "Create":
        bench.volumes.create("data", "fake")
    bench.plugin.behave[f"VolumeDriver.{method}"] = lambda body: reply
    act = {
        "Create": lambda: bench.volumes.create("data", "fake"),
        "Mount": lambda: bench.volumes.acquire("data", "c1"),
        "Remove": lambda: bench.volumes.remove("data"),
    }[method]
    failed: list[WherryError] = []

    def run() -> None:
        with pytest.raises((Unavailable, Internal)) as caught:
            act()
        failed.append(caught.value)

    thread = threading.Thread(target=run)
    thread.start()
    bench.volumes.create("other")
    thread.join(10)
    assert "VolumeDriver." in failed[0].message
    assert (bench.volumes.known("data") is None) == (method == "Create")
    assert bench.store.scan("volume-mounts/") == []
    bench.plugin.behave.clear()
    bench.volumes.create("data", "fake")
    bench.volumes.acquire("data", "c1")
    bench.volumes.release("data", "c1")
    bench.volumes.remove("data")


def test_after_a_crash_the_plugin_is_told_who_is_done(bench: Bench) -> None:
    bench.volumes.create("data", "fake")
    for user in ("lives", "died"):
        bench.volumes.acquire("data", user)
    again = bench.open()
    again.acquire("data", "lives")
    again.release_unused()
    assert bench.plugin.mounted["data"] == {"lives"}
    assert len(bench.called("Mount")) == 2
    again.release("data", "lives")
    assert bench.plugin.mounted["data"] == set()
    assert bench.store.scan("volume-mounts/") == []
    again.close()


def test_a_plugins_volume_is_filled_and_given_back(bench: Bench, tmp_path: Path) -> None:
    image = tmp_path / "image/etc"
    image.mkdir(parents=True)
    (image / "f").write_text("x")
    bench.volumes.create("data", "fake")
    fd = os.open(image.parent, os.O_RDONLY)
    bench.volumes.populate("data", fd, "/etc")
    os.close(fd)
    assert (tmp_path / "served/data/f").read_text() == "x"
    assert bench.plugin.mounted["data"] == set()
