"""The contract of wherry.snapshots.Snapshotter, run on every implementation, against a model of trees."""

import hashlib
import io
import os
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon import wait_until
from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.kernel.paths import open_in_root
from wherry.snapshots import Change, ChangeKind, NativeSnapshotter, OverlaySnapshotter, Snapshotter
from wherry.spec.digest import ChainID, DiffID, chain_ids

pytestmark = pytest.mark.root
Make = Callable[[Path], Snapshotter]
# What a layer does: (path, contents) a file, (path, None) a directory; "-path" deletes, "!path" makes opaque.
Layer = list[tuple[str, bytes | None]]
Tree = dict[str, bytes | None]


@pytest.fixture(params=["overlay", "native"])
def make(request: pytest.FixtureRequest) -> Make:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    return OverlaySnapshotter if request.param == "overlay" else NativeSnapshotter


@pytest.fixture
def snapshotter(make: Make, tmp_path: Path) -> Iterator[Snapshotter]:
    made = make(tmp_path / "snapshots")
    yield made
    made.close()


def tar(layer: Layer, *, root_mode: int | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        if root_mode is not None:
            info = tarfile.TarInfo("./")
            info.type, info.mode = tarfile.DIRTYPE, root_mode
            archive.addfile(info)
        for name, data in layer:
            if name[0] in "-!":
                directory, _, base = name[1:].rpartition("/")
                mark = f"{name[1:]}/.wh..wh..opq" if name[0] == "!" else f"{directory}/.wh.{base}"
                archive.addfile(tarfile.TarInfo(mark.lstrip("/")))
                continue
            info = tarfile.TarInfo(name)
            info.type, info.mode = (tarfile.DIRTYPE, 0o755) if data is None else (tarfile.REGTYPE, 0o644)
            info.size = len(data or b"")
            archive.addfile(info, io.BytesIO(data or b""))
    return buffer.getvalue()


def diff_id(data: bytes) -> DiffID:
    return DiffID("sha256:" + hashlib.sha256(data).hexdigest())


def apply(snapshotter: Snapshotter, *layers: Layer) -> ChainID:
    chain = None
    for layer in layers:
        data = tar(layer)
        chain = snapshotter.apply(chain, diff_id(data), io.BytesIO(data))
    assert chain is not None
    return chain


def tree(root: int) -> Tree:
    found: Tree = {}
    for directory, names, files, fd in os.fwalk(".", dir_fd=root):
        for name in names:
            found[os.path.normpath(f"{directory}/{name}")] = None
        for name in files:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd)
            with open(descriptor, "rb") as file:
                found[os.path.normpath(f"{directory}/{name}")] = file.read()
    return found


def seen(snapshotter: Snapshotter, chain: ChainID | None, key: str = "seen") -> Tree:
    snapshotter.prepare(key, chain)
    root = snapshotter.open_root(key)
    try:
        return tree(root)
    finally:
        os.close(root)
        snapshotter.remove(key)


def test_layers_stack_and_writables_stand_on_them(snapshotter: Snapshotter) -> None:
    chain = apply(snapshotter, [("etc/a", b"1"), ("etc/b", b"2")], [("etc/a", b"3"), ("-etc/b", b"")])
    assert snapshotter.has(chain)
    assert snapshotter.layer_size(chain) == 1
    snapshotter.prepare("one", chain)
    snapshotter.prepare("one", chain)
    root = snapshotter.open_root("one", writable=True)
    assert tree(root) == {"etc": None, "etc/a": b"3"}
    with open(os.open("etc/new", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=root), "wb") as file:
        file.write(b"12345")
    os.unlink("etc/a", dir_fd=root)
    os.close(root)
    assert snapshotter.keys() == ["one"]
    assert snapshotter.usage("one") == 5
    assert snapshotter.changes("one") == [
        Change(ChangeKind.MODIFIED, "/etc"),
        Change(ChangeKind.DELETED, "/etc/a"),
        Change(ChangeKind.ADDED, "/etc/new"),
    ]
    assert seen(snapshotter, chain) == {"etc": None, "etc/a": b"3"}
    snapshotter.remove("one")
    snapshotter.remove("one")
    assert snapshotter.keys() == []


def test_a_writable_may_stand_on_nothing(snapshotter: Snapshotter) -> None:
    assert seen(snapshotter, None) == {}
    snapshotter.prepare("bare", None)
    root = snapshotter.open_root("bare", writable=True)
    os.mkdir("x", dir_fd=root)
    os.close(root)
    assert snapshotter.changes("bare") == [Change(ChangeKind.ADDED, "/x")]


