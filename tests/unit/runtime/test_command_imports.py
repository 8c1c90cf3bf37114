"""What a cold `wherry-runtime run` loads: its start is most of what it costs."""

import subprocess
import sys
from pathlib import Path

SOURCE = str(Path(__file__).parents[3] / "src")
NEEDLESS = {"re", "enum", "json", "argparse", "dataclasses", "inspect", "asyncio", "typing", "collections", "signal"}
NEEDLESS |= {"functools", "logging", "subprocess", "pathlib", "socket", "hashlib", "tempfile", "shutil", "array"}
PROGRAM = f"""
import sys
sys.path.insert(0, {SOURCE!r})
import wherry.runtime.cli
from wherry.runtime.cli import commands, create, execute, flags, foreground
from wherry.kernel import filter_code, libseccomp, seccomp
from wherry.kernel.cgroups import v1, v2
print(*sys.modules)
"""


def test_run_loads_little() -> None:
    shown = subprocess.run([sys.executable, "-IS", "-c", PROGRAM], capture_output=True, text=True, check=True)
    loaded = set(shown.stdout.split())
    assert not loaded & NEEDLESS
    assert len(loaded) < 120, sorted(loaded)
