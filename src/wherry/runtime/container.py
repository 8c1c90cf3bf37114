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
from wherry.runtime import exec_plan, launch, plan
from wherry.runtime.state import Exit, Process, Record, StateFile, list_ids
from wherry.spec import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NamedTuple

    from wherry.kernel.cgroups import Cgroup
    from wherry.runtime.launch import Launched, Waiting
    from wherry.spec.mount import Mount
else:
    from wherry.kernel.tuples import NamedTuple

_SIGKILL = 9


class Status(NamedTuple):
    """A container as it is now."""

    record: Record
    status: str  # "creating" | "created" | "running" | "paused" | "stopped"
    process: Process | None
    exit: Exit | None


class Runtime:
    """Containers under one root directory. Methods that wait are generators (launch.py).

    The process that makes one cannot be traced or looked into from then on, and so neither can what it forks
    (CVE-2016-9962).
    """

    def __init__(self, root: str) -> None:
        processes.prctl(processes.PR_SET_DUMPABLE, 0)
        self.root = root
        os.makedirs(root, 0o711, exist_ok=True)
        self._bounding = capabilities.bounding()
        self._version = cgroup_room.layout().version

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
        group = _cgroup(config, identifier)
        host = plan.Host(self._bounding, dict(group.paths), self._version)
        made = plan.build(config, identifier, bundle, layers, host, wait=wait, choices=choices)
        record = _record(config, identifier, bundle)
        saved.create(record)
        fds: list[int] = []
        try:
            group.create()
            if made.resources:
                group.apply(_with_default_devices(made.resources))
            prepared = self._prepare(made, group, saved, wait, fds)
            launched = yield from launch.launch_process(
                prepared._replace(
                    stdio=stdio, preserve=preserve, state=_hook_state(record, "creating"), oom_score=made.oom_score
                ),
                saved.add_process,
            )
        except BaseException as error:
            self._undo(saved, group)
            if isinstance(error, OSError):
                raise errors.Internal(f"create container {identifier}: {error}") from error
            raise
        finally:
            launch.close_all(fds)
        if not wait and made.hooks["poststart"]:
            yield from self._poststart(identifier, made.hooks["poststart"], record, launched.process)
        return launched

    def _prepare(self, made: plan.Plan, group: Cgroup, saved: StateFile, wait: bool, fds: list[int]) -> launch.Launch:
        """Open all the child needs; every descriptor is put into `fds` as well."""
        cgroup_fd = group.enter_fd()
        if cgroup_fd is not None:
            fds.append(cgroup_fd)
        entries = group.entry_fds()
        fds += entries
        trees: dict[str, int] = {}
        for preparation in made.preparations:
            opened = preparation.make()
            trees.update(opened)
            fds += opened.values()
        start = -1
        if wait:
            start = _listen(saved)
            fds.append(start)
        return launch.Launch(
            flags=made.clone_flags,
            operations=made.operations,
            stdio=(-1, -1, -1),
            trees=trees,
            cgroup_fd=-1 if cgroup_fd is None else cgroup_fd,
            cgroup_entries=entries,
            uid_map=made.uid_map,
            gid_map=made.gid_map,
            start_socket=start,
            hooks=made.hooks["prestart"] + made.hooks["createRuntime"],
        )

    @staticmethod
    def _undo(saved: StateFile, group: Cgroup) -> None:
        try:
            group.kill()
            group.delete()
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
                    break
                if not data:
                    break
                message = fastjson.loads(data)
                if "error" in message:
                    raise launch.failure(message["error"])
        finally:
            connection.close()
        record, process, _ = saved.load()
        hooks = _hooks_if_bundle(record, "poststart")
        if hooks and process is not None:
            yield from self._poststart(identifier, hooks, record, process)

    @staticmethod
    def _poststart(identifier: str, hooks: Sequence[Any], record: Record, process: Process) -> Waiting[None]:
        state = _hook_state(record, "running").replace(b'"pid":0', b'"pid":%d' % process.pid)
        yield from launch.run_hooks("poststart", hooks, state)

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
        record, init = self._running(saved)
        config = load_config(record.bundle)
        group = cgroup_room.cgroup(record.cgroup)
        pidfd = processes.pidfd_open(init.pid)
        fds = [pidfd]
        try:
            if not init.is_alive():
                raise errors.FailedPrecondition(f"container {identifier!r} is not running", object=identifier)
            made = exec_plan.build(config, process, record, pidfd, self._bounding)
            cgroup_fd = group.enter_fd()
            entries = group.entry_fds()
            fds += entries if cgroup_fd is None else [*entries, cgroup_fd]
            return (
                yield from launch.launch_process(
                    launch.Launch(
                        flags=0,
                        operations=made.operations,
                        stdio=stdio,
                        trees={},
                        cgroup_fd=-1 if cgroup_fd is None else cgroup_fd,
                        cgroup_entries=entries,
                        join_pid=pidfd if made.born_inside else -1,
                        preserve=preserve,
                        keep=(pidfd,),
                        say_go=False,
                    ),
                    lambda started: saved.add_exec(exec_id, started),
                )
            )
        except OSError as error:
            saved.remove_exec(exec_id)
            raise errors.Internal(f"exec in container {identifier}: {error}") from error
        except errors.WherryError:
            # It was noted when it was born, and it never became what was asked for.
            saved.remove_exec(exec_id)
            raise
        finally:
            launch.close_all(fds)

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

    def pause(self, identifier: str) -> None:
        """Freeze all of its processes."""
        record, _ = self._running(StateFile(self.root, identifier))
        cgroup_room.cgroup(record.cgroup).freeze()

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

    def delete(self, identifier: str, *, force: bool = False) -> Waiting[None]:
        """Remove what is left of a stopped container; with `force`, kill it first. NotFound when it is absent."""
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
            group.delete()
        except OSError as error:
            raise errors.Internal(f"delete container {identifier}: {error}") from error
        hooks = _hooks_if_bundle(record, "poststop")
        saved.remove()
        if hooks:
            yield from launch.run_hooks("poststop", hooks, _hook_state(record, "stopped"))

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