def test_what_changed_is_a_layer_and_the_same_every_time(snapshotter: Snapshotter) -> None:
    base = apply(snapshotter, [("etc/a", b"1"), ("etc/b", b"2"), ("old/x", b"3"), ("old/y", b"4"), ("kept", b"5")])
    snapshotter.prepare("source", base)
    root = snapshotter.open_root("source", writable=True)
    write(root, "etc/a", b"changed")
    write(root, "made", b"")
    write(root, "new", b"6")
    os.link("new", "etc/hard", src_dir_fd=root, dst_dir_fd=root)
    os.unlink("etc/b", dir_fd=root)
    # A directory made anew shows nothing of the one that was there; a file takes the place of one.
    for name in ("old/x", "old/y"):
        os.unlink(name, dir_fd=root)
    os.rmdir("old", dir_fd=root)
    os.mkdir("old", dir_fd=root)
    write(root, "old/z", b"7")
    os.unlink("kept", dir_fd=root)
    os.mkdir("kept", dir_fd=root)
    os.close(root)

    def written(**options: Any) -> bytes:
        out = io.BytesIO()
        snapshotter.diff("source", out, **options)
        return out.getvalue()

    data = written(leave_out=["/made"])
    assert data == written(leave_out=["/made"])
    with tarfile.open(fileobj=io.BytesIO(written(newest=7 * 10**9))) as archive:
        members = archive.getmembers()
        assert {member.mtime for member in members} <= {0, 7}
    names = [member.name for member in members]
    assert "made" in names
    assert ("kept" in names, "etc/c" in names) == (True, False)
    assert seen(snapshotter, snapshotter.apply(base, diff_id(data), io.BytesIO(data))) == {
        "etc": None,
        "etc/a": b"changed",
        "etc/hard": b"6",
        "kept": None,
        "new": b"6",
        "old": None,
        "old/z": b"7",
    }


@pytest.mark.parametrize("writable", [False, True])
def test_links_are_followed_inside_the_tree(snapshotter: Snapshotter, writable: bool) -> None:
    snapshotter.prepare("links", apply(snapshotter, [("usr/lib/os-release", b"1"), ("etc/x", b"")]))
    root = snapshotter.open_root("links", writable=True)
    os.symlink("../usr/lib/os-release", "etc/os-release", dir_fd=root)
    os.symlink("/../../etc", "away", dir_fd=root)
    os.close(root)
    root = snapshotter.open_root("links", writable=writable)
    found = open_in_root(root, "away/os-release", os.O_RDONLY)
    os.close(root)
    assert os.read(found, 9) == b"1"
    os.close(found)


def write(root: int, name: str, data: bytes) -> None:
    with open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=root), "wb") as file:
        file.write(data)


def test_what_is_in_use_stays(snapshotter: Snapshotter) -> None:
    chain = apply(snapshotter, [("a", b"")], [("b", b"")])
    below = diff_id(tar([("a", b"")]))
    snapshotter.prepare("user", chain)
    for layer in (chain, ChainID(below)):
        with pytest.raises(Conflict, match="in use"):
            snapshotter.remove_layer(layer)
    with pytest.raises(Conflict):
        snapshotter.prepare("user", ChainID(below))
    snapshotter.remove("user")
    snapshotter.remove_layer(chain)
    snapshotter.remove_layer(ChainID(below))
    assert snapshotter.layers() == []


def test_what_is_absent_is_said_so(snapshotter: Snapshotter) -> None:
    absent = ChainID("sha256:" + "0" * 64)
    assert not snapshotter.has(absent)
    for call in (
        lambda: snapshotter.layer_size(absent),
        lambda: snapshotter.remove_layer(absent),
        lambda: snapshotter.prepare("x", absent),
        lambda: snapshotter.apply(absent, DiffID(absent), io.BytesIO()),
        lambda: snapshotter.mounts("x"),
        lambda: snapshotter.open_root("x"),
        lambda: snapshotter.changes("x"),
    ):
        with pytest.raises(NotFound):
            call()
    for key in ("", "../x", "a/b", "a@b", ".x"):
        with pytest.raises(InvalidArgument):
            snapshotter.prepare(key, None)


