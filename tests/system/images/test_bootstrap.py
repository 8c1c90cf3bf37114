"""Base images from the distribution's own packages. Only busybox: the others take half a minute and a network."""

import os
import shutil
import tarfile
from pathlib import Path

import pytest

from wherry.content import ContentStore
from wherry.errors import InvalidArgument, WherryError
from wherry.images import Images
from wherry.images.bootstrap import plan
from wherry.images.suites import find_suite
from wherry.snapshots import OverlaySnapshotter
from wherry.spec.reference import parse_reference
from wherry.state import MemoryStore


@pytest.mark.root
def test_busybox(tmp_path: Path) -> None:
    if not shutil.which("apt-get"):
        pytest.skip("no apt-get to download busybox-static with")
    store = MemoryStore()
    snapshots = OverlaySnapshotter(tmp_path / "snapshots")
    images = Images(tmp_path, store, ContentStore(tmp_path / "content", store), snapshots)
    try:
        image = images.bootstrap("busybox", lambda message: None)
    except WherryError as error:
        pytest.skip(f"busybox-static cannot be downloaded: {error}")
    assert (image.references, image.config.config.cmd) == (("busybox:latest",), ("sh",))
    assert list((tmp_path / "scratch").iterdir()) == []
    snapshots.prepare("c", image.chain)
    root = snapshots.open_root("c")
    try:
        tree = Path(f"/proc/self/fd/{root}")
        assert {"sh", "ls", "sleep", "true", "cat", "id"} <= set(os.listdir(tree / "bin"))
        assert (tree / "bin/busybox").read_bytes().startswith(b"\x7fELF")
        assert (tree / "bin/sh").stat().st_mode & 0o7777 == 0o755
        assert (tree / "tmp").stat().st_mode & 0o7777 == 0o1777
        assert "root:x:0:0:" in (tree / "etc/passwd").read_text()
    finally:
        os.close(root)
        snapshots.close()


def test_what_can_be_made() -> None:
    for name in ("debian", "debian:12", "debian:bookworm-slim", "ubuntu:24.04", "ubuntu:noble", "busybox:latest"):
        plan(parse_reference(name))
    for name in (
        "alpine",
        "debian:9",
        "debian:bookworm/../x",
        "me/debian",
        "localhost/busybox",
        "busybox:1.2",
        "ubuntu:noble-slim",
    ):
        with pytest.raises(InvalidArgument):
            plan(parse_reference(name))
    assert find_suite("debian", "12-slim") == ("debian", "bookworm", True)


def test_the_tree_is_cleaned_and_packed_the_same_twice(tmp_path: Path) -> None:
    from wherry.images.debootstrap import _clean, _pack

    tree = tmp_path / "tree"
    for name in (
        "dev/null",
        "run/lock/x",
        "var/lib/apt/lists/l",
        "var/cache/apt/a.bin",
        "var/log/dpkg.log",
        "etc/hostname",
        "usr/share/doc/x/c",
        "keep",
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("x")
    os.link(tree / "keep", tree / "again")
    _clean(tree, slim=True)
    packed = []
    for number in range(2):
        os.utime(tree / "keep", (2_000_000_000 + number,) * 2)
        with (tmp_path / f"{number}.tar").open("wb") as out:
            _pack(tree, out, 1_000_000_000)
        packed.append((tmp_path / f"{number}.tar").read_bytes())
    assert packed[0] == packed[1]
    with tarfile.open(tmp_path / "0.tar") as tar:
        entries = {entry.name: entry for entry in tar}
    assert not {"dev/null", "run/lock", "var/lib/apt/lists/l", "usr/share/doc/x"} & entries.keys()
    assert (entries["etc/hostname"].size, entries["var/log/dpkg.log"].size) == (0, 0)
    assert entries["keep"].islnk() != entries["again"].islnk()
