"""From a plan to a running process: the clone, the child's work, and the conversation between the two.

The functions that wait are generators: they yield what they wait for (waiting.py). So the monitor can start many
containers at a time in one thread, and a command simply polls (`drive`).
"""

from __future__ import annotations

import _socket
import os
import select

from wherry import errors
from wherry.ipc import seqpacket
from wherry.kernel import namespaces, processes, syscalls
from wherry.runtime import child, transfer
from wherry.runtime import hooks as hook_module
from wherry.runtime.idmap import write_maps
from wherry.runtime.rootfs import require_null
from wherry.runtime.scene import Scene
from wherry.runtime.state import Process
from wherry.runtime.waiting import drive as drive
from wherry.spec import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, NamedTuple

    from wherry.runtime.forker import Forker
    from wherry.runtime.scene import Operation
    from wherry.runtime.waiting import Waiting
else:
    from wherry.kernel.tuples import NamedTuple

_SIGCHLD = 17
_SIGKILL = 9
_BIRTH_TIMEOUT = 5.0


class Launch(NamedTuple):
    """What to clone and what the child needs. Descriptors stay the caller's."""

    flags: int
    operations: Sequence[Operation]
    stdio: tuple[int, int, int]
    trees: dict[str, int]
    cgroup_fd: int  # -1: none
    uid_map: str = ""
    gid_map: str = ""
    pidfd: int = -1  # of the process whose namespaces are joined
    join_pid: bool = False  # the child is born in its pid namespace
    start_socket: int = -1
    preserve: int = 0
    state: str = ""  # what hooks read
    hooks: tuple[hook_module.Hook, ...] = ()  # createRuntime, run here
    oom_score: int | None = None
    terminal: bool = False
    refork: bool = False  # the process will be a child of the first one's
    say_go: bool = True


class Launched(NamedTuple):
    """A process that runs the program, or waits for its start."""

    process: Process
    pidfd: int
    console: int  # -1: none
    warnings: tuple[str, ...]


_null = -1


def null_device() -> int:
    """The host's /dev/null, verified, opened once."""
    global _null
    if _null < 0:
        fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        require_null(fd)
        _null = fd
    return _null


def _clone(launch: Launch) -> int:
    if not launch.join_pid:
        return _plain_clone(launch)
    own = namespaces.open_namespace("self", "pid")
    namespaces.setns(launch.pidfd, namespaces.CLONE_NEWPID)
    try:
        return _plain_clone(launch)
    finally:
        # In the child too: there it fails (a namespace above its own), and is of no use.
        try:
            namespaces.setns(own, namespaces.CLONE_NEWPID)
        except OSError:
            pass
        os.close(own)


def _plain_clone(launch: Launch) -> int:
    if launch.cgroup_fd >= 0:
        return syscalls.clone_into(launch.flags, _SIGCHLD, launch.cgroup_fd)
    return syscalls.clone(launch.flags | _SIGCHLD)


def _fork_here(launch: Launch, ours: _socket.socket, theirs: _socket.socket) -> int:
    """The child's pid; in the child this does not return."""
    scene = Scene(theirs, launch.stdio, null_device())
    scene.trees = launch.trees
    scene.start_socket, scene.preserve, scene.state = launch.start_socket, launch.preserve, launch.state.encode()
    scene.pidfd = launch.pidfd
    pid = _clone(launch)
    if pid == 0:
        child.run(launch.operations, scene)
    return pid


def _fork_there(launch: Launch, ours: _socket.socket, theirs: _socket.socket, forker: Forker) -> None:
    """Have the forker do it. Its child's first message carries the pid."""
    ours.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
    forker.fork(theirs.fileno(), launch.flags, launch.pidfd if launch.join_pid else -1, launch.cgroup_fd)
    header = {
        "stdio": [fd >= 0 for fd in launch.stdio],
        "trees": list(launch.trees),
        "start": launch.start_socket >= 0,
        "pidfd": launch.pidfd >= 0,
        "state": launch.state,
    }
    given = [*launch.stdio, *launch.trees.values(), launch.start_socket, launch.pidfd]
    seqpacket.send(ours, transfer.dump(header, launch.operations), [fd for fd in given if fd >= 0])