@pytest.mark.parametrize("spoil", ["digest", "cut", "escape", "raise"])
def test_a_bad_layer_leaves_nothing(snapshotter: Snapshotter, spoil: str, tmp_path: Path) -> None:
    data = tar([("a", b"x" * 5000), ("b", b"y")])
    wanted = diff_id(data)
    stream: io.BytesIO = io.BytesIO(data)
    if spoil == "digest":
        stream = io.BytesIO(data + bytes(512))
    elif spoil == "cut":
        stream = io.BytesIO(data[:3000])
    elif spoil == "escape":
        data = tar([("a", b"1"), ("../../../../escaped", b"2")])
        wanted, stream = diff_id(data), io.BytesIO(data)
    else:
        stream = Broken(data)
    with pytest.raises(OSError if spoil == "raise" else InvalidArgument):
        snapshotter.apply(None, wanted, stream)
    assert snapshotter.layers() == []
    snapshotter.close()
    assert os.listdir(tmp_path / "snapshots" / "incoming") == []
    assert os.listdir(tmp_path / "snapshots" / "layers") == []
    assert not list(tmp_path.rglob("escaped"))


class Broken(io.BytesIO):
    """Gives half of it, then fails."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise OSError("connection reset")
        return super().read(1000)


def test_apply_is_idempotent_and_may_race(snapshotter: Snapshotter) -> None:
    data = tar([(f"d{n}/f", b"x" * 100) for n in range(50)])
    made: list[ChainID] = []
    threads = [
        Thread(target=lambda: made.append(snapshotter.apply(None, diff_id(data), io.BytesIO(data)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [ChainID(diff_id(data))] * 4
    assert len(snapshotter.layers()) == 1
    # Present already: nothing is read.
    assert snapshotter.apply(None, diff_id(data), io.BytesIO(b"garbage")) == made[0]


def test_root_directory_and_implied_ones_keep_their_looks(snapshotter: Snapshotter) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, mode, owner in (("./", 0o711, 7), ("tmp/", 0o1777, 8), ("home/me/", 0o700, 1000)):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid, info.mtime = tarfile.DIRTYPE, mode, owner, owner, 1_000_000
            archive.addfile(info)
    base = snapshotter.apply(None, diff_id(buffer.getvalue()), io.BytesIO(buffer.getvalue()))
    above = tar([("tmp/x", b""), ("home/me/y", b"")])
    chain = snapshotter.apply(base, diff_id(above), io.BytesIO(above))
    snapshotter.prepare("looks", chain)
    root = snapshotter.open_root("looks")
    try:
        for path, mode, owner in ((".", 0o711, 7), ("tmp", 0o1777, 8), ("home/me", 0o700, 1000), ("home", 0o755, 0)):
            status = os.stat(path, dir_fd=root)
            assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, owner, owner), path
    finally:
        os.close(root)


def test_survives_restart_and_undoes_what_was_half_done(make: Make, tmp_path: Path) -> None:
    root = tmp_path / "snapshots"
    first = make(root)
    chain = apply(first, [("a", b"1")], [("b", b"2")])
    lost = apply(first, [("c", b"3")])
    stale = apply(first, [("d", b"4")], [("e", b"5")])
    first.prepare("kept", chain)
    first.prepare("orphan", lost)
    first.prepare("short", chain, ephemeral=True)
    first.close()
    by_chain = {c: d.parent for d in root.glob("layers/*/layer.json") for c in (lost, stale) if c in d.read_text()}
    (by_chain[lost] / "layer.json").unlink()
    base = root / "layers" / str(int(by_chain[stale].name, 36) - 1)
    (base / "unflushed").write_text("another boot")
    (root / "incoming" / "1z").mkdir()
    (root / "trash" / "x").mkdir()
    for work in root.glob("writable/short*/work"):
        work.rmdir()
    second = make(root)
    try:
        assert set(second.layers()) == set(chain_ids([diff_id(tar([("a", b"1")])), diff_id(tar([("b", b"2")]))]))
        assert sorted(second.keys()) == ["kept", "short"]
        for key in ("kept", "short"):
            opened = second.open_root(key, writable=True)
            assert tree(opened) == {"a": b"1", "b": b"2"}
            os.close(opened)
        second.close()
        assert os.listdir(root / "trash") == os.listdir(root / "incoming") == []
    finally:
        with suppress(Exception):
            second.close()


def test_deep_trees_of_a_container_can_be_told_and_removed(snapshotter: Snapshotter, tmp_path: Path) -> None:
    snapshotter.prepare("deep", None)
    root = snapshotter.open_root("deep", writable=True)
    for _ in range(1500):
        os.mkdir("d", dir_fd=root)
        deeper = os.open("d", os.O_RDONLY, dir_fd=root)
        os.close(root)
        root = deeper
    os.close(root)
    assert len(snapshotter.changes("deep")) == 1500
    snapshotter.remove("deep")
    snapshotter.close()
    # The sweeper goes on by itself when it takes long.
    wait_until(lambda: not os.listdir(tmp_path / "snapshots" / "trash"), 60, "the tree is gone")


NAMES = ["a", "b", "a/x", "a/y", "b/x", "a/x/1", "a/x/2"]


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    """Entries that agree with each other: what is a file in this layer has nothing below it, and what is deleted
    whole is not deleted piece by piece as well (whether its directory is then there, the specification leaves open)."""
    layer: Layer = []
    files: set[str] = set()
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=5, unique=True)):
        kind = draw(st.sampled_from("fd-!"))
        if any(name.startswith(f + "/") for f in files):
            continue
        if kind in "-!":
            if kind == "!" and name in files:
                continue
            layer.append((kind + name, b""))
        elif kind == "d" or any(other.lstrip("-!").startswith((name + "/", name)) for other, _ in layer):
            layer.append((name, None))
        else:
            files.add(name)
            layer.append((name, draw(st.binary(min_size=1, max_size=3))))
    whole = tuple(f"{name[1:]}/" for name, _ in layer if name[0] in "-!")
    return [entry for entry in layer if not (entry[0][0] in "-!" and entry[0][1:].startswith(whole))]


def model(below: Tree, layer: Layer) -> Tree:
    """What OCI's layer.md says: deletions speak of the layers below, entries replace."""
    result = dict(below)
    for name, _ in layer:
        if name[0] in "-!":
            target = name[1:]
            for path in [p for p in result if p.startswith(target + "/") or (name[0] == "-" and p == target)]:
                del result[path]
    for name, data in layer:
        if name[0] == "-":
            continue
        path = name.lstrip("-!")
        parents = [path[:at] for at, letter in enumerate(path) if letter == "/"] + ([path] if name[0] == "!" else [])
        for parent in parents:
            result[parent] = None
        if name[0] not in "-!":
            if data is not None:
                for inner in [p for p in result if p.startswith(name + "/")]:
                    del result[inner]
            result[name] = data
    return result


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(stack=st.lists(layers(), min_size=1, max_size=4))
def test_any_stack_of_layers_shows_what_the_model_says(snapshotter: Snapshotter, stack: list[Layer]) -> None:
    expected: Tree = {}
    for layer in stack:
        expected = model(expected, layer)
    chain = apply(snapshotter, *stack)
    assert seen(snapshotter, chain) == expected


