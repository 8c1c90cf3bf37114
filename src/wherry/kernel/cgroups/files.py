"""Files of the cgroup file systems: small texts, one write each, errors that name file and value."""

from __future__ import annotations

import errno
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

UNLIMITED_V1 = 1 << 62
"""A v1 limit from here on is the kernel's largest page counter: no limit."""


def _failure(error: OSError, path: str, what: str = "") -> OSError:
    number = error.errno or 0
    return OSError(number, what + os.strerror(number), path)


def write(path: str, value: str) -> None:
    """Write `value` to an existing file; OSError with the path and the value."""
    write_lines(path, (value,))


def write_lines(path: str, lines: Sequence[str]) -> None:
    """Write to an existing file, one write(2) for each of `lines`: the kernel takes one command at a time."""
    line, fd = "".join(lines[:1]), -1
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        for line in lines:
            os.write(fd, line.encode())
    except OSError as error:
        raise _failure(error, path, f"cannot set {line!r}: ") from None
    finally:
        if fd >= 0:
            os.close(fd)


def read(path: str) -> str:
    """The whole of a file; OSError with the path."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(fd, 8192)]
        # kernfs hands out whole lines as they fit: only an empty read is the end.
        while parts[-1]:
            parts.append(os.read(fd, 65536))
    except OSError as error:
        raise _failure(error, path) from None
    finally:
        os.close(fd)
    return b"".join(parts).decode()


def read_or_empty(path: str) -> str:
    """The whole of a file, "" when there is none: the controller is not enabled, or the kernel is older."""
    try:
        return read(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return ""
        raise


def number(text: str) -> int:
    """A counter; 0 for an empty or a negative one."""
    text = text.strip()
    return int(text) if text.isdigit() else 0


def limit(text: str) -> int | None:
    """A limit; None for "max", for v1's largest number, and where there is no such file."""
    text = text.strip()
    return None if not text.isdigit() or int(text) >= UNLIMITED_V1 else int(text)


def table(text: str) -> dict[str, int]:
    """Lines of `name number`."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            found[name] = int(value)
    return found


def descend(path: str) -> Iterator[str]:
    """`path` and every group below it, innermost first. Nothing when it does not exist."""
    try:
        # A directory's link count is 2 plus its sub-directories: most groups need no listing.
        leaf = os.stat(path).st_nlink == 2
        children = [] if leaf else [entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for child in children:
        yield from descend(child)
    yield path


def processes(path: str) -> list[int]:
    """Every process in the group at `path` and below."""
    found: set[int] = set()
    for group in descend(path):
        try:
            text = read_or_empty(group + "/cgroup.procs")
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:  # a threaded group: its domain lists the processes
                raise
            continue
        # 0 stands for a process of another pid namespace.
        found.update([int(pid) for pid in text.split() if pid != "0"])
    return sorted(found)


def wait(steps: Iterator[float]) -> None:
    """Go through them, sleeping as long as each says."""
    for pause in steps:
        time.sleep(pause)


def removing(path: str, deadline: float) -> Iterator[float]:
    """rmdir(2) of the group and all below it, again and again until `deadline` (time.monotonic) while it is busy.

    Yields how long to wait, in seconds, until it is done.
    """
    pause = 0.0002
    while True:
        try:
            os.rmdir(path)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
        for group in descend(path):
            try:
                os.rmdir(group)
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENOTEMPTY, errno.ENOENT):
                    raise
        if not os.path.isdir(path):
            return
        if time.monotonic() >= deadline:
            left = processes(path)
            raise OSError(errno.EBUSY, f"cgroup still has processes {left[:8]}" if left else "cgroup is busy", path)
        # v1 has no event for emptiness; a group empties when the last task has left the scheduler.
        yield pause
        pause = min(pause * 2, 0.02)
