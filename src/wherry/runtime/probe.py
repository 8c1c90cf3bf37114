"""A command run in a container to see how it fares: health checks. One request, one answer, and nothing is kept.

No record is written: should the monitor die, so does the interest in what it ran. Its output is read up to a bound,
and when its time is over it is killed.
"""

from __future__ import annotations

import os
import time

from wherry.kernel import namespaces, processes
from wherry.kernel.processes import shell_status
from wherry.runtime.board import make
from wherry.runtime.launch import null_device
from wherry.runtime.machine.springboard import FAILED
from wherry.runtime.state import StateFile
from wherry.runtime.waiting import Wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NamedTuple

    from wherry.runtime.board import Board
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


class Prober:
    """Runs probes. A container's springboard (board.py) is made at its first probe and kept until `forget`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._boards: dict[str, tuple[tuple[str, ...], Board | None]] = {}
        self._own_pids = -1

    def forget(self, identifier: str) -> None:
        """The container is no more."""
        _, board = self._boards.pop(identifier, ((), None))
        if board is not None:
            board.close()

    def probe(self, identifier: str, args: Sequence[str], seconds: float) -> Waiting[Probed]:
        """Run `args` with the user, environment and limits of the container's own process."""
        deadline = time.monotonic() + seconds
        board = yield from self._board(identifier, tuple(args))
        if board is not None:
            try:
                found = yield from self._run(lambda writing: self._jump(board, writing), deadline)
                if found.status != FAILED or not found.output.startswith(board.magic):
                    return found.told()
            except ProcessLookupError:
                pass
            # It is no more, or its command is not there: what made the springboard says so in words.
            self.forget(identifier)
        return (yield from self._run(lambda writing: self._fork(identifier, args, writing), deadline)).told()

    def _board(self, identifier: str, args: tuple[str, ...]) -> Waiting[Board | None]:
        known = self._boards.get(identifier)
        if known is not None and known[0] == args:
            return known[1]
        self.forget(identifier)
        saved = StateFile(self._runtime.root, identifier)
        joining = yield from self._runtime.plan_join(saved, _process_of(args))
        if not joining.born_inside:
            os.close(joining.pidfd)
            board = None
        else:
            board = make(joining.operations, joining.group, self._runtime.version, joining.pidfd)
        self.forget(identifier)
        self._boards[identifier] = (args, board)
        return board

    def _jump(self, board: Board, writing: int) -> Waiting[tuple[int, int]]:
        yield from ()
        if self._own_pids < 0:
            self._own_pids = namespaces.open_namespace("self", "pid")
        namespaces.setns(board.pidfd, namespaces.CLONE_NEWPID)
        try:
            pid = board.spawn(null_device(), writing, {})
        finally:
            namespaces.setns(self._own_pids, namespaces.CLONE_NEWPID)
        return pid, processes.pidfd_open(pid)

    def _fork(self, identifier: str, args: Sequence[str], output: int) -> Waiting[tuple[int, int]]:
        saved = StateFile(self._runtime.root, identifier)
        stdio = (-1, output, output)
        launched = yield from self._runtime.join(saved, _process_of(args), stdio, lambda process: None)
        return launched.process.pid, launched.pidfd

    @staticmethod
    def _run(begin: Callable[[int], Waiting[tuple[int, int]]], deadline: float) -> Waiting[_Found]:
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(writing, True)
        started = time.time_ns()
        pid, pidfd = -1, -1
        try:
            try:
                pid, pidfd = yield from begin(writing)
            finally:
                os.close(writing)
            output, status = yield from _listen(pid, pidfd, reading, deadline)
            pid = -1
            return _Found(status, output, started)
        finally:
            os.close(reading)
            if pidfd >= 0:
                if pid >= 0:
                    _kill(pidfd)
                    os.waitpid(pid, 0)
                os.close(pidfd)


class _Found(NamedTuple):
    status: int | None
    output: bytes
    started_ns: int

    def told(self) -> Probed:
        return Probed(self.status, self.output.decode(errors="replace"), self.started_ns, time.time_ns())


def _process_of(args: Sequence[str]) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    return lambda config: {**config["process"], "args": list(args), "terminal": False}


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