CHANGES = st.lists(st.tuples(st.sampled_from("fdrt"), st.sampled_from(NAMES)), max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(layer=layers(), steps=CHANGES)
def test_changes_are_the_difference_of_the_trees(
    snapshotter: Snapshotter, layer: Layer, steps: list[tuple[str, str]]
) -> None:
    chain = apply(snapshotter, layer)
    snapshotter.remove("changing")
    snapshotter.prepare("changing", chain)
    root = snapshotter.open_root("changing", writable=True)
    before = tree(root)
    for number, (step, path) in enumerate(steps):
        with suppress(OSError):
            if step == "r":
                if stat.S_ISDIR(os.stat(path, dir_fd=root).st_mode):
                    shutil.rmtree(path, dir_fd=root)
                else:
                    os.unlink(path, dir_fd=root)
            elif step == "d":
                os.mkdir(path, dir_fd=root)
            elif step == "f":
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
                with open(os.open(path, flags, 0o644, dir_fd=root), "wb") as file:
                    file.write(b"changed %d" % number)
            else:
                os.chmod(path, 0o755 if path in before and before[path] is None else 0o644, dir_fd=root)
    after = tree(root)
    os.close(root)
    found = {change.path[1:]: change.kind for change in snapshotter.changes("changing")}
    touched = {path for path in before.keys() | after.keys() if before.get(path, 0) != after.get(path, 0)}
    top_deleted = {p for p in before.keys() - after.keys() if os.path.dirname(p) in after or "/" not in p}
    top_deleted = {p for p in top_deleted if after.get(os.path.dirname(p)) is None}
    expected = dict.fromkeys(after.keys() - before.keys(), ChangeKind.ADDED)
    expected |= dict.fromkeys(top_deleted, ChangeKind.DELETED)
    expected |= dict.fromkeys(touched & before.keys() & after.keys(), ChangeKind.MODIFIED)
    for path in list(expected):
        while path := os.path.dirname(path):
            expected.setdefault(path, ChangeKind.MODIFIED)
    assert found == expected
