"""What is on disk of a container, written so that a crash between any two steps can be told and undone.

    <root>/<id>.state      one line of JSON after the other, appended and never changed:
                             the record      before anything is made: bundle, cgroup, namespaces, annotations
                             [pid, start]    between the clone and the program's start
                             [status, oom_killed, at_ns]     how it ended, before anyone is told
    <root>/<id>.start      a socket, there while created and not started; connecting to it starts the program
    <root>/<id>~<exec>     "PID START_TIME" of a process that was exec'ed in it and has not been seen to end

One file to which lines are added, and no directory: on a journalling file system each name made costs 0.1 to 0.3 ms.
A line without its newline was cut off by a crash and does not count.
"""

from __future__ import annotations

import os

from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.kernel import processes
from wherry.spec import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from wherry.kernel.tuples import NamedTuple

_LONGEST = 120  # two of them and a "~" fit a file name
_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


class Exit(NamedTuple):
    """How a process ended. `status`: as a shell's, 128 + signal; -1 when it cannot be known."""

    id: str
    exec_id: str | None
    status: int
    oom_killed: bool
    at_ns: int


class Process(NamedTuple):
    """A process told from a later owner of its pid by its start (clock ticks since boot)."""

    pid: int
    start_time: int

    def is_alive(self) -> bool:
        """Whether it runs (a zombie does not)."""
        found = processes.stat(self.pid)
        return found is not None and found.start_time == self.start_time and found.state not in "ZX"


class Record(NamedTuple):
    """What is known before anything is made."""

    id: str
    bundle: str
    rootfs: str
    cgroup: str
    namespaces: int  # CLONE_NEW* of those that differ from the runtime's
    user_namespace: bool
    created: str
    annotations: dict[str, str]
    spec_version: str


def check_id(identifier: str) -> str:
    """`identifier`, or InvalidArgument when it could not be a directory's name."""
    if not identifier or identifier in (".", "..") or len(identifier) > _LONGEST or not _ALLOWED.issuperset(identifier):
        raise InvalidArgument(f"invalid container ID {identifier!r}", hint="letters, digits and _+-. are allowed")
    return identifier


class Saved(NamedTuple):
    """A container's state file."""

    record: Record
    process: Process | None
    exit: Exit | None


class StateFile:
    """The files of one container."""

    __slots__ = ("id", "path", "root")

    def __init__(self, root: str, identifier: str) -> None:
        self.id = check_id(identifier)
        self.root = root
        self.path = f"{root}/{identifier}.state"

    def create(self, record: Record) -> None:
        """Claim the id and write the record; Conflict when it is taken."""
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise Conflict(f"container {self.id!r} exists already", object=self.id) from None
        try:
            os.write(fd, fastjson.dumps(list(record)).encode() + b"\n")
        finally:
            os.close(fd)

    def load(self) -> Saved:
        """What is known; NotFound when there is no such container."""
        text = _read(self.path)
        lines = text.split("\n")[:-1] if text is not None else []
        if not lines:
            raise NotFound(f"container {self.id!r} does not exist", object=self.id)
        process = Process(*fastjson.loads(lines[1])) if len(lines) > 1 else None
        ended = Exit(self.id, None, *fastjson.loads(lines[2])) if len(lines) > 2 else None
        return Saved(Record(*fastjson.loads(lines[0])), process, ended)

    def add_process(self, process: Process) -> None:
        """Record the process before it may run anything of the container's."""
        self._append([process.pid, process.start_time])

    def add_exit(self, exit: Exit) -> None:
        """Record the end, once."""
        self._append([exit.status, exit.oom_killed, exit.at_ns])

    def _append(self, value: list[object]) -> None:
        # Without O_CREAT: what another hand deleted stays deleted.
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            os.write(fd, fastjson.dumps(value).encode() + b"\n")
        finally:
            os.close(fd)

    @property
    def start_socket(self) -> str:
        """Its name within the root."""
        return f"{self.id}.start"

    def awaits_start(self) -> bool:
        """Whether the start socket is there."""
        return os.path.lexists(f"{self.root}/{self.start_socket}")

    def end_start(self) -> None:
        """Remove the start socket."""
        _unlink(f"{self.root}/{self.start_socket}")

    def _exec(self, exec_id: str) -> str:
        return f"{self.root}/{self.id}~{check_id(exec_id)}"

    def add_exec(self, exec_id: str, process: Process) -> None:
        """Record an exec'ed process."""
        fd = os.open(self._exec(exec_id), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, b"%d %d" % process)
        finally:
            os.close(fd)

    def remove_exec(self, exec_id: str) -> None:
        """Forget an exec'ed process."""
        _unlink(self._exec(exec_id))

    def execs(self) -> dict[str, Process]:
        """Exec'ed processes that have not been seen to end, by id."""
        found = {}
        prefix = self.id + "~"
        for name in os.listdir(self.root):
            if name.startswith(prefix):
                pid, _, start = (_read(f"{self.root}/{name}") or "").partition(" ")
                if start:
                    found[name[len(prefix) :]] = Process(int(pid), int(start))
        return found

    def remove(self) -> None:
        """Remove it all; the state last, so that what a crash leaves can still be found."""
        self.end_start()
        _unlink(self.path)


def _read(path: str) -> str | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return os.read(fd, os.fstat(fd).st_size + 1).decode()
    finally:
        os.close(fd)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def list_ids(root: str) -> list[str]:
    """Every container that has a state file, sorted."""
    try:
        return sorted([name.removesuffix(".state") for name in os.listdir(root) if name.endswith(".state")])
    except FileNotFoundError:
        return []
