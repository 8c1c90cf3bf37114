"""Whether a signal can reach a container's first process at all, so that nobody waits for what cannot come.

The first process of a pid namespace gets only the signals it has asked for (pid_namespaces(7)): one with its default
action is dropped. It has asked when it has a handler, or blocks it to take it by sigwait(3) or signalfd(2).
"""

import os
from collections.abc import Iterator
from pathlib import Path


def hears(pid: int, number: int, *, first: bool) -> bool:
    """In a thread, for there may be many: whether the signal would do anything to the process; True as well when that
    cannot be seen.

    `first`: it is the first of its pid namespace. Of any other, the default action of a signal would end it.
    """
    bit = 1 << number - 1
    try:
        # Handlers are the process's, and most have one: that is seen without looking at the other threads.
        own = _masks(Path(f"/proc/{pid}/status"))
        if own.get("SigCgt", 0) & bit or any(masks.get("SigBlk", 0) & bit for masks in _of_threads(pid)):
            return True
    except OSError:
        return True
    return not own.get("SigIgn", 0) & bit and not first


def _of_threads(pid: int) -> Iterator[dict[str, int]]:
    return (_masks(Path(f"/proc/{pid}/task/{thread}/status")) for thread in os.listdir(f"/proc/{pid}/task"))


def _masks(status: Path) -> dict[str, int]:
    found = {}
    for line in status.read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.startswith("Sig") and name != "SigQ":
            found[name] = int(value, 16)
    return found
