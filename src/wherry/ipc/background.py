"""A helper's own start: into the background, alone by a lock the kernel keeps."""

from __future__ import annotations

import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ALREADY_RUNNING = 3


def run(lock: str, serve: Callable[[Callable[[], None]], None]) -> int:
    """Fork and, in a session of its own, `serve(ready)`; the file `lock` then names the process.

    The starter's status: 0 once `ready` has been called, ALREADY_RUNNING when another holds the lock, 1 when it failed.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(writing)
        word = os.read(reading, 1)
        return word[0] if word else 1
    os.close(reading)
    os.setsid()
    if not _lock(lock):
        os.write(writing, bytes([ALREADY_RUNNING]))
        return 0

    def ready() -> None:
        os.write(writing, b"\0")
        os.close(writing)

    serve(ready)
    return 0


def _lock(path: str) -> bool:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return False
    os.ftruncate(fd, 0)
    os.write(fd, str(os.getpid()).encode())
    return True  # the descriptor stays open for life
