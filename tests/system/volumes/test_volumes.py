"""Volumes on a real file system: docker's words and rules, mounted volumes, copy-up, and paths that try to get out."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from wherry.errors import Conflict, FailedPrecondition, InvalidArgument, NotFound, WherryError
from wherry.state import MemoryStore
from wherry.volumes import Volumes

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def volumes(tmp_path: Path, store: MemoryStore) -> Iterator[Volumes]:
    made = Volumes(tmp_path / "volumes", store)
    yield made
    for volume in made.list():
        made.remove(volume.name)
    made.close()


def test_a_named_volume_is_made_once(volumes: Volumes, tmp_path: Path) -> None:
    made = volumes.create("data", labels={"a": "b"})
    assert volumes.create("data", labels={"a": "other"}) == made
    assert made.to_json() == {
        "CreatedAt": made.created,
        "Driver": "local",
        "Labels": {"a": "b"},
        "Mountpoint": f"{tmp_path}/volumes/data/_data",
        "Name": "data",
        "Options": None,
        "Scope": "local",
    }
    assert volumes.path("data").is_dir()
    assert volumes.get("data") is made


def test_what_is_made_and_destroyed_is_told(volumes: Volumes) -> None:
    told: list[tuple[str, str, Mapping[str, str]]] = []
    volumes.tell = lambda *news: told.append(news)
    volumes.create("one")
    volumes.create("one")
    volumes.clone("one", "two")
    volumes.rename("two", "three", lambda name: ())
    volumes.remove("absent", True)
    volumes.remove("one")
    volumes.prune({"all": ["true"]})
    local = {"driver": "local"}
    assert told == [
        *(("create", "one", local), ("create", "two", local), ("rename", "three", {**local, "oldName": "two"})),
        *(("destroy", "one", local), ("destroy", "three", local)),
    ]


def test_an_anonymous_volume_is_labelled(volumes: Volumes) -> None:
    made = volumes.create()
    assert len(made.name) == 64
    assert made.labels == {"com.docker.volume.anonymous": ""}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "a"}, "create a: volume name is too short, names should be at least two alphanumeric characters"),
        ({"name": "a/b"}, 'create a/b: "a/b" includes invalid characters for a local volume name'),
        ({"name": ".."}, "includes invalid characters"),
        ({"name": "-ab"}, "includes invalid characters"),
        ({"name": "ab\n"}, "includes invalid characters"),
        ({"name": "ok", "options": {"foo": "x"}}, 'create ok: invalid option: "foo"'),
        ({"name": "ok", "options": {"type": "tmpfs"}}, 'create ok: missing required option: "device"'),
        ({"name": "ok", "options": {"device": "x"}}, 'create ok: missing required option: "type"'),
        ({"name": "ok", "options": {"o": "ro"}}, 'create ok: missing required option: "device"'),
        ({"name": "ok", "options": {"size": "1m"}}, "create ok: quota size requested but no quota support"),
    ],
)
def test_what_cannot_be_made_is_refused_in_dockers_words(
    volumes: Volumes, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message.replace("(", r"\(")):
        volumes.create(**arguments)  # type: ignore[arg-type]
    assert volumes.list() == []


def test_absent_and_used_volumes(volumes: Volumes) -> None:
    with pytest.raises(NotFound, match="get nope: no such volume"):
        volumes.get("nope")
    with pytest.raises(NotFound, match="get nope: no such volume"):
        volumes.remove("nope")
    volumes.remove("nope", force=True)
    with pytest.raises(NotFound, match='error looking up volume plugin nope: plugin "nope" not found'):
        volumes.create("data", driver="nope")
    volumes.create("data")
    with pytest.raises(Conflict, match=r"remove data: volume is in use - \[c1, c2\]"):
        volumes.remove("data", True, users=lambda name: ["c2", "c1"])
    volumes.acquire("data", "c3")
    with pytest.raises(Conflict, match="c3"):
        volumes.remove("data")
    volumes.release("data", "c3")
    (volumes.path("data") / "f").write_text("x")
    path = volumes.path("data")
    volumes.remove("data")
    assert not path.parent.exists()


def test_filters(volumes: Volumes) -> None:
    volumes.create("web-data", labels={"tier": "web"})
    volumes.create("db-data", labels={"tier": "db", "keep": ""})
    anonymous = volumes.create().name

    def used(name: str) -> list[str]:
        return ["c1"] if name == "db-data" else []

    def names(**filters: list[str]) -> list[str]:
        return [volume.name for volume in volumes.list(filters, used)]

    assert names(name=["data"]) == ["db-data", "web-data"]
    assert names(name=["^web"]) == ["web-data"]
    assert names(label=["tier"]) == ["db-data", "web-data"]
    assert names(label=["tier=db", "keep"]) == ["db-data"]
    assert names(dangling=["false"]) == ["db-data"]
    assert names(dangling=["1"], driver=["local"], name=["web"]) == ["web-data"]
    assert names(driver=["other"]) == []
    for bad in ({"foo": ["x"]}, {"dangling": ["x"]}):
        with pytest.raises(InvalidArgument, match="invalid filter"):
            volumes.list(bad)
    assert volumes.prune({"label": ["tier"]}, used).names == []
    (volumes.path(anonymous) / "f").write_bytes(b"12345")
    pruned = volumes.prune({}, used)
    assert (pruned.names, pruned.reclaimed) == ([anonymous], 5)
    assert volumes.prune({"all": ["true"]}, used).names == ["web-data"]


def test_a_volume_with_options_is_mounted_from_first_use_to_last(
    volumes: Volumes, store: MemoryStore, tmp_path: Path
) -> None:
    volumes.create("ram", options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=1000,nosuid,ro,rw"})
    path = volumes.path("ram")
    assert not os.path.ismount(path)
    for user in ("c1", "c2", "c2"):
        assert volumes.acquire("ram", user) == path
    assert path.stat().st_uid == 1000
    assert os.statvfs(path).f_flag & os.ST_NOSUID
    (path / "shared").write_text("x")
    volumes.release("ram", "c1")
    assert (path / "shared").exists()
    # The daemon starts anew: what live containers use stays, the rest goes.
    again = Volumes(tmp_path / "volumes", store)
    again.acquire("ram", "c2")
    again.release_unused()
    assert (path / "shared").exists()
    again.release("ram", "c2")
    assert not os.path.ismount(path)
    again.close()
    volumes.release("ram", "c2")
    volumes.create("bad", options={"type": "none", "device": "/nope", "o": "bind"})
    with pytest.raises(FailedPrecondition, match=r"error while mounting volume '.*/bad/_data': failed to mount"):
        volumes.acquire("bad", "c1")


def test_restart_brings_records_and_directories_together(volumes: Volumes, store: MemoryStore, tmp_path: Path) -> None:
    volumes.create("kept", labels={"a": "b"})
    volumes.create("lost")
    os.rename(tmp_path / "volumes" / "lost", tmp_path / "elsewhere")
    (tmp_path / "volumes" / "found" / "_data").mkdir(parents=True)
    (tmp_path / "volumes" / ".trash" / "x").mkdir(parents=True)
    again = Volumes(tmp_path / "volumes", store)
    assert [volume.name for volume in again.list()] == ["found", "kept"]
    assert again.get("kept").labels == {"a": "b"}
    assert not (tmp_path / "volumes" / ".trash").exists()
    again.close()
    volumes.create("lost")


@pytest.fixture
def image(tmp_path: Path) -> Iterator[int]:
    root = tmp_path / "image"
    (root / "srv" / "sub").mkdir(parents=True)
    (root / "srv" / "f").write_text("from the image")
    os.chown(root / "srv", 33, 44)
    (root / "srv").chmod(0o2770)
    (root / "link").symlink_to("/srv")
    (root / "out").symlink_to(tmp_path)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("path", ["/srv", "/link", "srv/sub/.."])
@pytest.mark.parametrize("in_use", [True, False])
def test_an_empty_volume_is_filled_once(volumes: Volumes, image: int, path: str, in_use: bool) -> None:
    volumes.create("data")
    if in_use:
        volumes.acquire("data", "c1")
    volumes.populate("data", image, path)
    data = volumes.path("data")
    assert (data / "f").read_text() == "from the image"
    status = data.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o2770, 33, 44)
    (data / "f").write_text("changed")
    volumes.populate("data", image, path)
    assert (data / "f").read_text() == "changed"
    assert os.listdir(data.parent) == ["_data"]
    volumes.release("data", "c1")


@pytest.mark.parametrize("path", ["/out", "/nope", "/srv/f", "/../../outside"])
def test_nothing_but_the_image_is_copied(volumes: Volumes, image: int, path: str) -> None:
    volumes.create("data")
    volumes.populate("data", image, path)
    assert os.listdir(volumes.path("data")) == []


def test_subpaths_stay_inside_the_volume(volumes: Volumes) -> None:
    """Like CVE-2021-30465: what a container puts into a volume must not lead a mount of a part of it elsewhere."""
    volumes.create("data")
    data = volumes.path("data")
    (data / "in" / "side").mkdir(parents=True)
    (data / "ok").symlink_to("in/side")
    (data / "abs").symlink_to("/etc")
    (data / "up").symlink_to("../../..")
    (data / "proc").symlink_to("/proc/self/root")
    for path in ("in/side", "ok", ""):
        fd = volumes.open_subpath("data", path)
        assert os.path.realpath(f"/proc/self/fd/{fd}").startswith(str(data))
        os.close(fd)
    for path in ("abs", "up", "up/etc", "proc/etc", "../x", "/etc", "in/../../x", "nope"):
        with pytest.raises(WherryError):
            volumes.open_subpath("data", path)
