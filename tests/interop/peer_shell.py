"""A shell where the reference peers' programs are, for tests that drive one of them with our runtime."""

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
RUNTIME = Path(sys.executable).with_name("wherry-runtime")
APPLETS = "sh true sleep cat echo id ls ps tty env"


class Done(NamedTuple):
    """How a command ended, and what it printed on both outputs."""

    status: int
    output: str


class Shell:
    """One shell, kept for many commands: what it mounts and starts is gone when it ends."""

    def __init__(self, command: list[str]) -> None:
        environment = {**os.environ, "PODMAN_IGNORE_CGROUPSV1_WARNING": "1", "PYTHONPATH": str(ROOT / "src")}
        self.process = subprocess.Popen(
            [*command, "sh"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        self.mark = f"end-{secrets.token_hex(8)}"

    def __call__(self, line: str) -> Done:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{{ {line}\n}} </dev/null; r=$?; echo; echo {self.mark} $r\n")
        self.process.stdin.flush()
        lines = []
        for read in self.process.stdout:
            if read.startswith(self.mark):
                return Done(int(read.split()[1]), "".join(lines).strip())
            lines.append(read)
        raise AssertionError(f"the shell ended: {''.join(lines)}")

    def make_root(self, directory: str) -> None:
        """A busybox root file system at `directory`, which becomes the working directory."""
        assert self(f"mkdir -p {directory}/bin && cd {directory} && mkdir proc sys dev etc tmp").status == 0
        assert self(f"cp $(command -v busybox) bin/ && for a in {APPLETS}; do ln -s busybox bin/$a; done").status == 0

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(30)


def way_to(program: str) -> list[str]:
    """What to put before a command so that `program` is in its PATH; skips the test where it is nowhere."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if shutil.which(program) and shutil.which("busybox"):
        return ["env"]
    holder = Path(os.environ.get("REFERENCE_DIR", "/var/tmp/reference"), "run/holder.pid")
    try:
        pid = holder.read_text().strip()
        os.stat(f"/proc/{pid}/root/usr/bin/{program}")
    except OSError:
        pytest.skip(f"{program} is neither on this host nor among reference peers")
    directories = ":".join(dict.fromkeys([str(ROOT), str(Path(sys.prefix)), sys.base_prefix]))
    return [sys.executable, str(ROOT / "tests/interop/reference_root.py"), pid, directories]
