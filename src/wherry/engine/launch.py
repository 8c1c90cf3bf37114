"""Starting a container: network, files, streams, then one call to the monitor. On any failure nothing is left.

What blocks runs in a thread, beside the opening of the log; the result is written when all is done.
"""

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from wherry.engine import apparmor, attachments, device_requests, files, hostfiles, mounting, remapped, shared_memory
from wherry.engine.config import DaemonConfig
from wherry.engine.container import Container, Run
from wherry.engine.copies import finish_copies
from wherry.engine.core import Core
from wherry.engine.oci_spec import Inputs, write_spec
from wherry.engine.output import log_target
from wherry.engine.parts import Started, Stdio
from wherry.engine.security import apparmor_profile, parse_security_options
from wherry.engine.userns import remap_of
from wherry.engine.users import Identity, identify, read_accounts
from wherry.errors import (
    Conflict,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    WherryError,
)
from wherry.logs.client import Streams
from wherry.logs.target import LogTarget
from wherry.network.endpoint import EndpointRequest, PortRequest
from wherry.spec.docker import HostConfig

log = logging.getLogger(__name__)
_PREFIX = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "unable to start container process: "
)


@dataclass(slots=True)
class _Pipes:
    """Both ends of a container's streams; whoever holds this closes them."""

    ours: Streams = Streams(None, None, None, None)
    theirs: Stdio = field(default_factory=Stdio)

    def close(self) -> None:
        for fd in (*self.ours, *self.theirs):
            if fd is not None:
                os.close(fd)
        self.ours, self.theirs = Streams(None, None, None, None), Stdio()


async def start(core: Core, container: Container, *, by_policy: bool = False) -> None:
    """Run it; the caller holds its lock and has seen that it does not run. Raises as docker words it."""
    if container.release is not None:
        await container.release
    if container.copies:
        await finish_copies(container)
    before = container.state
    run = container.run = Run()
    restarts = before.restart_count if by_policy else 0
    if not by_policy:
        container.delay = 0.0
    # In memory only: what a crash leaves of a start is known by the container's id, and its record says that it does
    # not run, so reconciliation undoes it.
    container.set_state(status="starting", error="", restart_count=restarts, stopped_by_user=False, oom_killed=False)
    pipes = _Pipes()
    try:
        started = await _launch(core, container, pipes)
    except (WherryError, OSError) as error:
        await _undo(core, container, run, error)
        raise _worded(error) from None
    finally:
        pipes.close()
    os.close(started.pidfd)
    container.set_state(
        status="running",
        pid=started.pid,
        process_start=started.start_time,
        exit_code=0,
        started_ns=time.time_ns(),
        finished_ns=before.finished_ns,
        endpoints=attachments.stored(container.endpoints),
    )
    core.save_state(container)
    for endpoint in container.endpoints:
        attachments.announce(core, container, endpoint, "connect")
    core.emit(container, "start")
    core.health.begin(container)


async def _launch(core: Core, container: Container, pipes: _Pipes) -> Started:
    monitor, logger = await core.backends.monitor(), await core.backends.logger()
    definition = container.definition
    inputs = _joined(core, container)
    _make_pipes(container, pipes)
    target = log_target(core, container)
    core.whole_logs.discard(container.id)
    late = remapped.connects_late(core, definition.host)
    steps = [_prepare_and_connect(core, container, inputs, pipes.theirs, late=late)]
    if not definition.config.tty:
        steps.append(logger.open(container.id, target, pipes.ours))
    await _all(*steps)
    rootfs = core.parts.snapshots.mounts(container.id)
    run = container.run
    assert run is not None
    run.keep(_lasting(container, pipes.ours))
    if inputs.remap is not None:
        rootfs = remapped.map_layers(rootfs)
    arguments = (container.id, core.bundle(container.id), rootfs, pipes.theirs, run.kept.held())
    if late:
        requests = attachments.requests(definition)

        async def connect(netns: str) -> None:
            work = partial(_connect_blocking, core, container, requests, netns)
            await _connect(core, container, work, work)

        started = await remapped.run(monitor, *arguments, connect)
    else:
        started = await monitor.run(*arguments)
    if definition.config.tty:
        await _open_console(core, container, started, target)
    elif core.backends.current_logger is not logger:
        # It was lost since it was given these streams, and its successor could not know of them yet.
        await (await core.backends.logger()).open(container.id, target, pipes.ours)
    return started


def _lasting(container: Container, ours: Streams) -> Streams:
    """What must outlive a logger: an input that ends with its client ends with the logger too."""
    return ours._replace(stdin=None) if container.definition.config.stdin_once else ours


async def _open_console(core: Core, container: Container, started: Started, target: LogTarget) -> None:
    console = started.console
    if console is None:
        raise Internal("the monitor gave no console", object=container.id)
    try:
        logger = await core.backends.logger()
        streams = Streams(None, None, None, console)
        await logger.open(container.id, target, streams)
        if container.run is not None:
            container.run.keep(streams)
    except WherryError:
        os.close(started.pidfd)
        raise
    finally:
        os.close(console)


