"""Progress: lines that move on a terminal, one line each elsewhere."""

from __future__ import annotations

import io
import os
import pty
from typing import Any

import pytest

from wherry.cli.progress import show
from wherry.errors import WherryError

MESSAGES: list[dict[str, Any]] = [
    {"status": "Pulling from library/x", "id": "latest"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "a"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "b"},
    {"status": "Downloading", "progressDetail": {"current": 500, "total": 1000}, "id": "a"},
    {"status": "Pull complete", "progressDetail": {}, "id": "a"},
    {"status": "Digest: sha256:0"},
]


def test_plain() -> None:
    out = io.StringIO()
    show(MESSAGES, out)
    assert out.getvalue() == (
        "latest: Pulling from library/x\na: Pulling fs layer\nb: Pulling fs layer\na: Pull complete\nDigest: sha256:0\n"
    )


class _Terminal(io.StringIO):
    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd


def test_terminal() -> None:
    """What docker's client writes for the same messages, taken from its terminal."""
    ours, theirs = pty.openpty()
    out = _Terminal(theirs)
    show(MESSAGES, out)
    os.close(ours)
    os.close(theirs)
    bar = "[" + "=" * 25 + ">" + " " * 25 + "]     500B/1kB"
    assert out.getvalue() == (
        "latest: Pulling from library/x\n"
        "\n\x1b[1A\x1b[2K\ra: Pulling fs layer \r\x1b[1B"
        "\n\x1b[1A\x1b[2K\rb: Pulling fs layer \r\x1b[1B"
        f"\x1b[2A\x1b[2K\ra: Downloading {bar}\r\x1b[2B"
        "\x1b[2A\x1b[2K\ra: Pull complete \r\x1b[2B"
        "Digest: sha256:0\n"
    )


def test_an_error_ends_it() -> None:
    with pytest.raises(WherryError, match=r"^no such thing$"):
        show([{"errorDetail": {"message": "no such thing"}, "error": "other"}], io.StringIO())
