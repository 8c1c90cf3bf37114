"""`wherry monitor`: start-up of the monitor's process. Only one per exec-root runs, by a lock the kernel keeps."""

from __future__ import annotations

import gc
import sys

from wherry.ipc import background, seqpacket
from wherry.kernel import processes
from wherry.runtime import sealed
from wherry.runtime.container import Runtime
from wherry.runtime.forker import Forker
from wherry.runtime.launch import null_device
from wherry.runtime.monitor import Monitor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def main(exec_root: str) -> int:
    """Become the monitor of `exec_root`; returns only in the starter, 0 once the socket listens."""
    if not sealed.is_sealed():
        sealed.execute(sys.orig_argv[1:])
    # A container's root must neither trace this process nor reach its descriptors through /proc.
    processes.prctl(processes.PR_SET_DUMPABLE, 0)
    return background.run(f"{exec_root}/monitor.lock", lambda ready: _serve(exec_root, ready))


def _serve(exec_root: str, ready: Callable[[], None]) -> None:
    processes.set_name("wherry-monitor")
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
    ready()
    monitor.serve_forever()


def _survive() -> None:
    """Be the last to go when memory is short; where that is not allowed, so be it."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("-900")
    except PermissionError:
        pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[-1]))
