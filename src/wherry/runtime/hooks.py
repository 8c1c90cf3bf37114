"""Hooks: programs told a container's state on standard input (runtime-spec config.md, POSIX-platform Hooks)."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import errno
import os
import select
import time

from wherry.kernel import processes
from wherry.runtime.scene import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NamedTuple

    from wherry.runtime.scene import Scene
else:
    from wherry.kernel.tuples import NamedTuple

_SIGKILL = 9


class Hook(NamedTuple):
    """One program. `timeout`: seconds, 0 is none."""

    path: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    timeout: int


class RunHooks(NamedTuple):
    """Hooks that belong into the container's namespaces: run by the child itself."""

    point: str
    hooks: tuple[Hook, ...]

    def describe(self) -> str:
        return f"{self.point} hooks"

    def apply(self, scene: Scene) -> None:
        run(self.point, self.hooks, scene.state)


def run(point: str, hooks: Sequence[Hook], state: bytes) -> None:
    """Run them one after the other; Refused("Internal") at the first that fails or takes too long.

    What has ended cannot be undone: of poststop hooks all are run, and their failures told together (runtime.md).
    """
    failures = []
    for hook in hooks:
        status = _run_one(hook, state)
        if status:
            what = "took too long" if status < 0 else f"exit status {processes.shell_status(status)}"
            failures.append(f"error running {point} hook {hook.path}: {what}")
            if point != "poststop":
                break
    if failures:
        raise Refused("Internal", "; ".join(failures))


def _run_one(hook: Hook, state: bytes) -> int:
    """The wait status, or -1 on time-out."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become(hook, reading)
    os.close(reading)
    pidfd = processes.pidfd_open(pid)
    try:
        os.write(writing, state)  # a state is far smaller than a pipe
    except BrokenPipeError:
        pass
    os.close(writing)
    if hook.timeout > 0 and not _wait(pidfd, hook.timeout):
        os.kill(pid, _SIGKILL)
        os.waitpid(pid, 0)
        os.close(pidfd)
        return -1
    os.close(pidfd)
    return os.waitpid(pid, 0)[1]


def _wait(pidfd: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + timeout
    return bool(poll.poll(max(0, deadline - time.monotonic()) * 1000))


def _become(hook: Hook, stdin: int) -> None:
    try:
        os.dup2(stdin, 0)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        null = os.open("/dev/null", os.O_WRONLY)
        os.dup2(null, 1)
        processes.close_range(3, flags=processes.CLOSE_RANGE_CLOEXEC)
        pairs = [entry.partition("=") for entry in hook.env]
        os.execve(hook.path, hook.args, {name: value for name, _, value in pairs})
    except OSError as error:
        os.write(2, f"{hook.path}: {os.strerror(error.errno or errno.EIO)}\n".encode())
    finally:
        os._exit(127)


def start(point: str, hooks: Sequence[Hook], state: bytes) -> tuple[int, int]:
    """Run hooks in a process of their own: (pid, descriptor that gives "" or what failed, then its end)."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    try:
        run(point, hooks, state)
    except Refused as error:
        os.write(writing, str(error).encode()[:4096])
    except BaseException as error:  # noqa: BLE001 - a forked child has no one above it
        os.write(writing, f"error running {point} hooks: {error}".encode()[:4096])
    os._exit(0)
