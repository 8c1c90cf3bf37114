"""The monitor: the OCI runtime kept warm. Forks containers and execs, reaps them, tells every client how they ended.

One thread, one epoll. A request is answered when its generator (launch.py) ends; many can be under way. What must
survive is on disk (state.py) before anyone is told. When a monitor dies its containers live on, and the next one finds
them by their state and watches them through pidfds.

Messages: JSON over SOCK_SEQPACKET (kernel/seqpacket.py).
    request   {"seq": 1, "op": "run", "args": {...}}, with descriptors as the operation says (monitor_requests.py)
    reply     {"seq": 1, "ok": ...} or {"seq": 1, "error": [kind, message, hint]}
    event     {"exit": [id, exec_id, status, oom_killed, at_ns]}
"""

from __future__ import annotations

import _socket
import os
import select
import sys
import time

from wherry import errors
from wherry.kernel import processes, seqpacket
from wherry.runtime.container import Runtime
from wherry.runtime.launch import close_all
from wherry.runtime.monitor_requests import Requests
from wherry.runtime.state import Exit, Process, StateFile, list_ids
from wherry.spec import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

_OUTBOX_LIMIT = 10_000


class Client:
    """One connection. What it is too slow to take waits, up to a bound; past that it is cut off."""

    __slots__ = ("outbox", "socket")

    def __init__(self, socket: _socket.socket) -> None:
        self.socket = socket
        self.outbox: list[tuple[bytes, list[int]]] = []


class Monitor:
    """Every watched process, every client, and the requests under way."""

    def __init__(self, runtime: Runtime, listener: _socket.socket) -> None:
        self.runtime = runtime
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._clients: dict[int, Client] = {}
        self._requests = Requests(runtime, self.watch)
        self._listener = listener
        self._used = False  # someone asked for more than whether we are there
        self._on_readable(listener.fileno(), self._accept)

    def serve_forever(self) -> None:
        """The loop."""
        while True:
            for fd, events in self._epoll.poll():
                if events & select.EPOLLOUT and fd in self._clients:
                    self._flush(self._clients[fd])
                handler = self._handlers.get(fd)
                if handler is not None and events & ~select.EPOLLOUT:
                    handler()

    def _on_readable(self, fd: int, handler: Callable[[], None]) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, select.EPOLLIN)

    def _forget(self, fd: int) -> None:
        del self._handlers[fd]
        self._epoll.unregister(fd)

    # -- clients ---------------------------------------------------------------------------------------------------
    def _accept(self) -> None:
        try:
            socket = seqpacket.accept(self._listener)
        except OSError:
            return
        client = Client(socket)
        self._clients[socket.fileno()] = client
        self._on_readable(socket.fileno(), lambda: self._serve(client))

    def _serve(self, client: Client) -> None:
        try:
            received = seqpacket.receive(client.socket)
        except BlockingIOError:
            return
        except OSError:
            received = None
        if received is None:
            self._drop(client)
            return
        data, fds = received
        sequence = None
        try:
            message = fastjson.loads(data)
            sequence = message["seq"]
            self._used = self._used or message["op"] != "ping"
            task = self._requests.begin(message["op"], message.get("args") or {}, fds)
        except errors.WherryError as error:
            self._answer(client, {"seq": sequence, "error": _describe(error)})
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            close_all(fds)
            text = f"malformed request: {error!r}"
            self._answer(client, {"seq": sequence, "error": ["InvalidArgument", text, None]})
        else:
            self._advance(task, client, sequence)

    def _advance(self, task: Generator[int, None, tuple[Any, list[int]]], client: Client, sequence: Any) -> None:
        """Run a request until it waits for a descriptor or ends."""
        try:
            fd = next(task)
        except StopIteration as stop:
            value, fds = stop.value
            self._answer(client, {"seq": sequence, "ok": value}, fds)
        except errors.WherryError as error:
            self._answer(client, {"seq": sequence, "error": _describe(error)})
        except Exception as error:  # noqa: BLE001 - the root of a task: one request must not end all containers' watch
            sys.excepthook(type(error), error, error.__traceback__)
            self._answer(client, {"seq": sequence, "error": ["Internal", f"monitor: {error!r}", None]})
        else:

            def resume() -> None:
                self._forget(fd)
                self._advance(task, client, sequence)

            self._on_readable(fd, resume)

    def _answer(self, client: Client, message: dict[str, Any], fds: list[int] | None = None) -> None:
        """Send, or queue; descriptors here are closed once they are on their way."""
        if client.socket.fileno() < 0:
            close_all(fds or ())
            return
        client.outbox.append((fastjson.dumps(message).encode(), fds or []))
        if len(client.outbox) > _OUTBOX_LIMIT:
            self._drop(client)
        elif len(client.outbox) == 1:
            self._flush(client)

    def _flush(self, client: Client) -> None:
        waited = bool(client.outbox)
        while client.outbox:
            data, fds = client.outbox[0]
            try:
                seqpacket.send(client.socket, data, fds)
            except BlockingIOError:
                self._epoll.modify(client.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
                return
            except OSError:
                self._drop(client)
                return
            client.outbox.pop(0)
            close_all(fds)
        if waited:
            self._epoll.modify(client.socket.fileno(), select.EPOLLIN)

    def _drop(self, client: Client) -> None:
        fd = client.socket.fileno()
        if fd < 0:
            return
        self._forget(fd)
        del self._clients[fd]
        for _, fds in client.outbox:
            close_all(fds)
        client.outbox.clear()
        client.socket.close()
        if self._used and not self._clients and self._handlers.keys() == {self._listener.fileno()}:
            self._accept()  # a next daemon may be at the door
            if not self._clients:
                raise SystemExit(0)  # nothing to watch and nobody to serve: the next daemon starts another

    # -- processes -------------------------------------------------------------------------------------------------
    def watch(self, identifier: str, exec_id: str | None, process: Process, pidfd: int) -> None:
        """Tell everyone when the process ends. Takes over the pidfd."""

        def ended() -> None:
            self._forget(pidfd)
            status = exit_status(process, pidfd)
            os.close(pidfd)
            self._finish(identifier, exec_id, status)

        self._on_readable(pidfd, ended)

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
        for client in list(self._clients.values()):
            self._answer(client, {"exit": list(ended)})

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


def _describe(error: errors.WherryError) -> list[str | None]:
    return [type(error).__name__, error.message, error.hint]
