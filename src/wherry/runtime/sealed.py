"""A process whose /proc/self/exe cannot be written through (CVE-2019-5736).

What a container executes as /proc/self/exe, or by a "#!/proc/self/exe" script, is the interpreter that forked it. It
would then hold the host's file, and as root could open it for writing. So whoever forks containers runs from a mount of
that one file that is read-only and belongs to no mount namespace: once the descriptor is closed nobody can reach or
change it. Where the kernel or our privileges do not allow that, from a sealed copy in memory.
"""

from __future__ import annotations

import fcntl
import os
import sys

from wherry.kernel import mounts
from wherry.kernel.paths import AT_FDCWD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_MFD_EXEC = 0x10


def is_sealed() -> bool:
    """Whether this process's executable can be written by nobody through /proc/self/exe."""
    fd = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS == _SEALS:
                return True
        except OSError:
            pass  # not a memfd
        # A read-only mount alone is not enough: it must be detached, which shows as a path without a directory.
        detached = os.path.dirname(os.readlink("/proc/self/exe")) == "/"
        return detached and bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY)
    finally:
        os.close(fd)


def open_interpreter() -> int:
    """A close-on-exec descriptor of this interpreter, fit to be executed and safe against writing."""
    try:
        tree = mounts.open_tree(AT_FDCWD, "/proc/self/exe")
        mounts.mount_setattr(tree, set=mounts.MOUNT_ATTR_RDONLY)
        return tree
    except OSError:
        return _copy_interpreter()


def _copy_interpreter() -> int:
    try:
        memory = os.memfd_create("wherry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | _MFD_EXEC)
    except OSError:  # before Linux 6.3 there is no such flag, and none is needed
        memory = os.memfd_create("wherry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    source = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    try:
        while os.sendfile(memory, source, None, 1 << 24):
            pass
    finally:
        os.close(source)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
    return memory


def environment() -> dict[str, str]:
    """The environment in which the executed copy finds its library.

    An interpreter that finds libpython by $ORIGIN would look beside the copy, where there is nothing.
    """
    variables = dict(os.environ)
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            path = line[73:].rstrip("\n") if len(line) > 73 else ""
            if os.path.basename(path).startswith("libpython"):
                variables["LD_LIBRARY_PATH"] = os.path.dirname(path)
                break
    return variables


def execute(arguments: Sequence[str]) -> None:
    """Become `sys.executable` with these arguments, from a safe copy. Does not return."""
    fd = open_interpreter()
    os.execve(f"/proc/self/fd/{fd}", [sys.executable, *arguments], environment())