async def _all(*steps: Coroutine[Any, Any, None]) -> None:
    """Everything has ended when this returns or raises."""
    results = await asyncio.gather(*steps, return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    if failures:
        raise failures[0]


def _make_pipes(container: Container, pipes: _Pipes) -> None:
    config = container.definition.config
    if config.tty:
        return
    stdin = os.pipe() if config.open_stdin else (None, None)
    pipes.ours, pipes.theirs = Streams(stdin[1], None, None, None), Stdio(stdin[0])
    out = os.pipe()
    pipes.ours, pipes.theirs = pipes.ours._replace(stdout=out[0]), pipes.theirs._replace(stdout=out[1])
    err = os.pipe()
    pipes.ours, pipes.theirs = pipes.ours._replace(stderr=err[0]), pipes.theirs._replace(stderr=err[1])


def has_init(host: HostConfig, config: DaemonConfig) -> bool:
    """As docker has it: where PID 1 is somebody else's, no init is run."""
    return (config.init if host.init is None else host.init) and not host.pid_mode


def _joined(core: Core, container: Container) -> Inputs:
    """Which namespaces it joins, found on the loop's thread where containers may be looked at."""
    definition = container.definition
    host = definition.host
    namespaces: dict[str, str] = {}
    shm = str(shared_memory.directory(core.config, container.id)) if host.ipc_mode == "shareable" else None
    remap = remap_of(host, core.remap)
    joined: list[Container] = []
    for kind, mode in (("pid", host.pid_mode), ("ipc", host.ipc_mode)):
        if mode.startswith("container:"):
            other = _running(core, mode, f"joining {kind.upper()} namespace of container")
            joined.append(other)
            if kind == "ipc":
                shm = _shared_memory_of(core, other)
            namespaces[kind] = f"/proc/{other.state.pid}/ns/{kind}"
        elif mode != "host":
            namespaces[kind] = ""
    files_of = container
    if host.network_mode.startswith("container:"):
        files_of = _running(core, host.network_mode, "joining network namespace of container")
        if files_of.definition.host.network_mode != "host":
            namespaces["network"] = f"/proc/{files_of.state.pid}/ns/net"
            joined.append(files_of)
    directory = core.directory(files_of.id)
    files = {f"/etc/{name}": str(directory / name) for name in hostfiles.NAMES}
    hostname = files_of.definition.config.hostname or os.uname().nodename
    return Inputs(
        identity=Identity(0, 0, (0,), "/"),
        hostname=hostname,
        cgroup_path=core.cgroup_path(container),
        namespaces=namespaces,
        files=files,
        shm=shm,
        default_ulimits=core.config.default_ulimits,
        default_shm_size=core.config.default_shm_size,
        init=has_init(host, core.config),
        remap=remap,
        user_namespace=remapped.joined_namespace(
            remap,
            [(c.id, c.state.pid, remap_of(c.definition.host, core.remap) is not None) for c in joined],
        )
        if core.remap
        else "",
    )


def _running(core: Core, mode: str, doing: str) -> Container:
    try:
        other = core.index.find(mode.removeprefix("container:"))
    except NotFound as error:
        raise Internal(f"{doing}: {error.message}") from None
    if not other.state.pid or other.state.status not in ("running", "paused"):
        raise FailedPrecondition(f"{doing}: cannot join namespace of a non running container: {other.id}")
    return other


def _shared_memory_of(core: Core, other: Container) -> str:
    mode = other.definition.host.ipc_mode
    if mode == "host":
        return "/dev/shm"
    if mode != "shareable":
        raise FailedPrecondition(
            f"can't join IPC of container {other.id}: non-shareable IPC",
            object=other.id,
            hint="use IpcMode:shareable for the donor container",
        )
    return str(shared_memory.directory(core.config, other.id))


async def _prepare_and_connect(core: Core, container: Container, inputs: Inputs, theirs: Stdio, *, late: bool) -> None:
    # One after the other in one thread: both are short system calls in great number, and two threads that make such
    # spend more time handing the interpreter's lock to each other than the calls take.
    connects = not late and not container.definition.host.network_mode.startswith("container:")
    requests = attachments.requests(container.definition) if connects else None

    def work() -> None:
        _prepare(core, container, inputs, theirs)
        if requests is not None:
            _connect_blocking(core, container, requests)

    if requests is None:
        await asyncio.to_thread(work)
    else:
        await _connect(core, container, work, partial(_connect_blocking, core, container, requests))


async def _connect(core: Core, container: Container, work: Callable[[], None], again: Callable[[], None]) -> None:
    """`work`, or else `again`, connects it, in a thread."""
    try:
        await asyncio.to_thread(work)
    except Conflict:
        # A port may still belong to a container whose exit is being cleaned up.
        if not await core.released():
            raise
        await asyncio.to_thread(again)
    # Not from there: threads that wait for the resolver would keep the one from running that starts it.
    await core.naming.publish(container)


def _connect_blocking(
    core: Core,
    container: Container,
    requests: tuple[tuple[EndpointRequest, ...], tuple[PortRequest, ...]],
    given: str = "",
) -> None:
    """In a thread."""
    endpoints = container.endpoints = tuple(core.parts.networks.connect_all(container.id, *requests, given))
    definition = container.definition
    gateway = attachments.host_gateway(core, definition)
    hostfiles.write_network_files(core.directory(container.id), definition, core.config, endpoints, gateway)


def _prepare(core: Core, container: Container, inputs: Inputs, theirs: Stdio) -> None:
    """In a thread: the bundle, and the files that do not wait for the network."""
    definition = container.definition
    if not definition.host.network_mode.startswith("container:"):
        hostfiles.write_hostname(core.directory(container.id), inputs.hostname)
    definition = mounting.acquire(core, definition)
    namespaces = dict(inputs.namespaces)
    mode = definition.host.network_mode
    if mode == "none":
        namespaces["network"] = ""  # a new one
    elif remapped.connects_late(core, definition.host):
        namespaces["network"] = ""
        remapped.prepare_files(core.directory(container.id))
    elif mode != "host" and not mode.startswith("container:"):
        namespaces["network"] = str(core.config.exec_root / "netns" / container.id)
    if definition.host.ipc_mode == "shareable":
        shared_memory.make(core.config, container.id, definition.host.shm_size or core.config.default_shm_size)
    requests = definition.host.device_requests
    edits = device_requests.resolve(requests, core.cdi) if requests else None
    profile = apparmor_profile(parse_security_options(definition.host.security_opt), definition.host.privileged)
    if profile:
        apparmor.require(profile)
    identity = find_identity(core, container, definition.config.user)
    if inputs.remap is not None:
        remapped.own_streams(theirs, inputs.remap.host_uid(identity.uid))
    complete = replace(inputs, identity=identity, namespaces=namespaces, edits=edits)
    bundle = core.bundle(container.id)
    os.makedirs(bundle / "rootfs", mode=0o711, exist_ok=True)
    fd = os.open(bundle / "config.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(write_spec(definition, complete))


def find_identity(core: Core, container: Container, user: str) -> Identity:
    """Who `user` is in it: by the image's files while nothing can have changed them, else by its own.

    In a thread: opening the root mounts it.
    """
    definition, state = container.definition, container.state
    fresh = not state.started_ns and not state.changed
    known = core.accounts.get(definition.chain or "") if fresh else None
    if known is None:
        with files.opened_root(core, container) as root:
            known = read_accounts(root)
        if fresh:
            core.accounts[definition.chain or ""] = known
    return identify(user, definition.host.group_add or (), known)


async def _undo(core: Core, container: Container, run: Run, error: Exception) -> None:
    """Nothing of the attempt is left; the container keeps its error and exit code, as docker's does."""
    await clean_up(core, container)
    container.run = None
    run.let_go()
    container.set_state(
        status="exited" if container.state.started_ns else "created",
        pid=0,
        exit_code=_exit_code(error),
        error=str(_worded(error)),
        finished_ns=container.state.finished_ns,
        endpoints=(),
    )
    core.save_state(container)
    if not run.ended.done():
        run.ended.set_result(container.outcome())
    container.wake("not-running", "next-exit")


async def clean_up(core: Core, container: Container) -> None:
    """Undo whatever of a start there may be."""
    try:
        await (await core.backends.monitor()).delete(container.id, force=True)
        await (await core.backends.logger()).close(container.id)
    except WherryError as error:
        # It is found by the next reconciliation: the record says that the container does not run.
        log.warning("cleaning up after a failed start of %s: %s", container.id, error)
    core.naming.withdraw(container.id)
    await asyncio.to_thread(_clean_up_blocking, core, container)


def _clean_up_blocking(core: Core, container: Container) -> None:
    give_back(core, container)
    container.endpoints = ()
    shutil.rmtree(core.bundle(container.id), ignore_errors=True)


def _exit_code(error: Exception) -> int:
    if isinstance(error, NotFound) and _is_exec_failure(error):
        return 127
    if isinstance(error, PermissionDenied) and _is_exec_failure(error):
        return 126
    return 128


def _is_exec_failure(error: WherryError) -> bool:
    return "exec: " in error.message


def _worded(error: Exception) -> Exception:
    """A failure to execute in docker's words: clients look for them to choose their own exit code."""
    if isinstance(error, NotFound | PermissionDenied) and _is_exec_failure(error):
        text = error.message if error.message.startswith(_PREFIX) else _PREFIX + error.message
        return InvalidArgument(text, object=error.object, hint=error.hint)
    if isinstance(error, OSError):
        return Internal(f"starting the container failed: {error}")
    return error


def give_back(core: Core, container: Container) -> None:
    """In a thread: what a container has only while it runs. What it does not have is no error."""
    core.parts.networks.disconnect(container.id)
    mounting.release(core, container.definition)
    if container.definition.host.ipc_mode == "shareable":
        shared_memory.remove(core.config, container.id)