def launch_process(
    launch: Launch,
    settle: Callable[[], list[int]],
    record: Callable[[Process], None],
    forker: Forker | None = None,
) -> Waiting[Launched]:
    """Clone, converse, and return when the program runs (or waits for `start`).

    `settle` is called while the child is at work: it sets the cgroup's limits and gives the descriptors by which to
    enter. `record` is called before the program may run.

    Raises the tree of wherry.errors when it does not come to that; the process is gone and reaped then.
    """
    if forker is not None and not launch.preserve:
        try:
            return (yield from _converse(launch, settle, record, forker))
        except _NeverBorn:
            pass  # the forker or its spare process was killed: this process can do it too
    return (yield from _converse(launch, settle, record, None))


class _NeverBorn(Exception):
    """The channel ended before a child was heard of."""


def _converse(
    launch: Launch, settle: Callable[[], list[int]], record: Callable[[Process], None], forker: Forker | None
) -> Waiting[Launched]:
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    conversation = _Conversation(launch, ours, record)
    try:
        if forker is None:
            conversation.know(_fork_here(launch, ours, theirs))
        else:
            _fork_there(launch, ours, theirs, forker)
        theirs.close()
        conversation.invite(settle())
        return (yield from conversation.hold())
    except BaseException:
        conversation.abandon()
        raise
    finally:
        ours.close()
        theirs.close()


