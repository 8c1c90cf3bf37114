"""Further processes in running containers: noted by create, run by start. Their streams go straight to the daemon."""

import asyncio
import fcntl
import os
import re
import secrets
import struct
import termios
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from wherry.engine import launch
from wherry.engine.container import Container
from wherry.engine.core import Core
from wherry.engine.exec_streams import ExecStream, FailedStream, PipeStream
from wherry.engine.lifecycle import not_running
from wherry.engine.oci_spec import capability_sets, environment, rlimits, user_document
from wherry.engine.parts import Exit, Stdio
from wherry.engine.remapped import own_streams
from wherry.engine.security import apparmor_profile, capabilities, parse_security_options, supported_capabilities
from wherry.engine.userns import remap_of
from wherry.engine.users import Identity
from wherry.errors import Conflict, InvalidArgument, NotFound, PermissionDenied, WherryError
from wherry.spec.docker import ExecConfig

__all__ = ["ExecStream", "Execs"]

# Of those that ended, for inspect: docker keeps them for minutes.
_KEPT = 512


@dataclass(slots=True)
class _Exec:
    id: str
    container: Container
    config: ExecConfig
    tty: bool = False
    running: bool = False
    started: bool = False
    exit_code: int | None = None
    pid: int = 0
    console: int = -1
    stream: PipeStream | None = None
    ended: "asyncio.Future[int]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Execs:
    """Every operation on execs; `id` is an exec's full id."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._execs: dict[str, _Exec] = {}
        self._ended: deque[str] = deque()

    async def create(self, container: str, config: ExecConfig) -> str:
        """Note an exec; its id. NotFound: no such container. Conflict: it does not run, or is paused."""
        found = self._core.index.find(container)
        _check_running(found, container)
        if not config.cmd:
            raise InvalidArgument("No exec command specified")
        for item in config.env or ():
            if not item or item.startswith("=") or "\0" in item:
                raise InvalidArgument(f"invalid environment variable: {item}", object=item)
        if not config.user.replace(":", "").isdecimal() and config.user:
            # A name that nobody has is the creation's error, as docker's clients expect.
            await asyncio.to_thread(identify_running, self._core, found, config.user)
        id = secrets.token_hex(32)
        self._execs[id] = _Exec(id, found, config, config.tty)
        if found.execs is None:
            found.execs = set()
        found.execs.add(id)
        self._emit(self._execs[id], "exec_create: " + " ".join(config.cmd))
        return id

    async def start(
        self, id: str, *, detach: bool = False, tty: bool = False, console_size: tuple[int, int] | None = None
    ) -> ExecStream | None:
        """Run it; None when detached. `console_size`: (height, width). With `tty` its output comes raw, else in frames:
        docker goes by the start's word here, whatever the exec was created with.
        """
        noted = self._find(id)
        if noted.started:
            raise Conflict(f"Error: Exec command {id} has already run", object=id)
        _check_running(noted.container, noted.container.id)
        noted.started = True
        try:
            stream = await self._run(noted, detach=detach, raw=tty, console_size=console_size)
        except WherryError as error:
            noted.exit_code = _exit_code(error)
            self._end(noted)
            if detach:
                raise _worded(error) from None
            # docker has taken the connection over by now, so the failure goes where the output would have gone.
            return FailedStream(tty, f"{_worded(error).message}\r\n".encode(), noted.exit_code)
        self._emit(noted, "exec_start: " + " ".join(noted.config.cmd or ()))
        return stream

    async def _run(
        self, noted: _Exec, *, detach: bool, raw: bool, console_size: tuple[int, int] | None
    ) -> PipeStream | None:
        config, monitor = noted.config, await self._core.backends.monitor()
        identity = await self._identify(noted)
        process = self._process(noted, identity, console_size)
        ours: list[int | None] = [None, None, None]
        theirs: list[int | None] = [None, None, None]
        if not noted.tty and not detach:
            for index, wanted in enumerate((config.attach_stdin, config.attach_stdout, config.attach_stderr)):
                if wanted:
                    read, write = os.pipe()
                    ours[index], theirs[index] = (write, read) if index == 0 else (read, write)
        stream = None
        remap = remap_of(noted.container.definition.host, self._core.remap)
        if remap is not None:
            own_streams(Stdio(*theirs), remap.host_uid(identity.uid))
        try:
            started = await monitor.exec(noted.container.id, noted.id, process, Stdio(*theirs))
        except BaseException:
            _close(*ours)
            raise
        finally:
            _close(*theirs)
        os.close(started.pidfd)
        noted.pid, noted.running = started.pid, True
        if started.console is not None:
            noted.console = started.console
        if not detach:
            if noted.tty:
                console = os.dup(noted.console)
                ours = [os.dup(console) if config.attach_stdin else None, console, None]
            stream = PipeStream(ours, raw, noted.ended)
            noted.stream = stream
        elif noted.tty:
            # Somebody must read what a detached terminal prints, or its process would stop at a full buffer.
            PipeStream([None, os.dup(noted.console), None], True, noted.ended).discard()
        if noted.ended.done():
            self._end(noted)
        return stream

    async def _identify(self, noted: _Exec) -> Identity:
        user = noted.config.user or noted.container.definition.config.user
        return await asyncio.to_thread(identify_running, self._core, noted.container, user)

    def _process(self, noted: _Exec, identity: Identity, size: tuple[int, int] | None) -> dict[str, Any]:
        config, definition = noted.config, noted.container.definition
        host = definition.host
        bounding = capabilities(host.cap_add or (), host.cap_drop or (), host.privileged)
        if config.privileged:
            bounding = supported_capabilities()
        hostname = definition.config.hostname or os.uname().nodename
        env = environment(definition, hostname, identity.home, config.env or ())
        if noted.tty and not any(item.startswith("TERM=") for item in env):
            env.append("TERM=xterm")
        document: dict[str, Any] = {
            "terminal": noted.tty,
            "user": user_document(identity),
            "args": list(config.cmd or ()),
            "env": env,
            "cwd": config.working_dir or definition.config.working_dir or "/",
            "capabilities": capability_sets(bounding, identity.uid),
            "noNewPrivileges": parse_security_options(host.security_opt).no_new_privileges,
        }
        profile = apparmor_profile(parse_security_options(host.security_opt), host.privileged or config.privileged)
        if profile:
            document["apparmorProfile"] = profile
        limits = rlimits(host.ulimits or (), self._core.config.default_ulimits)
        if limits:
            document["rlimits"] = limits
        wanted = size or (tuple(config.console_size) if config.console_size and len(config.console_size) == 2 else None)
        if noted.tty and wanted and all(wanted):
            document["consoleSize"] = {"height": wanted[0], "width": wanted[1]}
        return document

    def detached(self, id: str) -> None:
        """A client left its streams by the keys for it."""
        self._emit(self._find(id), "exec_detach")

    async def resize(self, id: str, height: int, width: int) -> None:
        """Set the size of its terminal."""
        noted = self._find(id)
        if not noted.running or noted.console < 0:
            raise Conflict(f"exec {id} is not running with a terminal", object=id)
        fcntl.ioctl(noted.console, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    async def inspect(self, id: str) -> dict[str, Any]:
        """Docker's exec inspect document."""
        noted = self._find(id)
        config = noted.config
        command = config.cmd or ("",)
        return {
            "ID": id,
            "Running": noted.running,
            "ExitCode": noted.exit_code,
            "ProcessConfig": {
                "tty": noted.tty,
                "entrypoint": command[0],
                "arguments": list(command[1:]),
                "privileged": config.privileged,
                **({"user": config.user} if config.user else {}),
            },
            "OpenStdin": config.attach_stdin,
            "OpenStderr": config.attach_stderr,
            "OpenStdout": config.attach_stdout,
            "CanRemove": noted.exit_code is not None,
            "ContainerID": noted.container.id,
            "DetachKeys": config.detach_keys,
            "Pid": noted.pid,
        }

    def of(self, container: Container) -> list[str]:
        """The ids of those that have not ended."""
        return sorted(container.execs or ())

    def on_exit(self, exit: Exit) -> None:
        """The monitor says that one ended."""
        noted = self._execs.get(exit.exec_id or "")
        if noted is None or noted.exit_code is not None:
            return
        noted.exit_code = exit.status if exit.status >= 0 else 255
        if not noted.ended.done():
            noted.ended.set_result(noted.exit_code)
        self._emit(noted, "exec_die", exitCode=str(noted.exit_code))
        if noted.running:
            self._end(noted)

    def drop(self, container: Container) -> None:
        """Its container ended: what the monitor did not report by now ended with it."""
        for id in list(container.execs or ()):
            noted = self._execs.get(id)
            if noted is None:
                continue
            if noted.exit_code is None:
                noted.exit_code = 137 if noted.started else None
            if noted.started and not noted.ended.done():
                noted.ended.set_result(137)
            self._end(noted)

    def _end(self, noted: _Exec) -> None:
        noted.running = False
        if noted.console >= 0:
            os.close(noted.console)
            noted.console = -1
        noted.stream = None
        (noted.container.execs or set()).discard(noted.id)
        self._ended.append(noted.id)
        # Each has a hold on its container: those of removed ones, of which nobody can ask, go first.
        while len(self._ended) > _KEPT or self._ended[0] not in self._execs or self._is_orphan(self._ended[0]):
            self._execs.pop(self._ended.popleft(), None)
            if not self._ended:
                break

    def _is_orphan(self, id: str) -> bool:
        return self._execs[id].container.id not in self._core.index

    def _find(self, id: str) -> _Exec:
        found = self._execs.get(id)
        if found is None:
            raise NotFound(f"No such exec instance: {id}", object=id)
        return found

    def _emit(self, noted: _Exec, action: str, **attributes: str) -> None:
        self._core.emit(noted.container, action, execID=noted.id, **attributes)


def identify_running(core: Core, container: Container, user: str) -> Identity:
    """In a thread."""
    return launch.find_identity(core, container, user)


def _check_running(container: Container, reference: str) -> None:
    if container.state.status == "paused":
        raise Conflict(f"Container {reference} is paused, unpause the container before exec", object=reference)
    if container.state.status == "restarting":
        raise Conflict(f"Container {reference} is restarting, wait until the container is running", object=reference)
    if container.state.status != "running":
        raise not_running(container)


_OF_THE_RUNTIME = re.compile(r"exec: |chdir to cwd ")


def _exit_code(error: WherryError) -> int:
    return 127 if isinstance(error, NotFound) or error.message.endswith("no such file or directory") else 126


def _worded(error: WherryError) -> WherryError:
    if isinstance(error, NotFound | PermissionDenied | InvalidArgument) and _OF_THE_RUNTIME.search(error.message):
        return InvalidArgument(
            f"OCI runtime exec failed: exec failed: unable to start container process: {error.message}",
            object=error.object,
            hint=error.hint,
        )
    return error


def _close(*descriptors: int | None) -> None:
    for fd in descriptors:
        if fd is not None:
            os.close(fd)
