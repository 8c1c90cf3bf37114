"""Network namespaces, held by bind mounts of their files, as `ip netns` does.

A namespace is made by a thread of its own that ends with it: no thread that does anything else is ever in another
namespace than the process's, not even when something fails in between.
"""

import errno
import os
import stat
from collections.abc import Callable
from threading import Thread
from typing import TypeVar

from wherry.kernel import mounts, namespaces

T = TypeVar("T")

_HERE = "/proc/thread-self/ns/net"


def create(path: str, inside: Callable[[], T]) -> T:
    """Make a network namespace, mounted on the new file `path`; the result of `inside`, which is called in it.

    When `inside` raises, the file is removed again.
    """

    def make() -> T:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))
        try:
            namespaces.unshare(namespaces.CLONE_NEWNET)
            mounts.mount(_HERE, path, None, mounts.MS_BIND)
            return inside()
        except BaseException:
            delete(path)
            raise

    return _in_thread(make)


def keep(path: str, source: str) -> None:
    """Mount a namespace that there is, such as "/proc/PID/ns/net", on the new file `path`."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))
    try:
        mounts.mount(source, path, None, mounts.MS_BIND)
    except BaseException:
        os.unlink(path)
        raise


def enter(path: str, inside: Callable[[], T]) -> T:
    """The result of `inside`, called in the network namespace mounted on `path`."""

    def join() -> T:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            namespaces.setns(fd, namespaces.CLONE_NEWNET)
        finally:
            os.close(fd)
        return inside()

    return _in_thread(join)


def move(path: str, new: str) -> None:
    """Rename: the namespace mounted on `path` is then mounted on the new file `new`. Both in one `make_directory`."""
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))
    try:
        # rename(2) of a file that something is mounted on is refused (EBUSY).
        mounts.mount(path, new, None, mounts.MS_MOVE)
    except BaseException:
        os.unlink(new)
        raise
    os.unlink(path)


def delete(path: str) -> None:
    """Unmount and remove the file; absent or not mounted is no error.

    The namespace goes, and its links with it, once nothing else holds it; the kernel does that in its own time.
    """
    while True:
        _detach(path)
        try:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY:  # mounted more than once
                raise


def is_mounted(path: str) -> bool:
    """Whether a namespace is mounted on the file."""
    try:
        found = os.stat(path)
        # The file itself lies on its directory's device, the namespace on nsfs.
        return stat.S_ISREG(found.st_mode) and found.st_dev != os.stat(os.path.dirname(path)).st_dev
    except FileNotFoundError:
        return False


def make_directory(path: str) -> None:
    """A directory for such files, itself a private mount, so that the files' mounts reach no other mount namespace.

    A copy in a mount namespace that lives on would keep the network namespace alive after `delete`.
    """
    os.makedirs(path, mode=0o755, exist_ok=True)
    if os.stat(path).st_dev == os.stat(os.path.dirname(path)).st_dev and not _is_mount_point(path):
        mounts.mount(path, path, None, mounts.MS_BIND)
    mounts.mount(None, path, None, mounts.MS_PRIVATE)


def remove_directory(path: str) -> None:
    """Undo `make_directory`, with all namespaces in it; absent is no error."""
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return
    for name in names:
        delete(os.path.join(path, name))
    _detach(path)
    os.rmdir(path)


def _detach(path: str) -> None:
    try:
        mounts.umount(path, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):  # not mounted, absent
            raise


def _is_mount_point(path: str) -> bool:
    # A bind mount of a directory on itself changes neither st_dev nor st_ino: only the mount table tells.
    real = os.path.realpath(path)
    with open("/proc/thread-self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return any(_unescape(line.split(" ", 5)[4]) == real for line in table)


def _unescape(text: str) -> str:
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


def _in_thread(work: Callable[[], T]) -> T:
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # noqa: BLE001  the thread's root: handed to the caller
            failure.append(error)

    thread = Thread(target=run, name="netns", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]
