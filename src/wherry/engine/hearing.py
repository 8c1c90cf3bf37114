"""Whether a signal can reach a container's first process at all, so that nobody waits for what cannot come.

The first process of a pid namespace gets only the signals it has asked for (pid_namespaces(7)): one with its default
action is dropped. It has asked when it has a handler, or blocks it to take it by sigwait(3) or signalfd(2).
"""

import os
from pathlib import Path


def hears(pid: int, number: int, *, first: bool) -> bool:
    """Whether the signal would do anything to the process; True as well when that cannot be seen.

    `first`: it is the first of its pid namespace. Of any other, the default action of a signal would end it.
    """
    bit = 1 << number - 1
    try:
        threads = [_masks(Path(f"/proc/{pid}/task/{thread}/status")) for thread in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return True
    if not threads:
        return True
    caught, ignored = (threads[0].get(name, 0) & bit for name in ("SigCgt", "SigIgn"))
    if caught or any(masks.get("SigBlk", 0) & bit for masks in threads):
        return True
    return not ignored and not first


def _masks(status: Path) -> dict[str, int]:
    found = {}
    for line in status.read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.startswith("Sig") and name != "SigQ":
            found[name] = int(value, 16)
    return found
