"""What a command imports is what it costs: the hot commands import these modules and no others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[3] / "src"
_PROGRAM = f"""
import sys
sys.path.insert(0, {str(SOURCES)!r})
before = set(sys.modules)
from wherry.cli.main import run
code = run(sys.argv[1:])
sys.stdout.write("\\n" + " ".join(sorted(set(sys.modules) - before)))
"""
_ALWAYS = (
    "__future__ _json _socket wherry wherry.cli wherry.cli.commands wherry.cli.flags wherry.cli.main wherry.client"
    " wherry.client.codec wherry.client.context wherry.client.dial wherry.client.engine wherry.client.http"
    " wherry.errors"
)
_COMMANDS = {
    "ps": "describe filters listing ps tabulate units",
    "run --rm x true": (
        "create create_body create_flags describe opts_network run session signals streams terminal select"
    ),
    "exec x true": "describe exec session streams select",
    "rm -f x": "lifecycle many",
}


@pytest.mark.parametrize("line", _COMMANDS)
def test_modules(line: str, tmp_path: Path) -> None:
    """Against an engine that is not there; the imports are those of a command that reaches it."""
    address = f"unix://{tmp_path}/none.sock"
    done = subprocess.run(
        [sys.executable, "-IS", "-c", _PROGRAM, "-H", address, "--config", str(tmp_path), *line.split()],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Cannot connect to the Docker daemon" in done.stderr
    imported = {name.removeprefix("wherry.cli.") for name in done.stdout.splitlines()[-1].split()}
    allowed = {name.removeprefix("wherry.cli.") for name in (_ALWAYS + " " + _COMMANDS[line]).split()}
    assert imported <= allowed
