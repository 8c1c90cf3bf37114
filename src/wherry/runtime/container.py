"""The runtime as a library: what both the monitor and `wherry-runtime` do with containers.

One state file per container under `root` (state.py). Nothing is kept in memory, so any process with access to the
directory can do anything, and a crash of one is no one else's.
"""

from __future__ import annotations

import _socket
import os
import time

from wherry import errors
from wherry.kernel import capabilities, namespaces, processes
from wherry.kernel import cgroups as cgroup_room
from wherry.runtime import document as d
from wherry.runtime import exec_plan, filters, launch, plan, process_plan
from wherry.runtime.bundle import (
    Status,
    cgroup_of,
    hook_state,
    hooks_if_bundle,
    load_config,
    record_of,
    state_document,
    with_default_devices,
)
from wherry.runtime.state import Exit, Process, Record, StateFile, list_ids
from wherry.spec import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NamedTuple

    from wherry.kernel.cgroups import Cgroup
    from wherry.runtime.forker import Forker
    from wherry.runtime.launch import Launched
    from wherry.runtime.scene import Operation
    from wherry.runtime.waiting import Waiting
    from wherry.spec.mount import Mount
else:
    from wherry.kernel.tuples import NamedTuple

__all__ = ["Runtime", "Status", "load_config", "state_document"]

_SIGKILL = 9


class Joining(NamedTuple):
    """A further process of a container, planned. `guarded`: see exec_plan.operations."""

    operations: tuple[Operation, ...]
    group: Cgroup
    pidfd: int
    born_inside: bool
    guarded: bool
    terminal: bool


