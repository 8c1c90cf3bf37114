"""`system fsck`: what is broken behind the daemon's back is found, told and mended; what is whole is left alone."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wreck import IMAGE, Wreck

from wherry.kernel.nftables import Nftables

pytestmark = pytest.mark.root
ID = secrets.token_hex(32)


def fsck(wreck: Wreck, *, mend: bool = True, deep: bool = False) -> list[tuple[str, str, bool]]:
    answer = wreck.api.post(f"/wherry/system/fsck?mend={int(mend)}&deep={int(deep)}")
    assert answer.status == 200, answer.body
    found = answer.json["Findings"]
    assert answer.json["Left"] == sum(not finding["Mended"] for finding in found)
    return [(finding["Area"], finding["Object"], finding["Mended"]) for finding in found]


def write(wreck: Wreck, key: str, value: Any) -> None:
    with sqlite3.connect(wreck.daemon.data_root / "state.db", timeout=10) as db:
        db.execute("INSERT OR REPLACE INTO items VALUES (?, ?)", (key, json.dumps(value).encode()))


def test_there_is_nothing_to_find_while_containers_come_and_go(wreck: Wreck) -> None:
    lasting = wreck.run("sleep", "100", host={"IpcMode": "shareable", "Binds": ["fsck-used:/data"]})
    wreck.run("true")
    wreck.run("sleep", "100", host={"Mounts": [{"Type": "image", "Source": IMAGE, "Target": "/image"}]})
    attached = wreck.api.post("/containers/create", {"Image": IMAGE, "Cmd": ["true"]}).json["Id"]
    assert fsck(wreck, deep=True) == []
    assert wreck.api.get(f"/containers/{lasting}/json").json["State"]["Running"]
    assert wreck.api.post(f"/containers/{attached}/start").status == 204


@pytest.fixture
def damage(wreck: Wreck) -> Iterator[list[tuple[str, str]]]:
    """Leftovers of every kind that can be made behind the daemon's back, as fsck should name them."""
    data, run = wreck.daemon.data_root, wreck.daemon.exec_root
    directories = [data / "containers" / ID, run / "bundles" / ID, data / "volumes" / "fsck-found" / "_data"]
    for directory in directories:
        directory.mkdir(parents=True)
    groups = [path / wreck.daemon.cgroup / ID for path in _hierarchies(wreck)]
    for group in groups:
        group.mkdir()
    blob = data / "content" / "blobs" / "sha256" / hashlib.sha256(b"stray").hexdigest()
    blob.write_bytes(b"stray")
    shm = run / "shm" / ID
    shm.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "shm", shm], check=True)
    write(wreck, f"containers/{ID}", {"Id": ID})
    write(wreck, f"states/{ID}", {})
    yield [
        ("containers", f"containers/{ID}"),
        ("containers", f"states/{ID}"),
        ("volumes", "fsck-found"),
        ("content", f"sha256:{blob.name}"),
        ("containers", ID),
        ("bundles", ID),
        ("mounts", f"shm/{ID}"),
        ("cgroups", ID),
    ]
    subprocess.run(["umount", "-q", shm], check=False)
    for group in groups:
        if group.exists():
            group.rmdir()
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


def _hierarchies(wreck: Wreck) -> list[Path]:
    """Where the daemon's cgroups are."""
    root = Path("/sys/fs/cgroup")
    found = [path for path in (root, *root.iterdir()) if (path / wreck.daemon.cgroup).is_dir()]
    assert found
    return found


def test_leftovers_are_told_first_and_removed_when_asked_to(wreck: Wreck, damage: list[tuple[str, str]]) -> None:
    expected = sorted(damage)
    assert sorted(fsck(wreck, mend=False)) == [(area, object, False) for area, object in expected]
    assert sorted(fsck(wreck)) == [(area, object, True) for area, object in expected]
    assert fsck(wreck) == []
    assert wreck.api.get("/volumes/fsck-found").status == 200
    assert wreck.api.delete("/volumes/fsck-found").status == 204


def test_damaged_content_is_found_by_reading_it(wreck: Wreck) -> None:
    config = wreck.api.get(f"/images/{IMAGE}/json").json["Id"]
    blobs = wreck.daemon.data_root / "content" / "blobs" / "sha256"
    layer = max(blobs.iterdir(), key=lambda path: path.stat().st_size)
    assert layer.name != config.removeprefix("sha256:")
    whole = layer.read_bytes()
    layer.chmod(0o600)
    layer.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        assert fsck(wreck) == []
        assert fsck(wreck, mend=False, deep=True) == [("content", f"sha256:{layer.name}", False)]
        assert fsck(wreck, deep=True) == [
            ("content", f"sha256:{layer.name}", True),
            ("images", IMAGE, False),
        ]
        assert not layer.exists()
    finally:
        wreck.load_image(IMAGE)
    assert fsck(wreck, deep=True) == []


def test_a_published_port_that_somebody_took_out_comes_back(wreck: Wreck) -> None:
    ports = {"PortBindings": {"80/tcp": [{"HostPort": ""}]}}
    id = wreck.run("sleep", "100", host=ports, ExposedPorts={"80/tcp": {}})
    bound = wreck.api.get(f"/containers/{id}/json").json["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    command = f"flush map inet {wreck.daemon.table} ports4"
    with contextlib.closing(Nftables()) as nftables:
        nftables.run(command)
    assert wreck.published() == 0
    [(area, object, mended)] = fsck(wreck)
    assert (area, object.startswith(f"tcp . {bound} : "), mended) == ("networks", True, True)
    assert wreck.published() == 1
    assert fsck(wreck) == []


def test_the_command_says_what_it_did_and_fails_while_something_is_left(wreck: Wreck) -> None:
    stray = wreck.daemon.data_root / "containers" / ID
    stray.mkdir()
    command = [sys.executable, "-m", "wherry.cli.main", "-H", wreck.daemon.host, "system", "fsck"]
    told = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, env={**os.environ}, check=False)
    assert (told.returncode, "would: remove it" in told.stdout) == (1, True), told
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "mended: remove it" in done.stdout) == (0, True), done
    assert not stray.exists()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (0, "State, disk and kernel agree.\n")
