"""Every Dockerfile of `dockerfiles/` gives what dockerd's BuildKit gives: configuration, history, trees."""

import difflib
import json
import os
import sys
from pathlib import Path
from typing import Any

import build_cases
import pytest

from daemon import PEER, busybox_tar

pytestmark = pytest.mark.root


@pytest.mark.skipif(bool(PEER), reason="what is expected was written by the peer")
def test_cases(host: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wherry.cli.main", "-H", host, "--config", str(tmp_path / "config")]
    os.environ.pop("DOCKER_HOST", None)
    found = build_cases.build_all(command, tmp_path, busybox_tar())
    expected = json.loads(build_cases.EXPECTED.read_text())
    assert found.keys() == expected.keys()
    different = [name for name in found if name not in build_cases.NEWER and found[name] != expected[name]]
    assert not different, "\n".join(_difference(name, expected[name], found[name]) for name in different)


@pytest.mark.skipif(bool(PEER), reason="newer than the peer's stable frontend")
def test_newer_flags(host: str, tmp_path: Path) -> None:
    """--parents and --unpack as reference.md describes them."""
    command = [sys.executable, "-m", "wherry.cli.main", "-H", host, "--config", str(tmp_path / "config")]
    (tmp_path / "context").mkdir()
    build_cases.make_context(tmp_path / "context")
    build_cases.import_base(command, tmp_path, busybox_tar())
    parents, unpack = (build_cases.build(command, tmp_path, name)["layers"] for name in ("parents", "add-unpack-no"))
    assert sorted(parents[0]) == ["p1", "p1/deep", "p1/deep/er", "p1/deep/er/g", "p1/notes.txt"]
    assert sorted(parents[1]) == ["p2", "p2/tree", "p2/tree/a.md", "p2/tree/deep", "p2/tree/deep/h.md"]
    assert parents[0]["p1/deep"][1] == 0o750
    assert sorted(unpack[0]) == ["t", "t/arc.tgz"]


def _difference(name: str, expected: Any, found: Any) -> str:
    texts = [json.dumps(one, indent=1, sort_keys=True).splitlines() for one in (expected, found)]
    return "\n".join([f"=== {name}", *difflib.unified_diff(*texts, "dockerd", "wherry", lineterm="", n=2)])
