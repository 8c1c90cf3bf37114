"""Beyond docker: volumes renamed, cloned, exported and imported; whole, or not at all, whenever the daemon dies."""

import io
import os
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from wherry.errors import Conflict, InvalidArgument, NotFound, WherryError
from wherry.state import Change, MemoryStore
from wherry.volumes import Volumes

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


class Killed(BaseException):
    """The daemon died here."""


class Fragile(MemoryStore):
    """Dies before, or right after, its N-th write."""

    left = -1
    after = False

    def write(self, *changes: Change) -> None:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Killed
        super().write(*changes)
        if self.left == 0:
            raise Killed


def nobody(name: str) -> list[str]:
    return []


def made(root: Path, store: MemoryStore) -> Volumes:
    volumes = Volumes(root, store)
    volumes.create("old", labels={"a": "b"})
    (volumes.path("old") / "f").write_text("x")
    os.chown(volumes.path("old") / "f", 33, 44)
    return volumes


def content(volumes: Volumes) -> dict[str, list[str]]:
    return {volume.name: os.listdir(volume.mountpoint) for volume in volumes.list()}


def test_rename(tmp_path: Path) -> None:
    volumes = made(tmp_path / "v", MemoryStore())
    volumes.create("other")
    volumes.acquire("old", "c1")
    with pytest.raises(Conflict, match=r"rename old: volume is in use - \[c1\]"):
        volumes.rename("old", "new", nobody)
    volumes.release("old", "c1")
    with pytest.raises(Conflict, match=r"in use - \[c2\]"):
        volumes.rename("old", "new", lambda name: ["c2"])
    with pytest.raises(Conflict, match="a volume named other exists already"):
        volumes.rename("old", "other", nobody)
    with pytest.raises(InvalidArgument):
        volumes.rename("old", "../x", nobody)
    with pytest.raises(NotFound):
        volumes.rename("nope", "new", nobody)
    renamed = volumes.rename("old", "new", nobody)
    assert (renamed.name, renamed.labels) == ("new", {"a": "b"})
    assert content(volumes) == {"new": ["f"], "other": []}
    volumes.close()


def test_clone_export_and_import(tmp_path: Path) -> None:
    volumes = made(tmp_path / "v", MemoryStore())
    assert volumes.clone("old", "copy").labels == {"a": "b"}
    (volumes.path("copy") / "f").write_text("changed")
    assert (volumes.path("old") / "f").read_text() == "x"
    stream = io.BytesIO()
    volumes.export("old", stream)
    stream.seek(0)
    volumes.import_("back", stream)
    status = (volumes.path("back") / "f").stat()
    assert (status.st_uid, status.st_gid) == (33, 44)
    for act in (lambda: volumes.clone("old", "copy"), lambda: volumes.import_("copy", io.BytesIO())):
        with pytest.raises(Conflict, match="a volume named copy exists already"):
            act()
    volumes.close()


def test_an_archive_that_tries_to_get_out(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    for member, link in (("../outside/f", ""), ("way/f", str(tmp_path / "outside"))):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            if link:
                entry = tarfile.TarInfo("way")
                entry.type, entry.linkname = tarfile.SYMTYPE, link
                tar.addfile(entry)
            entry = tarfile.TarInfo(member)
            entry.size = 1
            tar.addfile(entry, io.BytesIO(b"x"))
        stream.seek(0)
        volumes = Volumes(tmp_path / "v", MemoryStore())
        with suppress(WherryError, OSError):
            volumes.import_(f"bad{len(link)}", stream)
        volumes.close()
    assert os.listdir(tmp_path / "outside") == []


def test_a_broken_archive_leaves_nothing(tmp_path: Path) -> None:
    volumes = Volumes(tmp_path / "v", MemoryStore())
    with pytest.raises(WherryError):
        volumes.import_("bad", io.BytesIO(b"no tar" * 200))
    assert content(volumes) == {}
    assert os.listdir(tmp_path / "v/.trash") == []
    volumes.close()


_ACTS: list[tuple[Callable[[Volumes], Any], dict[str, list[str]]]] = [
    (lambda volumes: volumes.rename("old", "new", nobody), {"new": ["f"]}),
    (lambda volumes: volumes.clone("old", "new"), {"old": ["f"], "new": ["f"]}),
    (lambda volumes: volumes.remove("old"), {}),
]


@pytest.mark.parametrize("act", range(len(_ACTS)))
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [1, 2])
def test_a_crash_leaves_all_or_nothing(tmp_path: Path, act: int, at: int, after: bool) -> None:
    store = Fragile()
    volumes = made(tmp_path / "v", store)
    store.left, store.after = at, after
    run, done = _ACTS[act]
    with suppress(Killed):
        run(volumes)
    store.left = -1
    volumes.close()
    again = Volumes(tmp_path / "v", store)
    assert content(again) in ({"old": ["f"]}, done)
    assert {key for key, _ in store.scan("volumes/")} == {f"volumes/{volume.name}" for volume in again.list()}
    assert not (tmp_path / "v/.trash").exists()
    again.close()
