"""The wherry command as users run it: a process of its own, with pipes or behind a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src"
# What the launcher of scripts/setup does.
LAUNCHER = f"import sys; sys.path.insert(0, {str(SOURCES)!r}); from wherry.cli.main import main; sys.exit(main())"
COMMAND = [sys.executable, "-IS", "-c", LAUNCHER]


def environment(host: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
    return {**kept, "DOCKER_HOST": host, "DOCKER_CONFIG": "/nonexistent", "TERM": "xterm"}


def run(command: list[str], host: str, arguments: list[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*command, *arguments], input=stdin, capture_output=True, env=environment(host), timeout=60, check=False
    )


class Terminal:
    """The other side of the terminal that a command runs in."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self.process = process
        self.fd = fd
        self.text = b""

    def type(self, text: bytes) -> None:
        os.write(self.fd, text)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, text: bytes, seconds: float = 20) -> None:
        """Reads until `text` appears; what came before it, and it, is forgotten."""
        deadline = time.monotonic() + seconds
        while text not in self.text:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} did not come, but {self.text!r}"
            if not select.select([self.fd], [], [], left)[0]:
                continue
            try:
                data = os.read(self.fd, 4096)
            except OSError:
                data = b""
            assert data, f"the terminal was closed before {text!r} came: {self.text!r}"
            self.text += data
        self.text = self.text.partition(text)[2]

    def wait(self, seconds: float = 20) -> int:
        """The exit code; what is written meanwhile is read."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.fd], [], [], 0.05)[0]:
                try:
                    self.text += os.read(self.fd, 4096)
                except OSError:
                    return self.process.wait(timeout=max(deadline - time.monotonic(), 0.1))
        return self.process.wait(timeout=0.1)


@contextmanager
def terminal(host: str, arguments: list[str], size: tuple[int, int] = (31, 97)) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", _IN_TERMINAL, *COMMAND, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(host),
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(ours)


# A new session has no controlling terminal until it asks for one; without it there is no SIGWINCH.
_IN_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
