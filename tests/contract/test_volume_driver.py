"""What every volume driver keeps to: the local one and one of a plugin."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from volume_plugin import VolumePlugin, serving
from wherry.errors import InvalidArgument, NotFound
from wherry.plugins import Address, activate
from wherry.volumes import Driver
from wherry.volumes._local import LocalDriver
from wherry.volumes._remote import RemoteDriver

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture(params=["local", "plugin"])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driver]:
    if request.param == "local":
        local = LocalDriver(tmp_path / "volumes")
        yield local
        local.close()
        return
    (tmp_path / "served").mkdir()
    path = tmp_path / "p.sock"
    with serving(VolumePlugin(tmp_path / "served"), path):
        yield RemoteDriver(activate(Address(name="fake", path=str(path)), "VolumeDriver"))


def test_life(driver: Driver) -> None:
    assert driver.scope in ("local", "global")
    assert driver.list() == []
    driver.create("data", {})
    driver.create("data", {})
    assert driver.get("data").name == "data"
    assert [found.name for found in driver.list()] == ["data"]
    path = driver.mount("data", "c1")
    assert driver.mount("data", "c2") == path
    (path / "f").write_text("kept")
    driver.unmount("data", "c1")
    driver.unmount("data", "c1")
    assert driver.get("data").mountpoint == str(path)
    driver.unmount("data", "c2")
    assert (driver.mount("data", "c3") / "f").read_text() == "kept"
    driver.unmount("data", "c3")
    driver.remove("data")
    driver.remove("data")
    assert driver.list() == []
    driver.create("data", {})
    path = driver.mount("data", "c1")
    assert os.listdir(path) == []
    driver.unmount("data", "c1")


def test_what_is_not_there(driver: Driver) -> None:
    with pytest.raises(NotFound):
        driver.get("nope")
    if driver.name == "local":
        for bad in ("../x", ".", "a"):
            with pytest.raises(InvalidArgument):
                driver.create(bad, {})
            with pytest.raises(NotFound):
                driver.get(bad)
