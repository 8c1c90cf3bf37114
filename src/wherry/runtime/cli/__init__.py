"""`wherry-runtime`: an OCI runtime with runc's command line, for podman, containerd and whoever else speaks it.

A command is a fresh process, and its start is most of what it costs: nothing is imported before it is known to be
needed, and what is imported avoids `re`, `enum`, `json`, `argparse`, `dataclasses` (a test holds the list).
"""

import gc
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_FORKING = frozenset(("run", "create", "exec"))


def main() -> "NoReturn":
    """Run the command line and end this process, without the clean-up that the kernel does anyway."""
    gc.disable()  # a tenth of the start; and a command ends before there is anything to collect
    arguments = sys.argv[1:]
    if not _FORKING.isdisjoint(arguments):
        _leave_writable_interpreter()
    from wherry.runtime.cli import commands

    status = commands.run(arguments)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = status or 1
    posix._exit(status)


def _leave_writable_interpreter() -> None:
    """Go on from a copy of the interpreter that nobody can write to, before any container is near (CVE-2019-5736).

    sealed.py says why. This is its quick half: it needs neither `os` nor `ctypes`, as this process is about to be
    replaced. An interpreter without a shared library is too big to be copied at every start, and takes the other half.
    """
    import fcntl

    everything = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    own = posix.open("/proc/self/exe", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        if fcntl.fcntl(own, fcntl.F_GET_SEALS) & everything == everything:
            posix.close(own)
            return
    except OSError:
        pass  # not a memfd
    size = posix.fstat(own).st_size
    if size > 1 << 20:
        from wherry.runtime import sealed

        posix.close(own)
        if not sealed.is_sealed():
            sealed.execute(["-IS", *sys.argv])
        return
    try:
        copy = posix.memfd_create("wherry", posix.MFD_CLOEXEC | posix.MFD_ALLOW_SEALING | 0x10)  # MFD_EXEC
    except OSError:  # before Linux 6.3 there is no such flag, and none is needed
        copy = posix.memfd_create("wherry", posix.MFD_CLOEXEC | posix.MFD_ALLOW_SEALING)
    while size > 0:
        size -= posix.sendfile(copy, own, None, size)
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, everything)
    posix.execve(f"/proc/self/fd/{copy}", [sys.executable, "-IS", *sys.argv], posix.environ)
