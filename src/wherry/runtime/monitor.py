"""The monitor: the OCI runtime kept warm. Forks containers and execs, reaps them, tells every client how they ended.

One thread, one epoll. A request is answered when its generator (launch.py) ends; many can be under way. What must
survive is on disk (state.py) before anyone is told. When a monitor dies its containers live on, and the next one finds
them by their state and watches them through pidfds.

Messages as wherry.ipc says; the operations are in monitor_requests.py.
    event     ["exit", id, exec_id, status, oom_killed, at_ns]
"""

from __future__ import annotations

import os
import time

from wherry import errors
from wherry.ipc.poller import READABLE, Poller
from wherry.ipc.server import Server
from wherry.kernel import processes
from wherry.runtime.container import Runtime
from wherry.runtime.monitor_requests import Requests
from wherry.runtime.state import Exit, Process, StateFile, list_ids
from wherry.runtime.waiting import Wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any

    from wherry.ipc.server import Call
    from wherry.runtime.waiting import Awaited, Waiting


class Monitor:
    """Every watched process, and the requests under way."""

    def __init__(self, runtime: Runtime, listener: _socket.socket) -> None:
        self.runtime = runtime
        self._poller = Poller()
        self._requests = Requests(runtime, self.watch)
        # Idle: nothing but the listener is watched, neither a process nor what a request waits for.
        self._server = Server(self._poller, listener, self._serve, lambda: len(self._poller) == 1)

    def serve_forever(self) -> None:
        """The loop."""
        while True:
            self._poller.run_once()

    def _serve(self, call: Call, operation: str, arguments: dict[str, Any], fds: list[int]) -> None:
        self._advance(self._requests.begin(operation, arguments, fds), call)

    def _advance(self, task: Waiting[tuple[Any, list[int]]], call: Call) -> None:
        """Run a request until it waits for something or ends."""
        try:
            awaited = next(task)
        except StopIteration as stop:
            value, fds = stop.value
            call.answer(value, fds)
        except Exception as error:  # noqa: BLE001 - the root of a task: one request must not end all containers' watch
            call.fail(error)
        else:
            self._await(awaited, lambda: self._advance(task, call))

    def _await(self, awaited: Awaited, resume: Callable[[], None]) -> None:
        """Call `resume` when what a task waits for (waiting.py) has come."""
        if isinstance(awaited, float):
            self._poller.call_later(awaited, resume)
            return
        fds = awaited.fds if isinstance(awaited, Wait) else (awaited,)

        def end() -> None:
            for fd in fds:
                self._poller.remove(fd)
            resume()

        timer = self._poller.call_later(awaited.seconds, end) if isinstance(awaited, Wait) else None

        def ready(events: int) -> None:
            if timer is not None:
                timer.cancel()
            end()

        for fd in fds:
            self._poller.add(fd, READABLE, ready)

    # -- processes -------------------------------------------------------------------------------------------------
    def watch(self, identifier: str, exec_id: str | None, process: Process, pidfd: int) -> None:
        """Tell everyone when the process ends. Takes over the pidfd."""

        def ended(events: int) -> None:
            self._poller.remove(pidfd)
            status = exit_status(process, pidfd)
            os.close(pidfd)
            self._finish(identifier, exec_id, status)

        self._poller.add(pidfd, READABLE, ended)

    def _finish(self, identifier: str, exec_id: str | None, status: int) -> None:
        if exec_id is None:
            try:
                ended = self.runtime.finish(identifier, status)
            except (OSError, errors.NotFound):
                # Deleted by another hand (`wherry-runtime delete`): who waits is told all the same.
                ended = Exit(identifier, None, status, False, time.time_ns())
        else:
            StateFile(self.runtime.root, identifier).remove_exec(exec_id)
            ended = Exit(identifier, exec_id, status, False, time.time_ns())
        self._server.tell("exit", *ended)

    def adopt(self) -> None:
        """Find what an earlier monitor left: watch what lives, record the end of what does not."""
        for identifier in list_ids(self.runtime.root):
            saved = StateFile(self.runtime.root, identifier)
            try:
                _, process, ended = saved.load()
            except errors.NotFound:
                continue
            # Without a process it is half made: whoever asked for it deletes it.
            if process is not None and ended is None:
                self._adopt(identifier, None, process)
            for exec_id, found in saved.execs().items():
                self._adopt(identifier, exec_id, found)

    def _adopt(self, identifier: str, exec_id: str | None, process: Process) -> None:
        try:
            pidfd = processes.pidfd_open(process.pid)
        except ProcessLookupError:
            self._finish(identifier, exec_id, -1)
            return
        if processes.start_time(process.pid) == process.start_time:
            self.watch(identifier, exec_id, process, pidfd)
        else:
            os.close(pidfd)
            self._finish(identifier, exec_id, -1)


def exit_status(process: Process, pidfd: int) -> int:
    """The shell-style status of a process that has ended: as its parent, from its pidfd, or from its remains."""
    try:
        reaped, status = os.waitpid(process.pid, os.WNOHANG)
        if reaped:
            return processes.shell_status(status)
    except ChildProcessError:
        pass
    # In this order: a zombie may be reaped by its parent between the two.
    found = processes.zombie_status(process.pid, process.start_time)
    if found is None:
        found = processes.pidfd_exit_status(pidfd)
    return -1 if found is None else processes.shell_status(found)
