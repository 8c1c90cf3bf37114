"""The daemon's side of the monitor: an asyncio client, and how a monitor is started."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from wherry import errors
from wherry.kernel import seqpacket
from wherry.runtime.state import Exit
from wherry.spec import fastjson
from wherry.spec.mount import Mount

Descriptors = list[int]
_Answer = tuple[Any, Descriptors]

__all__ = ["ContainerState", "Exit", "Monitor", "Started", "Stdio", "spawn"]


class Stdio(NamedTuple):
    """The container's ends, dup'ed by the monitor; the caller closes its own. None: /dev/null. With a terminal, all."""

    stdin: int | None
    stdout: int | None
    stderr: int | None


class Started(NamedTuple):
    """A started process. `pidfd` and `console` (the terminal's master) are the caller's to close."""

    pid: int
    start_time: int
    pidfd: int
    console: int | None
    warnings: tuple[str, ...] = ()


class ContainerState(NamedTuple):
    """`status`: created, running, paused, stopped; creating for what a crash left half made."""

    id: str
    status: str
    pid: int
    start_time: int
    bundle: str
    exit: Exit | None


class Monitor:
    """One connection to the monitor; any number of requests at a time. Reconnects never by itself."""

    def __init__(self, socket: Any, on_exit: Callable[[Exit], None], on_lost: Callable[[], None]) -> None:
        self._socket = socket
        self._on_exit = on_exit
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._next = 0
        self._waiting: dict[int, asyncio.Future[_Answer]] = {}
        self._outbox: list[tuple[bytes, Descriptors]] = []
        self._loop.add_reader(socket.fileno(), self._read)

    @classmethod
    async def connect(cls, socket: Path, on_exit: Callable[[Exit], None], on_lost: Callable[[], None]) -> Monitor:
        """Unavailable when no monitor listens at `socket`."""
        try:
            connection = seqpacket.connect(str(socket))
        except OSError as error:
            raise errors.Unavailable(f"the monitor does not answer: {error}", object=str(socket)) from error
        connection.setblocking(False)
        return cls(connection, on_exit, on_lost)

    async def ping(self) -> int:
        """The monitor's pid."""
        pid: int = await self._ask("ping")
        return pid

    async def run(
        self, id: str, bundle: Path, rootfs: Sequence[Mount], stdio: Stdio, hold: Sequence[int] = ()
    ) -> Started:
        """Create and start in one. Copies of `hold`, and of a terminal's master after them, are kept until `delete`."""
        return await self._launch("run", id, bundle, rootfs, stdio, hold)

    async def create(
        self, id: str, bundle: Path, rootfs: Sequence[Mount], stdio: Stdio, hold: Sequence[int] = ()
    ) -> Started:
        """Everything but the program itself."""
        return await self._launch("create", id, bundle, rootfs, stdio, hold)

    async def _launch(
        self, operation: str, id: str, bundle: Path, rootfs: Sequence[Mount], stdio: Stdio, hold: Sequence[int]
    ) -> Started:
        layers = [[m.type, m.source, list(m.options), list(m.lowerdirs)] for m in rootfs]
        arguments = {"id": id, "bundle": str(bundle), "rootfs": layers}
        return await self._begin(operation, arguments, stdio, hold)

    async def _begin(self, operation: str, arguments: dict[str, Any], stdio: Stdio, hold: Sequence[int]) -> Started:
        arguments["stdio"] = [fd is not None for fd in stdio]
        given = [fd for fd in stdio if fd is not None]
        (pid, start_time, warnings), fds = await self._call(operation, arguments, [*given, *hold])
        return Started(pid, start_time, fds[0], fds[1] if len(fds) > 1 else None, tuple(warnings))

    async def start(self, id: str) -> None:
        """Start a created container; the errors of its exec are raised here."""
        await self._ask("start", id=id)

    async def exec(self, id: str, exec_id: str, process: dict[str, Any], stdio: Stdio) -> Started:
        """Run a further process (an OCI Process object)."""
        return await self._begin("exec", {"id": id, "exec_id": exec_id, "process": process}, stdio, ())

    async def kill(self, id: str, signal: int, *, all: bool = False) -> None:
        """FailedPrecondition when it does not run."""
        await self._ask("kill", id=id, signal=int(signal), all=all)

    async def delete(self, id: str, *, force: bool = False) -> None:
        """Absent is no error."""
        await self._ask("delete", id=id, force=force)

    async def pause(self, id: str) -> None:
        """Freeze all processes."""
        await self._ask("pause", id=id)

    async def resume(self, id: str) -> None:
        """Undo pause."""
        await self._ask("resume", id=id)

    async def update(self, id: str, resources: dict[str, Any]) -> None:
        """Apply an OCI linux.resources object."""
        await self._ask("update", id=id, resources=resources)

    async def processes(self, id: str) -> Descriptors:
        """Host pids, sorted."""
        found: Descriptors = await self._ask("processes", id=id)
        return found

    async def state(self, id: str) -> ContainerState:
        """NotFound when there is no such container."""
        return _state(await self._ask("state", id=id))

    async def list(self) -> list[ContainerState]:
        """All containers."""
        return [_state(row) for row in await self._ask("list")]

    async def held(self, id: str) -> Descriptors:
        """Fresh copies of the held descriptors in the order given; -1 for a released one."""
        present, fds = await self._call("held", {"id": id}, [])
        copies = iter(fds)
        return [next(copies) if there else -1 for there in present]

    async def hold(self, id: str, fds: Sequence[int]) -> None:
        """Keep copies of these in the place of what is held. NotFound when there is no such container."""
        await self._call("hold", {"id": id}, [*fds])

    async def release(self, id: str, index: int) -> None:
        """Close one held descriptor."""
        await self._ask("release", id=id, index=index)

    def close(self) -> None:
        """End the connection; requests under way fail with Unavailable. `on_lost` is not called."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        for _, fds in self._outbox:
            seqpacket.close(fds)
        self._outbox.clear()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(errors.Unavailable("the connection to the monitor was lost"))

    # -- the connection --------------------------------------------------------------------------------------------
    async def _ask(self, operation: str, **arguments: Any) -> Any:
        value, fds = await self._call(operation, arguments, [])
        seqpacket.close(fds)
        return value

    async def _call(self, operation: str, arguments: dict[str, Any], fds: Descriptors) -> _Answer:
        if self._socket.fileno() < 0:
            raise errors.Unavailable("the connection to the monitor is closed")
        self._next += 1
        future: asyncio.Future[_Answer] = self._loop.create_future()
        self._waiting[self._next] = future
        message = fastjson.dumps({"seq": self._next, "op": operation, "args": arguments}).encode()
        # Queued messages keep copies: the caller may close its own as soon as this returns or is cancelled.
        if (self._outbox or not self._try_send(message, fds)) and self._socket.fileno() >= 0:
            self._outbox.append((message, [os.dup(fd) for fd in fds]))
            self._loop.add_writer(self._socket.fileno(), self._flush)
        return await future

    def _try_send(self, message: bytes, fds: Descriptors) -> bool:
        try:
            seqpacket.send(self._socket, message, fds)
        except BlockingIOError:
            return False
        except OSError:
            self._lose()
            return False
        return True

    def _flush(self) -> None:
        while self._outbox:
            message, fds = self._outbox[0]
            if not self._try_send(message, fds):
                return
            self._outbox.pop(0)
            seqpacket.close(fds)
        self._loop.remove_writer(self._socket.fileno())

    def _read(self) -> None:
        # A bounded number, so that a burst of exits does not hold up the rest of the daemon.
        for _ in range(64):
            try:
                received = seqpacket.receive(self._socket)
            except BlockingIOError:
                return
            except OSError:
                received = None
            if received is None:
                self._lose()
                return
            self._dispatch(fastjson.loads(received[0]), received[1])
            if self._socket.fileno() < 0:
                return

    def _dispatch(self, message: dict[str, Any], fds: Descriptors) -> None:
        if "exit" in message:
            self._on_exit(Exit(*message["exit"]))
            return
        future = self._waiting.pop(message["seq"], None)
        if future is None or future.done():
            seqpacket.close(fds)
        elif "error" in message:
            kind, text, hint = message["error"]
            future.set_exception(getattr(errors, kind, errors.Internal)(text, hint=hint))
        else:
            future.set_result((message["ok"], fds))

    def _lose(self) -> None:
        if self._socket.fileno() >= 0:
            self.close()
            self._on_lost()


def _state(row: Sequence[Any]) -> ContainerState:
    id, status, pid, start_time, bundle, ended = row
    return ContainerState(id, status, pid, start_time, bundle, None if ended is None else Exit(*ended))


_SOURCE = str(Path(__file__).resolve().parents[2])


def spawn(exec_root: Path, *, timeout: float = 20.0) -> int:
    """Start `wherry monitor` detached and return its pid once its socket answers; the one that runs already, if any.

    It is in a session of its own and no child of the caller's. Its messages go to `<exec_root>/monitor.log`.
    Unavailable, with the end of that log, when it does not come up.
    """
    exec_root.mkdir(mode=0o711, parents=True, exist_ok=True)
    code = f"import sys; sys.path.insert(0, {_SOURCE!r}); from wherry.runtime.monitor_main import main; "
    code += "sys.exit(main(sys.argv[-1]))"
    # "wherry monitor" is how the process is found in a process list.
    command = [sys.executable, "-I", "-S", "-c", code, "wherry", "monitor", str(exec_root)]
    deadline = time.monotonic() + timeout
    while True:
        status = _start(command, exec_root / "monitor.log", max(deadline - time.monotonic(), 0.1))
        if status in (0, _ALREADY_RUNNING) and _answers(exec_root / "monitor.sock"):
            return int((exec_root / "monitor.lock").read_text())
        # One that was there may have been about to end; its lock goes with it.
        if status != _ALREADY_RUNNING or time.monotonic() > deadline:
            tail = (exec_root / "monitor.log").read_text(errors="replace")[-500:].strip()
            raise errors.Unavailable(f"the monitor did not start: {tail or f'status {status}'}", object=str(exec_root))


_ALREADY_RUNNING = 3


def _start(command: Sequence[str], log: Path, timeout: float) -> int:
    with log.open("ab") as errors_to:
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=errors_to,
                stderr=errors_to,
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath)},
                start_new_session=True,
                timeout=timeout,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return -1


def _answers(socket: Path) -> bool:
    """Whether a monitor takes requests: connecting alone may reach the queue of one that is about to end."""
    try:
        connection = seqpacket.connect(str(socket))
    except OSError:
        return False
    try:
        seqpacket.send(connection, b'{"seq":0,"op":"ping"}')
        return seqpacket.receive(connection) is not None
    except OSError:
        return False
    finally:
        connection.close()
