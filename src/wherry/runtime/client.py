"""The daemon's side of the monitor: its client, and how a monitor is started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from wherry.ipc.client import Connection
from wherry.ipc.spawn import spawn as start
from wherry.runtime.state import Exit
from wherry.spec.mount import Mount

Descriptors = list[int]

__all__ = ["ContainerState", "Exit", "Monitor", "Probed", "Started", "Stdio", "spawn"]


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


class Probed(NamedTuple):
    """How a probe ended: None when its time was over and it was killed. `output`: of both streams, cut."""

    status: int | None
    output: str
    started_ns: int
    ended_ns: int


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

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    async def connect(cls, socket: Path, on_exit: Callable[[Exit], None], on_lost: Callable[[], None]) -> Monitor:
        """Unavailable when no monitor listens at `socket`."""

        def on_event(name: str, *values: Any) -> None:
            if name == "exit":
                on_exit(Exit(*values))

        return cls(Connection("monitor", socket, on_event, on_lost))

    async def ping(self) -> int:
        """The monitor's pid."""
        pid: int = await self._connection.ask("ping")
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
        (pid, start_time, warnings), fds = await self._connection.call(operation, arguments, [*given, *hold])
        return Started(pid, start_time, fds[0], fds[1] if len(fds) > 1 else None, tuple(warnings))

    async def start(self, id: str) -> None:
        """Start a created container; the errors of its exec are raised here."""
        await self._connection.ask("start", id=id)

    async def exec(self, id: str, exec_id: str, process: dict[str, Any], stdio: Stdio) -> Started:
        """Run a further process (an OCI Process object)."""
        return await self._begin("exec", {"id": id, "exec_id": exec_id, "process": process}, stdio, ())

    async def probe(self, id: str, args: Sequence[str], seconds: float) -> Probed:
        """Run a command as the container's own process would be, bounded in output and time, and learn how it ended.

        Nothing is kept of it. Raises what `exec` raises when it cannot be run.
        """
        status, output, at_ns, end_ns = await self._connection.ask("probe", id=id, args=list(args), seconds=seconds)
        return Probed(status, output, at_ns, end_ns)

    async def kill(self, id: str, signal: int, *, all: bool = False) -> None:
        """FailedPrecondition when it does not run."""
        await self._connection.ask("kill", id=id, signal=int(signal), all=all)

    async def delete(self, id: str, *, force: bool = False) -> None:
        """Absent is no error."""
        await self._connection.ask("delete", id=id, force=force)

    async def pause(self, id: str) -> None:
        """Freeze all processes."""
        await self._connection.ask("pause", id=id)

    async def resume(self, id: str) -> None:
        """Undo pause."""
        await self._connection.ask("resume", id=id)

    async def update(self, id: str, resources: dict[str, Any]) -> None:
        """Apply an OCI linux.resources object."""
        await self._connection.ask("update", id=id, resources=resources)

    async def processes(self, id: str) -> Descriptors:
        """Host pids, sorted."""
        found: Descriptors = await self._connection.ask("processes", id=id)
        return found

    async def state(self, id: str) -> ContainerState:
        """NotFound when there is no such container."""
        return _state(await self._connection.ask("state", id=id))

    async def list(self) -> list[ContainerState]:
        """All containers."""
        return [_state(row) for row in await self._connection.ask("list")]

    async def held(self, id: str) -> Descriptors:
        """Fresh copies of the held descriptors in the order given; -1 for a released one."""
        present, fds = await self._connection.call("held", {"id": id}, [])
        copies = iter(fds)
        return [next(copies) if there else -1 for there in present]

    async def hold(self, id: str, fds: Sequence[int]) -> None:
        """Keep copies of these in the place of what is held. NotFound when there is no such container."""
        await self._connection.call("hold", {"id": id}, [*fds])

    async def release(self, id: str, index: int) -> None:
        """Close one held descriptor."""
        await self._connection.ask("release", id=id, index=index)

    def close(self) -> None:
        """End the connection; requests under way fail with Unavailable. `on_lost` is not called."""
        self._connection.close()


def _state(row: Sequence[Any]) -> ContainerState:
    id, status, pid, start_time, bundle, ended = row
    return ContainerState(id, status, pid, start_time, bundle, None if ended is None else Exit(*ended))


def spawn(exec_root: Path, *, timeout: float = 20.0) -> int:
    """Start `wherry monitor` detached and return its pid once its socket answers; the one that runs already, if any.

    Its messages go to `<exec_root>/monitor.log`. Unavailable, with the end of that log, when it does not come up.
    """
    return start("monitor", "wherry.runtime.monitor_main", exec_root, timeout=timeout)
