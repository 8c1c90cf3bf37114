"""Nothing stays open, whether it goes well or not."""

import io
import os
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest

from wherry.archive import UnpackOptions, Whiteouts, copy_tree, pack, read_file, stat, unpack
from wherry.errors import WherryError

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    for name in ("root", "lower", "copy"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "gone").mkdir()
    root = os.open(tmp_path / "root", os.O_RDONLY)
    copy = os.open(tmp_path / "copy", os.O_RDONLY)
    good = [f"d{n}/e/f" for n in range(100)] + [".wh.gone", "gone/x", "d1/.wh..wh..opq"]
    bad = ["../x", "d1/e/f/x", "d2/.wh..", "x" * 300, "y/" * 3000]
    before = os.listdir("/proc/self/fd")
    for last in (None, *bad):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name in [*good, *([last] if last else [])]:
                archive.addfile(tarfile.TarInfo(name))
        options = UnpackOptions(whiteouts=Whiteouts.OVERLAY, lowers=[str(tmp_path / "lower")])
        buffer.seek(0)
        with suppress(WherryError):
            unpack(buffer, root, options)
    for path in ("/", "/d1/e/f", "/nope", "/d1/e/f/x"):
        with suppress(WherryError):
            stat(root, path)
        with suppress(WherryError):
            pack(root, path, io.BytesIO())
        with suppress(WherryError):
            read_file(root, path)
    copy_tree(root, copy)
    with pytest.raises(FileExistsError):
        copy_tree(root, copy)
    assert os.listdir("/proc/self/fd") == before
    os.close(root)
    os.close(copy)
