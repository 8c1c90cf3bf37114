"""Paths in stacks of layers that are not mounted."""

import os
from pathlib import Path

import pytest

from wherry.build.layer_view import find, view


@pytest.mark.root
def test_layers(tmp_path: Path) -> None:
    top, middle, bottom = (tmp_path / name for name in "tmb")
    for layer in (top, middle, bottom):
        (layer / "d").mkdir(parents=True)
    (bottom / "d" / "low").write_text("low")
    (bottom / "d" / "gone").write_text("x")
    (bottom / "o").mkdir()
    (bottom / "o" / "hidden").write_text("x")
    (bottom / "link").symlink_to("d")
    (middle / "o").mkdir()
    os.setxattr(middle / "o", "trusted.overlay.opaque", b"y")
    os.mknod(top / "d" / "gone", 0o020000, 0)
    (top / "d" / "high").write_text("high")
    layers = [str(top), str(middle), str(bottom)]
    assert view(layers, "d/low").file == str(bottom / "d" / "low")  # type: ignore[union-attr]
    assert view(layers, "d").directories == (str(top / "d"), str(middle / "d"), str(bottom / "d"))  # type: ignore[union-attr]
    assert view(layers, "d/gone") is None
    assert view(layers, "o").directories == (str(middle / "o"),)  # type: ignore[union-attr]
    assert find(layers, "d/gone") is None
    assert find(layers, "o/hidden") is None
    assert find(layers, "d/high/x") is None
    assert find(layers, "nothing/x") is None
    assert find(layers, "d/low") is not None
    with pytest.raises(LookupError):
        find(layers, "link/low")
