"""A stopped container's tree with its mounts, on kernels old and new."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from wherry.engine import views
from wherry.engine.records import MountPoint
from wherry.snapshots import NativeSnapshotter, OverlaySnapshotter

pytestmark = pytest.mark.root


@pytest.mark.parametrize("make", [OverlaySnapshotter, NativeSnapshotter])
@pytest.mark.parametrize("old_kernel", [False, True])
def test_mounts_are_where_they_would_be_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: type[OverlaySnapshotter], old_kernel: bool
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if old_kernel:
        attach, calls = views._attach, []

        def refuse_once(root: int, trees: Sequence[tuple[MountPoint, int]]) -> None:
            calls.append(root)
            if len(calls) == 1:
                raise OSError(errno.EINVAL, "move_mount")
            attach(root, trees)

        monkeypatch.setattr(views, "_attach", refuse_once)
    for name in ("volume", "inner"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    (tmp_path / "file").write_text("file")
    points = [
        MountPoint(type="bind", source=str(tmp_path / "inner"), destination="/data/inner", rw=False),
        MountPoint(type="volume", source=str(tmp_path / "volume"), destination="/data"),
        MountPoint(type="bind", source=str(tmp_path / "file"), destination="/etc/file"),
        MountPoint(type="bind", source=str(tmp_path / "gone"), destination="/gone"),
    ]
    (tmp_path / "volume/inner").mkdir()
    snapshots = make(tmp_path / "snapshots")
    descriptors = len(os.listdir("/proc/self/fd"))
    snapshots.prepare("c", None)
    root = snapshots.open_root("c", writable=True)
    # A link in the place's way leads nowhere outside.
    os.mkdir("elsewhere", dir_fd=root)
    os.symlink("/../../elsewhere", "etc", dir_fd=root)
    assert [point.destination for point in views.missing(root, points)] == [point.destination for point in points]
    views.make_places(root, points)
    os.close(root)
    root = views.compose(snapshots.open_root("c", writable=True), points, tmp_path / "views", writable=True)

    def read(path: str) -> str:
        with open(os.open(path, os.O_RDONLY, dir_fd=root)) as file:
            return file.read()

    assert (read("data/f"), read("data/inner/f"), read("elsewhere/file")) == ("volume", "inner", "file")
    os.close(os.open("data/new", os.O_CREAT | os.O_WRONLY, dir_fd=root))
    with pytest.raises(OSError, match="Read-only file system"):
        os.open("data/inner/new", os.O_CREAT | os.O_WRONLY, dir_fd=root)
    os.close(root)
    assert sorted(path.name for path in (tmp_path / "volume").iterdir()) == ["f", "inner", "new"]
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    views.sweep(tmp_path / "views")
    snapshots.close()
