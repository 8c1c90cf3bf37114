"""A command run in a container to see how it fares: health checks. One request, one answer, and nothing is kept.

No record is written: should the monitor die, so does the interest in what it ran. Its output is read up to a bound,
and when its time is over it is killed.
"""

from __future__ import annotations

import os
import time

from wherry.kernel import processes
from wherry.kernel.processes import shell_status
from wherry.runtime.state import StateFile
from wherry.runtime.waiting import Wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NamedTuple

    from wherry.runtime.container import Runtime
    from wherry.runtime.waiting import Waiting
else:
    from wherry.kernel.tuples import NamedTuple

OUTPUT_MAX = 4096
_SIGKILL = 9


class Probed(NamedTuple):
    """`status` as a shell's; None when it was killed in time. `output`: stdout and stderr as they came."""

    status: int | None
    output: str
    started_ns: int
    ended_ns: int


def probe(runtime: Runtime, identifier: str, args: Sequence[str], seconds: float) -> Waiting[Probed]:
    """Run `args` with the user, environment and limits of the container's own process."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    started = time.time_ns()
    deadline = time.monotonic() + seconds
    pid, pidfd = -1, -1
    try:
        try:
            os.set_blocking(writing, True)
            pid, pidfd = yield from _begin(runtime, identifier, args, writing)
        finally:
            os.close(writing)
        output, status = yield from _listen(pid, pidfd, reading, deadline)
        pid = -1
        return Probed(status, output.decode(errors="replace"), started, time.time_ns())
    finally:
        os.close(reading)
        if pidfd >= 0:
            if pid >= 0:
                _kill(pidfd)
                os.waitpid(pid, 0)
            os.close(pidfd)


def _begin(runtime: Runtime, identifier: str, args: Sequence[str], output: int) -> Waiting[tuple[int, int]]:
    def process_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**config["process"], "args": list(args), "terminal": False}

    saved = StateFile(runtime.root, identifier)
    launched = yield from runtime.join(saved, process_of, (-1, output, output), lambda process: None)
    return launched.process.pid, launched.pidfd


def _listen(pid: int, pidfd: int, reading: int, deadline: float) -> Waiting[tuple[bytes, int | None]]:
    """Until the process has ended. What it left behind that holds the pipe open is not waited for."""
    output = Output()
    fds: tuple[int, ...] = (pidfd, reading)
    killed = False
    while True:
        left = deadline - time.monotonic()
        if left <= 0 and not killed:
            killed = True
            _kill(pidfd)
        if killed:
            # Nothing outlives SIGKILL, but a frozen or stuck process takes its time.
            yield pidfd
        else:
            yield Wait(fds, left)
        if output.read(reading):
            fds = (pidfd,)  # its end: only the process is still waited for
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            output.read(reading)
            return output.text(), None if killed else shell_status(status)


def _kill(pidfd: int) -> None:
    try:
        processes.pidfd_send_signal(pidfd, _SIGKILL)
    except ProcessLookupError:
        pass


class Output:
    """The first bytes of a pipe; the rest is read and dropped, so that the writer does not stop."""

    __slots__ = ("_cut", "_data")

    def __init__(self) -> None:
        self._data = b""
        self._cut = False

    def read(self, fd: int) -> bool:
        """Take what is there, a bounded piece of it; True at its end."""
        try:
            piece = os.read(fd, 65536)
        except BlockingIOError:
            return False
        room = OUTPUT_MAX - len(self._data)
        self._cut = self._cut or len(piece) > room
        self._data += piece[:room]
        return not piece

    def text(self) -> bytes:
        """docker's: what was cut ends in three dots."""
        return self._data + b"..." if self._cut else self._data
