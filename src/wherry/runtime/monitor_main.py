"""`wherry monitor`: start-up of the monitor's process. Only one per exec-root runs, by a lock the kernel keeps."""

from __future__ import annotations

import fcntl
import gc
import os
import sys

from wherry.kernel import processes, seqpacket
from wherry.runtime import sealed
from wherry.runtime.container import Runtime
from wherry.runtime.forker import Forker
from wherry.runtime.launch import null_device
from wherry.runtime.monitor import Monitor

ALREADY_RUNNING = 3


def main(exec_root: str) -> int:
    """Become the monitor of `exec_root`; returns only in the starter, 0 once the socket listens."""
    if not sealed.is_sealed():
        sealed.execute(sys.orig_argv[1:])
    # A container's root must neither trace this process nor reach its descriptors through /proc.
    processes.prctl(processes.PR_SET_DUMPABLE, 0)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(writing)
        word = os.read(reading, 1)
        return word[0] if word else 1
    os.close(reading)
    os.setsid()
    processes.set_name("wherry-monitor")
    if not _lock(f"{exec_root}/monitor.lock"):
        os.write(writing, bytes([ALREADY_RUNNING]))
        return 0
    _survive()
    # Everything a request needs is loaded now: a fork then shares it, and an upgrade on disk cannot mix versions.
    import wherry.kernel.cgroups.v1
    import wherry.kernel.cgroups.v2
    import wherry.kernel.seccomp  # noqa: F401

    # Objects that exist now live as long as the process: the collector must not touch their pages after a fork.
    gc.collect()
    gc.freeze()
    runtime = Runtime(f"{exec_root}/runtime", Forker(null_device()))
    monitor = Monitor(runtime, seqpacket.listen(f"{exec_root}/monitor.sock"))
    monitor.adopt()
    os.write(writing, b"\0")
    os.close(writing)
    monitor.serve_forever()
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


def _survive() -> None:
    """Be the last to go when memory is short; where that is not allowed, so be it."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("-900")
    except PermissionError:
        pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[-1]))