class Runtime:
    """Containers under one root directory. Methods that wait are generators (launch.py).

    The process that makes one cannot be traced or looked into from then on, and so neither can what it forks
    (CVE-2016-9962).
    """

    def __init__(self, root: str, forker: Forker | None = None) -> None:
        processes.prctl(processes.PR_SET_DUMPABLE, 0)
        self.root = root
        os.makedirs(root, 0o711, exist_ok=True)
        self._forker = forker
        self._seccomp_cache = f"{root}/.seccomp"
        self._bounding = capabilities.bounding()
        self.version = self._version = cgroup_room.layout().version

    # -- making ---------------------------------------------------------------------------------------------------
    def run(
        self,
        identifier: str,
        bundle: str,
        layers: Sequence[Mount],
        stdio: tuple[int, int, int],
        *,
        wait: bool = False,
        preserve: int = 0,
        choices: plan.Choices = plan.USUAL,
    ) -> Waiting[Launched]:
        """Make a container and start its program; with `wait`, up to but not including the program.

        `stdio`: descriptors, -1 is /dev/null. `preserve`: this many descriptors from 3 on are the program's too.
        """
        saved = StateFile(self.root, identifier)
        config = load_config(bundle)
        group = cgroup_of(config, identifier)
        host = plan.Host(self._bounding, dict(group.paths), self._version, self._seccomp_cache)
        yield from filters.prepare(d.mapping(d.mapping(config, "linux"), "seccomp", "linux."), self._seccomp_cache)
        made = plan.build(config, identifier, bundle, layers, host, wait=wait, choices=choices)
        record = record_of(config, identifier, bundle)
        saved.create(record)
        fds: list[int] = []
        try:
            group.create()
            trees: dict[str, int] = {}
            for preparation in made.preparations:
                trees.update(preparation.make(fds))
            prepared = launch.Launch(
                flags=made.clone_flags,
                operations=made.operations,
                stdio=stdio,
                trees=trees,
                uid_map=made.uid_map,
                gid_map=made.gid_map,
                start_socket=_listen(saved, fds) if wait else -1,
                preserve=preserve,
                state=hook_state(record, "creating"),
                hooks=made.hooks["prestart"] + made.hooks["createRuntime"],
                oom_score=made.oom_score,
                terminal=made.terminal,
                refork=made.refork,
                cgroup_fd=_open_cgroup(group, self._version, fds),
            )

            def settle() -> list[int]:
                if made.resources:
                    group.apply(with_default_devices(made.resources))
                return group.entry_fds()

            launched = yield from launch.launch_process(prepared, settle, saved.add_process, self._forker)
        except BaseException as error:
            if isinstance(error, GeneratorExit):
                raise  # nobody goes on with it: what is left is found by the next to look
            yield from self._undo(saved, group)
            if isinstance(error, OSError):
                raise errors.Internal(f"create container {identifier}: {error}") from error
            raise
        finally:
            launch.close_all(fds)
        if not wait and made.hooks["poststart"]:
            try:
                yield from self._poststart(made.hooks["poststart"], record, launched.process)
            except BaseException:
                launch.reap(launched)
                yield from self._undo(saved, group)
                raise
        return launched

    @staticmethod
    def _undo(saved: StateFile, group: Cgroup) -> Waiting[None]:
        try:
            group.kill()
            yield from group.deleting()
        except OSError:
            pass  # the reason for which we are here matters more; `delete` tries again
        saved.remove()

    def start(self, identifier: str) -> Waiting[None]:
        """Let a created container's program run; the errors of its exec are raised here."""
        saved = StateFile(self.root, identifier)
        found = self.status(identifier).status
        if found != "created":
            raise errors.FailedPrecondition(f"cannot start container {identifier!r}: it is {found}", object=identifier)
        connection = _connect(saved)
        saved.end_start()
        try:
            while True:
                yield connection.fileno()
                try:
                    data = connection.recv(65536)
                except ConnectionResetError:
                    continue  # told before what is still to be read
                if not data:
                    break
                message = fastjson.loads(data)
                if "error" in message:
                    raise launch.failure(message["error"])
        finally:
            connection.close()
        record, process, _ = saved.load()
        hooks = hooks_if_bundle(record, "poststart")
        if hooks and process is not None:
            yield from self._poststart(hooks, record, process)

    @classmethod
    def _poststart(cls, hooks: Sequence[Any], record: Record, process: Process) -> Waiting[None]:
        """The container does not outlive the failure of one (runtime-spec runtime.md#lifecycle, 9)."""
        state = hook_state(record, "running").replace('"pid":0', f'"pid":{process.pid}')
        try:
            yield from launch.run_hooks("poststart", hooks, state.encode())
        except errors.WherryError:
            yield from cls._end(record, process)
            raise

    def exec(
        self,
        identifier: str,
        exec_id: str,
        process: Mapping[str, Any],
        stdio: tuple[int, int, int],
        *,
        preserve: int = 0,
    ) -> Waiting[Launched]:
        """Run another process in a running container. `process`: an OCI Process object."""
        saved = StateFile(self.root, identifier)

        def record_it(started: Process) -> None:
            saved.add_exec(exec_id, started)

        try:
            return (yield from self.join(saved, lambda config: process, stdio, record_it, preserve=preserve))
        except errors.WherryError:
            # It was noted when it was born, and it never became what was asked for.
            saved.remove_exec(exec_id)
            raise

    def join(
        self,
        saved: StateFile,
        process_of: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        stdio: tuple[int, int, int],
        record_it: Callable[[Process], None],
        *,
        preserve: int = 0,
    ) -> Waiting[Launched]:
        """`exec`, of the process that `process_of` makes of the container's configuration, noted by `record_it`."""
        joined = yield from self.plan_join(saved, process_of)
        fds = [joined.pidfd]
        try:
            prepared = launch.Launch(
                flags=0,
                operations=joined.operations,
                stdio=stdio,
                trees={},
                pidfd=joined.pidfd,
                join_pid=joined.born_inside,
                preserve=preserve,
                terminal=joined.terminal,
                refork=joined.guarded,
                say_go=False,
                cgroup_fd=_open_cgroup(joined.group, self._version, fds),
            )
            return (yield from launch.launch_process(prepared, joined.group.entry_fds, record_it, self._forker))
        except OSError as error:
            raise errors.Internal(f"exec in container {saved.id}: {error}") from error
        finally:
            launch.close_all(fds)

    def plan_join(
        self, saved: StateFile, process_of: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    ) -> Waiting[Joining]:
        """What it takes to run a further process; its pidfd is the caller's to close."""
        record, init = self._running(saved)
        config = load_config(record.bundle)
        process = process_of(config)
        yield from filters.prepare(d.mapping(d.mapping(config, "linux"), "seccomp"), self._seccomp_cache)
        filter = process_plan.seccomp(d.mapping(d.mapping(config, "linux"), "seccomp"), self._seccomp_cache)
        operations = exec_plan.operations(config, process, record, self._bounding, filter)
        guarded = exec_plan.is_guarded(config)
        inside = bool(record.namespaces & namespaces.CLONE_NEWPID) and not guarded
        group = cgroup_room.cgroup(record.cgroup)
        try:
            pidfd = processes.pidfd_open(init.pid)
        except ProcessLookupError:
            pidfd = -1
        if pidfd < 0 or not init.is_alive():
            launch.close_all((pidfd,))
            raise errors.FailedPrecondition(f"container {saved.id!r} is not running", object=saved.id)
        return Joining(tuple(operations), group, pidfd, inside, guarded, bool(process.get("terminal")))

    # -- looking --------------------------------------------------------------------------------------------------
    def status(self, identifier: str) -> Status:
        """The container as it is now; NotFound."""
        saved = StateFile(self.root, identifier)
        record, process, ended = saved.load()
        if process is None:
            # Between intent and clone, or left so by a crash.
            return Status(record, "stopped" if ended else "creating", None, ended)
        if ended is not None or not process.is_alive():
            return Status(record, "stopped", process, ended)
        if saved.awaits_start():
            return Status(record, "created", process, None)
        frozen = cgroup_room.cgroup(record.cgroup).frozen()
        return Status(record, "paused" if frozen else "running", process, None)

    def list(self) -> list[Status]:
        """All of them; those that vanish meanwhile are left out."""
        found = []
        for identifier in list_ids(self.root):
            try:
                found.append(self.status(identifier))
            except errors.NotFound:
                continue
        return found

    def cgroup(self, identifier: str) -> Cgroup:
        """The container's cgroup."""
        return cgroup_room.cgroup(StateFile(self.root, identifier).load().record.cgroup)

    def processes(self, identifier: str) -> Sequence[int]:
        """Pids of all processes in the container, as seen from the host."""
        return self.cgroup(identifier).processes()

    def _running(self, saved: StateFile) -> tuple[Record, Process]:
        record, process, ended = saved.load()
        if process is None or ended is not None:
            raise errors.FailedPrecondition(f"container {saved.id!r} is not running", object=saved.id)
        return record, process

    # -- acting ---------------------------------------------------------------------------------------------------
    def kill(self, identifier: str, signal: int, *, all: bool = False) -> None:
        """Send a signal to the container's first process, or to all of them."""
        saved = StateFile(self.root, identifier)
        record, process = self._running(saved)
        if all:
            self._kill_all(record, signal)
            return
        try:
            pidfd = processes.pidfd_open(process.pid)
            try:
                if not process.is_alive():
                    raise ProcessLookupError
                processes.pidfd_send_signal(pidfd, signal)
            finally:
                os.close(pidfd)
        except ProcessLookupError:
            raise errors.FailedPrecondition(f"container {identifier!r} is not running", object=identifier) from None
        if signal == _SIGKILL:
            group = cgroup_room.cgroup(record.cgroup)
            if group.frozen():
                group.thaw()  # v1's freezer holds back SIGKILL as well

    @staticmethod
    def _kill_all(record: Record, signal: int) -> None:
        group = cgroup_room.cgroup(record.cgroup)
        if signal == _SIGKILL:
            group.kill()
            return
        for pid in group.processes():
            try:
                os.kill(pid, signal)
            except ProcessLookupError:
                pass

    def pause(self, identifier: str) -> Waiting[None]:
        """Freeze all of its processes."""
        record, _ = self._running(StateFile(self.root, identifier))
        yield from cgroup_room.cgroup(record.cgroup).freezing()

    def resume(self, identifier: str) -> None:
        """Undo pause."""
        record, _ = self._running(StateFile(self.root, identifier))
        cgroup_room.cgroup(record.cgroup).thaw()

    def update(self, identifier: str, resources: Mapping[str, Any]) -> None:
        """Apply an OCI `linux.resources` object; what it does not name stays."""
        self.cgroup(identifier).apply(resources)

    def finish(self, identifier: str, status: int) -> Exit:
        """Record that the container's process ended with a shell-style status (or -1)."""
        saved = StateFile(self.root, identifier)
        try:
            oom = cgroup_room.cgroup(saved.load().record.cgroup).oom_kills() > 0
        except OSError:
            oom = False
        ended = Exit(identifier, None, status, oom, time.time_ns())
        saved.add_exit(ended)
        return ended

    def delete(self, identifier: str, *, force: bool = False) -> Waiting[str]:
        """Remove what is left of a stopped container; with `force`, kill it first. NotFound when it is absent.

        Returns what poststop hooks failed: a warning, as the container is gone by then.
        """
        saved = StateFile(self.root, identifier)
        try:
            record = saved.load().record
        except errors.NotFound:
            saved.remove()  # claimed, and not yet written to, when a crash came
            raise
        found = self.status(identifier)
        if found.status not in ("stopped", "creating") and found.process is not None:
            if not force:
                hint = "kill it first, or force"
                message = f"cannot delete container {identifier!r} that is {found.status}"
                raise errors.FailedPrecondition(message, object=identifier, hint=hint)
            yield from self._end(record, found.process)
        group = cgroup_room.cgroup(record.cgroup)
        try:
            if group.processes():
                # Without a pid namespace of its own, children outlive the first process.
                group.kill()
            yield from group.deleting()
        except OSError as error:
            raise errors.Internal(f"delete container {identifier}: {error}") from error
        hooks = hooks_if_bundle(record, "poststop")
        saved.remove()
        try:
            yield from launch.run_hooks("poststop", hooks, hook_state(record, "stopped").encode())
        except errors.Internal as error:
            return str(error)
        return ""

    @staticmethod
    def _end(record: Record, process: Process) -> Waiting[None]:
        try:
            pidfd = processes.pidfd_open(process.pid)
        except ProcessLookupError:
            return
        try:
            if process.is_alive():
                processes.pidfd_send_signal(pidfd, _SIGKILL)
                cgroup_room.cgroup(record.cgroup).kill()
                yield pidfd
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)


def _open_cgroup(group: Cgroup, version: int, fds: list[int]) -> int:
    """The directory a process must be born in, on v2, where moving one later is slow; put into `fds` as well.

    On a hybrid host it stays out of v2's hierarchy, which has no controller there, and can be made in advance.
    """
    directory = group.enter_fd() if version == 2 else None
    if directory is None:
        return -1
    fds.append(directory)
    return directory


def _listen(saved: StateFile, fds: list[int]) -> int:
    """The start socket. Bound through the directory's descriptor: a path of any length fits sun_path so."""
    base = os.open(saved.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{base}/{saved.start_socket}")
        os.chmod(f"{saved.root}/{saved.start_socket}", 0o600)
        listener.listen(1)
        fds.append(listener.detach())
        return fds[-1]
    finally:
        listener.close()
        os.close(base)


def _connect(saved: StateFile) -> _socket.socket:
    base = os.open(saved.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{base}/{saved.start_socket}")
        return connection
    except OSError as error:
        connection.close()
        raise errors.FailedPrecondition(f"container {saved.id!r} cannot be started: {error}", object=saved.id) from None
    finally:
        os.close(base)
