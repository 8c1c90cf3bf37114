"""What is on disk of a container: `<root>/<id>/`, written so that a crash between any two steps can be told and undone.

state.json   written once, before anything is made: bundle, cgroup, namespaces, annotations
pid          "PID START_TIME", written between clone and the program's start
start.sock   there while created and not started; connecting to it starts the program
exit.json    {"status", "oom_killed", "at_ns"}, written before anyone is told
exec/<id>    "PID START_TIME" of a process that was exec'ed in it
"""

from __future__ import annotations

import os

from wherry.errors import InvalidArgument, NotFound
from wherry.kernel import processes
from wherry.spec import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple
else:
    from wherry.kernel.tuples import NamedTuple

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
    """state.json."""

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
    if not identifier or identifier in (".", "..") or len(identifier) > 255 or not _ALLOWED.issuperset(identifier):
        raise InvalidArgument(f"invalid container ID {identifier!r}", hint="letters, digits and _+-. are allowed")
    return identifier


class Directory:
    """The files of one container."""

    __slots__ = ("id", "path")

    def __init__(self, root: str, identifier: str) -> None:
        self.id = check_id(identifier)
        self.path = f"{root}/{identifier}"

    def write(self, name: str, text: str) -> None:
        """Replace a file; readers see the old one or the new one, whole."""
        temporary = f"{self.path}/.{name.replace('/', '-')}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
        os.rename(temporary, f"{self.path}/{name}")

    def read(self, name: str) -> str | None:
        """A file's text, or None."""
        try:
            fd = os.open(f"{self.path}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return os.read(fd, os.fstat(fd).st_size + 1).decode()
        finally:
            os.close(fd)

    def record(self) -> Record:
        """state.json; NotFound when there is no such container."""
        text = self.read("state.json")
        if text is None:
            raise NotFound(f"container {self.id!r} does not exist", object=self.id)
        return Record(*fastjson.loads(text))

    def write_record(self, record: Record) -> None:
        """Once, before anything is made."""
        self.write("state.json", fastjson.dumps(list(record)))

    def process(self, name: str = "pid") -> Process | None:
        """The container's process, or with exec/<id> another one."""
        text = self.read(name)
        if not text:
            return None
        pid, _, start = text.partition(" ")
        return Process(int(pid), int(start))

    def write_process(self, process: Process, name: str = "pid") -> None:
        """Record a process before it may run anything of the container's."""
        self.write(name, f"{process.pid} {process.start_time}")

    def exit(self) -> Exit | None:
        """How the container ended."""
        text = self.read("exit.json")
        if text is None:
            return None
        found: dict[str, Any] = fastjson.loads(text)
        return Exit(self.id, None, found["status"], found["oom_killed"], found["at_ns"])

    def write_exit(self, exit: Exit) -> None:
        """Before anyone is told."""
        self.write(
            "exit.json", fastjson.dumps({"status": exit.status, "oom_killed": exit.oom_killed, "at_ns": exit.at_ns})
        )

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        return os.path.lexists(f"{self.path}/{name}")

    def execs(self) -> list[str]:
        """Ids of exec'ed processes that have not been seen to end."""
        try:
            return [name for name in os.listdir(f"{self.path}/exec") if not name.startswith(".")]
        except FileNotFoundError:
            return []

    def remove(self, *names: str) -> None:
        """Remove files; without names, the directory and all in it."""
        for name in names:
            try:
                os.unlink(f"{self.path}/{name}")
            except FileNotFoundError:
                pass
        if not names:
            _remove_tree(self.path)


def _remove_tree(path: str) -> None:
    try:
        entries = list(os.scandir(path))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            _remove_tree(entry.path)
        else:
            os.unlink(entry.path)
    os.rmdir(path)


def list_ids(root: str) -> list[str]:
    """Every container that has a directory, sorted."""
    try:
        return sorted(
            [name for name in os.listdir(root) if _ALLOWED.issuperset(name) and os.path.isdir(f"{root}/{name}")]
        )
    except FileNotFoundError:
        return []
