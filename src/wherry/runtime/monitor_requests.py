"""What clients of the monitor can ask for. Each operation is a generator; its value is (JSON value, descriptors)."""

from __future__ import annotations

import os

from wherry import errors
from wherry.runtime.launch import close_all
from wherry.runtime.probe import Prober
from wherry.spec.mount import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry.runtime.container import Runtime, Status
    from wherry.runtime.launch import Launched
    from wherry.runtime.state import Process
    from wherry.runtime.waiting import Waiting

    Answer = Waiting[tuple[Any, list[int]]]
    Arguments = dict[str, Any]


class Requests:
    """The operations, and the descriptors held for the containers."""

    def __init__(self, runtime: Runtime, watch: Callable[[str, str | None, Process, int], None]) -> None:
        self._runtime = runtime
        self._watch = watch
        self._prober = Prober(runtime)
        self._held: dict[str, list[int]] = {}
        self._operations: dict[str, Callable[[Arguments, list[int]], Answer]] = {
            "ping": self._ping,
            "run": self._run,
            "create": self._create,
            "start": self._start,
            "exec": self._exec,
            "probe": self._probe,
            "kill": self._kill,
            "delete": self._delete,
            "pause": self._pause,
            "resume": self._resume,
            "update": self._update,
            "processes": self._processes,
            "state": self._state,
            "list": self._list,
            "held": self._get_held,
            "hold": self._hold,
            "release": self._release,
        }

    def begin(self, operation: str, arguments: Arguments, fds: list[int]) -> Answer:
        """The generator of a request; `fds` are closed by it."""
        found = self._operations.get(operation)
        if found is None:
            close_all(fds)
            raise errors.Unimplemented(f"the monitor knows no operation {operation!r}", hint="restart the monitor")
        return self._guard(found, arguments, fds)

    @staticmethod
    def _guard(operation: Callable[[Arguments, list[int]], Answer], arguments: Arguments, fds: list[int]) -> Answer:
        try:
            return (yield from operation(arguments, fds))
        except OSError as error:
            raise errors.Internal(str(error)) from error
        finally:
            close_all(fds)

    def _ping(self, arguments: Arguments, fds: list[int]) -> Answer:
        yield from ()
        return os.getpid(), []

    def _run(self, arguments: Arguments, fds: list[int], wait: bool = False) -> Answer:
        """Descriptors: one for each true entry of `stdio`, then those to hold."""
        identifier = arguments["id"]
        layers = [Mount(kind, source, tuple(o), tuple(lower)) for kind, source, o, lower in arguments["rootfs"]]
        stdio, rest = _take_stdio(arguments["stdio"], fds)
        launched = yield from self._runtime.run(identifier, arguments["bundle"], layers, stdio, wait=wait)
        held = [os.dup(fd) for fd in rest]
        if launched.console >= 0:
            # Without a holder of its master a terminal hangs up.
            held.append(os.dup(launched.console))
        if held:
            self._held[identifier] = held
        return self._started(identifier, None, launched)

    def _create(self, arguments: Arguments, fds: list[int]) -> Answer:
        return (yield from self._run(arguments, fds, wait=True))

    def _exec(self, arguments: Arguments, fds: list[int]) -> Answer:
        stdio, _ = _take_stdio(arguments["stdio"], fds)
        identifier, exec_id = arguments["id"], arguments["exec_id"]
        launched = yield from self._runtime.exec(identifier, exec_id, arguments["process"], stdio)
        return self._started(identifier, exec_id, launched)

    def _probe(self, arguments: Arguments, fds: list[int]) -> Answer:
        found = yield from self._prober.probe(arguments["id"], arguments["args"], arguments["seconds"])
        return list(found), []

    def _started(self, identifier: str, exec_id: str | None, launched: Launched) -> tuple[Any, list[int]]:
        fds = [os.dup(launched.pidfd)]
        if launched.console >= 0:
            fds.append(launched.console)
        self._watch(identifier, exec_id, launched.process, launched.pidfd)
        return [launched.process.pid, launched.process.start_time, list(launched.warnings)], fds

    def _start(self, arguments: Arguments, fds: list[int]) -> Answer:
        yield from self._runtime.start(arguments["id"])
        return None, []

    def _kill(self, arguments: Arguments, fds: list[int]) -> Answer:
        yield from ()
        self._runtime.kill(arguments["id"], arguments["signal"], all=arguments["all"])
        return None, []

    def _delete(self, arguments: Arguments, fds: list[int]) -> Answer:
        identifier = arguments["id"]
        try:
            yield from self._runtime.delete(identifier, force=arguments["force"])
        except errors.NotFound:
            pass
        close_all(self._held.pop(identifier, ()))
        self._prober.forget(identifier)
        return None, []

    def _pause(self, arguments: Arguments, fds: list[int]) -> Answer:
        yield from self._runtime.pause(arguments["id"])
        return None, []

    def _resume(self, arguments: Arguments, fds: list[int]) -> Answer:
        yield from ()
        self._runtime.resume(arguments["id"])
        return None, []

    def _update(self, arguments: Arguments, fds: list[int]) -> Answer:
        yield from ()
        self._runtime.update(arguments["id"], arguments["resources"])
        return None, []

    def _processes(self, arguments: Arguments, fds: list[int]) -> Answer:
        yield from ()
        return list(self._runtime.processes(arguments["id"])), []

    def _state(self, arguments: Arguments, fds: list[int]) -> Answer:
        yield from ()
        return _row(self._runtime.status(arguments["id"])), []

    def _list(self, arguments: Arguments, fds: list[int]) -> Answer:
        yield from ()
        return [_row(status) for status in self._runtime.list()], []

    def _get_held(self, arguments: Arguments, fds: list[int]) -> Answer:
        yield from ()
        held = self._held.get(arguments["id"], [])
        # Released ones leave a gap in the order: the client is told where.
        return [fd >= 0 for fd in held], [os.dup(fd) for fd in held if fd >= 0]

    def _hold(self, arguments: Arguments, fds: list[int]) -> Answer:
        """In the place of what is held: for a container that an earlier monitor started."""
        yield from ()
        identifier = arguments["id"]
        self._runtime.status(identifier)
        close_all(self._held.pop(identifier, ()))
        self._held[identifier] = [os.dup(fd) for fd in fds]
        return None, []

    def _release(self, arguments: Arguments, fds: list[int]) -> Answer:
        yield from ()
        held = self._held.get(arguments["id"], [])
        index = arguments["index"]
        if 0 <= index < len(held) and held[index] >= 0:
            os.close(held[index])
            held[index] = -1
        return None, []


def _take_stdio(present: list[bool], fds: list[int]) -> tuple[tuple[int, int, int], list[int]]:
    given = iter(fds)
    stdin, stdout, stderr = [next(given) if there else -1 for there in present]
    return (stdin, stdout, stderr), list(given)


def _row(status: Status) -> list[Any]:
    process, ended = status.process, status.exit
    return [
        status.record.id,
        status.status,
        process.pid if process is not None else 0,
        process.start_time if process is not None else 0,
        status.record.bundle,
        list(ended) if ended is not None else None,
    ]