def load_config(bundle: str) -> dict[str, Any]:
    """`<bundle>/config.json`; InvalidArgument when it is none."""
    path = f"{bundle}/config.json"
    try:
        with open(path, "rb") as file:
            config = fastjson.loads(file.read())
    except FileNotFoundError:
        raise errors.NotFound(f"{path} does not exist", object=bundle, hint="a bundle has a config.json") from None
    except ValueError as error:
        raise errors.InvalidArgument(f"{path}: {error}") from None
    if not isinstance(config, dict):
        raise errors.InvalidArgument(f"{path}: not an object")
    if not d.string(config, "ociVersion").startswith("1."):
        raise errors.InvalidArgument(f"{path}: ociVersion must be 1.x")
    return config


def _cgroup(config: Mapping[str, Any], identifier: str) -> Cgroup:
    return cgroup_room.cgroup(_cgroup_path(config, identifier))


def _cgroup_path(config: Mapping[str, Any], identifier: str) -> str:
    path = d.string(d.mapping(config, "linux"), "cgroupsPath", "", "linux.") or identifier
    if path.count(":") == 2 and "/" not in path:
        # systemd's notation "slice:prefix:name", for hosts without systemd's help: the same place by hand.
        slice_, prefix, name = path.split(":")
        path = f"/{slice_ or 'system.slice'}/{prefix}-{name}.scope"
    return path


def _record(config: Mapping[str, Any], identifier: str, bundle: str) -> Record:
    linux = d.mapping(config, "linux")
    kinds = [d.string(entry, "type") for entry in d.items(linux, "namespaces", "linux.")]
    flags = sum([namespaces.FLAG_OF[kind] for kind in set(kinds)])
    now = time.time()
    created = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e9):09d}Z"
    annotations = {key: str(value) for key, value in d.mapping(config, "annotations").items()}
    root = d.string(d.mapping(config, "root"), "path")
    rootfs = root if root.startswith("/") else f"{bundle}/{root}"
    path = _cgroup_path(config, identifier)
    version = d.string(config, "ociVersion")
    return Record(identifier, bundle, rootfs, path, flags, "user" in kinds, created, annotations, version)


def state_document(status: Status) -> dict[str, Any]:
    """What `state` prints (runtime-spec runtime.md#state)."""
    record = status.record
    return {
        "ociVersion": record.spec_version,
        "id": record.id,
        "status": status.status,
        "pid": status.process.pid if status.process is not None and status.status != "stopped" else 0,
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "annotations": record.annotations,
    }


def _hook_state(record: Record, status: str) -> bytes:
    return fastjson.dumps(state_document(Status(record, status, None, None))).encode()


def _hooks_if_bundle(record: Record, point: str) -> Sequence[Any]:
    try:
        return plan.hooks_of(load_config(record.bundle), point)
    except errors.WherryError:
        return ()  # the bundle is its maker's, who may have removed it


def _with_default_devices(resources: Mapping[str, Any]) -> Mapping[str, Any]:
    if not resources.get("devices"):
        return resources
    return {**resources, "devices": [*resources["devices"], *cgroup_room.DEFAULT_DEVICES]}


def _listen(saved: StateFile) -> int:
    """The start socket. Bound through the directory's descriptor: a path of any length fits sun_path so."""
    base = os.open(saved.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{base}/{saved.start_socket}")
        os.chmod(f"{saved.root}/{saved.start_socket}", 0o600)
        listener.listen(1)
        return listener.detach()
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