class _Conversation:
    """The parent's side, from clone to exec."""

    def __init__(self, launch: Launch, channel: _socket.socket, record: Callable[[Process], None]) -> None:
        self.launch = launch
        self.channel = channel
        self.record = record
        self.pids: list[int] = []
        self.hooked = False
        self.reset = False
        self.pidfd = -1
        self.console = -1
        self.warnings: list[str] = []
        self.process: Process | None = None

    def know(self, pid: int) -> None:
        """The child is there."""
        launch = self.launch
        self.pids.append(pid)
        if launch.oom_score is not None:
            self._write_oom_score(launch.oom_score)
        if launch.uid_map:
            write_maps(pid, launch.uid_map, launch.gid_map)
            self._say(b"mapped")
        if not launch.refork:
            self._take(pid)

    def invite(self, entries: list[int]) -> None:
        """Into the cgroup."""
        try:
            seqpacket.send(self.channel, b"cgroup", entries)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has failed already, and its message says why
        finally:
            close_all(entries)

    def hold(self) -> Waiting[Launched]:
        """Listen until the program runs."""
        while True:
            yield self.channel.fileno()
            try:
                data, fds, sender = _receive(self.channel)
            except ConnectionResetError:
                # It ended without reading what we said, so it did not become the program. This is told once, and
                # before what it said itself.
                self.reset = True
                continue
            if not data:
                break
            message = fastjson.loads(data)
            if "born" in message and not self.pids:
                self.know(sender)
            elif (yield from self._handle(message, fds)):
                break
        if not self.pids:
            raise _NeverBorn
        if self.process is None or self.reset:
            raise errors.Internal("the process ended before it was set up")
        return Launched(self.process, self.pidfd, self.console, tuple(self.warnings))

    def _take(self, pid: int) -> None:
        """This is the process: know it, record it, and let it go on."""
        self.pidfd = processes.pidfd_open(pid)
        self.process = Process(pid, processes.start_time(pid) or 0)
        self.record(self.process)
        if self.launch.say_go and not self.launch.hooks:
            self._say(b"go")

    def _say(self, word: bytes) -> None:
        try:
            self.channel.send(word)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has failed already, and its message says why

    def _handle(self, message: dict[str, Any], fds: list[int]) -> Waiting[bool]:
        """True when there is nothing more to wait for.

        The last steps of an exec may happen under the eyes of a container that can trace it (exec_plan.py), and so
        the other end is not believed: each thing is accepted once, where the plan has it.
        """
        if "console" in message and self.console < 0 and self.launch.terminal and len(fds) == 1:
            self.console = fds[0]
            return False
        close_all(fds)
        if "error" in message:
            raise failure(message["error"])
        if "warning" in message and len(self.warnings) < 100:
            self.warnings.append(str(message["warning"]))
        elif "pid" in message and self.process is None and self.launch.refork:
            os.waitpid(self.pids[0], 0)
            found = processes.stat(int(message["pid"]))
            if found is None or found.parent != os.getpid():
                self.pids.clear()
                raise errors.Internal("the process forked for the container is not ours")
            self.pids = [int(message["pid"])]
            self._take(self.pids[0])
        elif "hooks" in message and self.launch.hooks and not self.hooked:
            self.hooked = True
            yield from run_hooks("createRuntime", self.launch.hooks, self._state())
            self._say(b"hooked")
            self._say(b"go")
        elif "created" in message:
            return True
        return False

    def _state(self) -> bytes:
        pid = self.process.pid if self.process else 0
        return self.launch.state.replace('"pid":0', f'"pid":{pid}').encode()

    def _write_oom_score(self, score: int) -> None:
        try:
            with open(f"/proc/{self.pids[0]}/oom_score_adj", "w", encoding="ascii") as file:
                file.write(str(score))
        except PermissionError:
            self.warnings.append(f"oom_score_adj {score} needs CAP_SYS_RESOURCE; the inherited value stays")

    def _meet(self) -> None:
        """Learn who a child of the forker's is that has not told us yet, so that it can be ended."""
        try:
            while not self.pids and _await_readable(self.channel.fileno(), _BIRTH_TIMEOUT):
                data, fds, sender = _receive(self.channel)
                close_all(fds)
                if not data:
                    return
                if sender and b'"born"' in data:
                    self.pids.append(sender)
        except OSError:
            return

    def abandon(self) -> None:
        """Leave no process and no descriptor behind."""
        if not self.pids:
            self._meet()
        for pid in self.pids:
            try:
                os.kill(pid, _SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
        for fd in (self.pidfd, self.console):
            if fd >= 0:
                os.close(fd)


def _await_readable(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _receive(channel: _socket.socket) -> tuple[bytes, list[int], int]:
    """A message, its descriptors, and the sender's pid where SO_PASSCRED is set, else 0; b"" at the end."""
    data, ancillary, _, _ = channel.recvmsg(65536, _ANCILLARY, _socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    sender = 0
    for level, kind, payload in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            usable = len(payload) - len(payload) % 4
            fds += [int.from_bytes(payload[i : i + 4], "little") for i in range(0, usable, 4)]
        elif level == _socket.SOL_SOCKET and kind == _SCM_CREDENTIALS:
            sender = int.from_bytes(payload[:4], "little")
    return data, fds, sender


_SCM_CREDENTIALS = 2
_ANCILLARY = _socket.CMSG_SPACE(16 * 4) + _socket.CMSG_SPACE(12)


def reap(launched: Launched) -> None:
    """Kill a process just started, wait for its end, and close what belongs to it."""
    try:
        os.kill(launched.process.pid, _SIGKILL)
        os.waitpid(launched.process.pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
    close_all((launched.pidfd, launched.console))


def run_hooks(point: str, hooks: Sequence[hook_module.Hook], state: bytes) -> Waiting[None]:
    """Run hooks in a process of their own; Internal with the name of the one that failed."""
    if not hooks:
        return
    pid, fd = hook_module.start(point, hooks, state)
    said = b""
    try:
        while True:
            yield fd
            piece = os.read(fd, 4096)
            if not piece:
                break
            said += piece
    finally:
        os.close(fd)
        os.waitpid(pid, 0)
    if said:
        raise errors.Internal(said.decode(errors="replace"))


def failure(error: dict[str, Any]) -> errors.WherryError:
    """The exception for what a child said."""
    kind, text = error.get("kind"), str(error.get("text"))
    if kind in _KINDS:
        made: errors.WherryError = getattr(errors, kind)(text)
        return made
    return errors.Internal(f"{error.get('stage')}: {text}")


_KINDS = ("InvalidArgument", "NotFound", "PermissionDenied", "FailedPrecondition", "Unimplemented", "Internal")


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors; -1 is none."""
    for fd in fds:
        if fd >= 0:
            os.close(fd)
