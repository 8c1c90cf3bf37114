"""What only the overlay snapshotter promises: many layers, nothing on the host's mount table, durability."""

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from wherry.errors import InvalidArgument
from wherry.kernel import mounts
from wherry.snapshots import OverlaySnapshotter
from wherry.spec.digest import ChainID, DiffID

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[OverlaySnapshotter]:
    made = OverlaySnapshotter(tmp_path / "snapshots")
    yield made
    made.close()


def add(overlay: OverlaySnapshotter, parent: ChainID | None, *names: str) -> ChainID:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    data = buffer.getvalue()
    return overlay.apply(parent, DiffID("sha256:" + hashlib.sha256(data).hexdigest()), io.BytesIO(data))


def test_five_hundred_layers_and_no_trace_on_the_mount_table(overlay: OverlaySnapshotter) -> None:
    chain = None
    for number in range(500):
        chain = add(overlay, chain, f"f{number}")
    before = Path("/proc/self/mountinfo").read_text().count(" overlay ")
    overlay.prepare("many", chain)
    (mount,) = overlay.mounts("many")
    assert len(mount.lowerdirs) == 500
    for writable in (False, True):
        root = overlay.open_root("many", writable=writable)
        assert len(os.listdir(f"/proc/self/fd/{root}")) == 500
        assert Path("/proc/self/mountinfo").read_text().count(" overlay ") == before
        os.close(root)
    assert overlay.changes("many") == []
    with pytest.raises(InvalidArgument, match="more than 500 layers"):
        add(overlay, chain, "f500")


def test_a_view_is_read_only_and_inert(overlay: OverlaySnapshotter) -> None:
    overlay.prepare("view", add(overlay, None, "f"))
    root = overlay.open_root("view")
    with pytest.raises(OSError, match="Read-only"):
        os.mkdir("x", dir_fd=root)
    os.close(root)
    root = overlay.open_root("view", writable=True)
    os.mknod("null", 0o20666, os.makedev(1, 3), dir_fd=root)
    with pytest.raises(PermissionError):
        os.open("null", os.O_WRONLY, dir_fd=root)
    os.close(root)


def test_an_ephemeral_writable_can_be_mounted_again_and_again(overlay: OverlaySnapshotter, tmp_path: Path) -> None:
    overlay.prepare("brief", add(overlay, None, "f"), ephemeral=True)
    for number in range(2):
        assert "volatile" in overlay.mounts("brief")[0].options
        root = overlay.open_root("brief", writable=True)
        os.mkdir(f"d{number}", dir_fd=root)
        os.close(root)
    overlay.close()
    again = OverlaySnapshotter(tmp_path / "snapshots")
    try:
        root = again.open_root("brief", writable=True)
        assert sorted(os.listdir(f"/proc/self/fd/{root}")) == ["d0", "d1", "f"]
        os.close(root)
        assert "volatile" in again.mounts("brief")[0].options
    finally:
        again.close()


def test_mounts_are_what_mount_understands(overlay: OverlaySnapshotter, tmp_path: Path) -> None:
    """As podman or an older kernel would do it: one options string, one mount(2)."""
    overlay.prepare("plain", add(overlay, add(overlay, None, "a"), "b"))
    (mount,) = overlay.mounts("plain")
    target = tmp_path / "target"
    target.mkdir()
    options = ",".join((f"lowerdir={':'.join(mount.lowerdirs)}", *mount.options))
    mounts.mount(mount.source, target, mount.type, 0, options)
    try:
        assert sorted(os.listdir(target)) == ["a", "b"]
        (target / "c").touch()
    finally:
        mounts.umount(target)
    assert [str(change.path) for change in overlay.changes("plain")] == ["/c"]


def test_layers_are_flushed_in_the_background(overlay: OverlaySnapshotter, tmp_path: Path) -> None:
    add(overlay, None, "f")
    marks = list(tmp_path.glob("snapshots/layers/*/unflushed"))
    assert len(marks) == 1
    overlay.flush()
    assert not marks[0].exists()
    overlay.close()
    again = OverlaySnapshotter(tmp_path / "snapshots")
    assert len(again.layers()) == 1
    again.close()


def test_a_diff_is_a_layer(overlay: OverlaySnapshotter) -> None:
    base = add(overlay, None, "kept", "gone", "d/x", "d/y")
    overlay.prepare("source", base)
    root = overlay.open_root("source", writable=True)
    os.unlink("gone", dir_fd=root)
    os.unlink("d/x", dir_fd=root)
    os.mkdir("new", dir_fd=root)
    os.close(root)
    out = io.BytesIO()
    overlay.diff("source", out)
    digest = DiffID("sha256:" + hashlib.sha256(out.getvalue()).hexdigest())
    overlay.prepare("copy", overlay.apply(base, digest, io.BytesIO(out.getvalue())))
    root = overlay.open_root("copy")
    assert sorted(os.listdir(f"/proc/self/fd/{root}")) == ["d", "kept", "new"]
    assert os.listdir(os.open("d", os.O_RDONLY, dir_fd=root)) == ["y"]
    os.close(root)
    assert overlay.changes("copy") == []
