"""Running a container in a user namespace of its own (userns-remap).

Its network namespace must belong to its user namespace, or root in it could neither mount sysfs nor change an address.
So the runtime makes both, stops before the program, and the network is connected to what it made. All else is mapped
by mounts; the streams' pipes are given to whom the container's user is on the host.
"""

import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from wherry.engine import hostfiles
from wherry.engine.core import Core
from wherry.engine.parts import Monitor, Started, Stdio
from wherry.engine.userns import Remap, remap_of
from wherry.errors import FailedPrecondition, WherryError
from wherry.spec.docker import HostConfig
from wherry.spec.mount import Mount


def connects_late(core: Core, host: HostConfig) -> bool:
    """Whether the network is connected when the container's first process is there already."""
    mode = host.network_mode
    return remap_of(host, core.remap) is not None and mode != "none" and not mode.startswith("container:")


def map_layers(layers: Sequence[Mount]) -> tuple[Mount, ...]:
    """The mounts of the root file system, with the container's owners."""
    return tuple(Mount(m.type, m.source, (*m.options, "idmap"), m.lowerdirs) for m in layers)


def joined_namespace(remap: Remap | None, others: Sequence[tuple[str, int, bool]]) -> str:
    """The user namespace to join for those of other containers (id, pid, whether remapped); "" for a new one.

    Namespaces can be joined only by who is in the user namespace that owns them.
    """
    if remap is None:
        if any(mapped for _, _, mapped in others):
            raise FailedPrecondition(
                "a container in the host's user namespace cannot join one that is not", hint="leave --userns=host out"
            )
        return ""
    ids = {id for id, _, _ in others}
    if len(ids) > 1:
        raise FailedPrecondition(
            f"containers {' and '.join(sorted(id[:12] for id in ids))} have a user namespace each: one container "
            "cannot join both"
        )
    for id, pid, mapped in others:
        if not mapped:
            raise FailedPrecondition(
                f"container {id[:12]} is in the host's user namespace, and cannot be joined from another",
                object=id,
                hint="use --userns=host",
            )
        return f"/proc/{pid}/ns/user"
    return ""


def prepare_files(directory: Path) -> None:
    """The files that are written when the network is connected: mounted before that, so they must be there."""
    for name in hostfiles.NAMES:
        os.close(os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644))


def own_streams(stdio: Stdio, uid: int) -> None:
    """/dev/stdout can be opened again only by its owner."""
    for fd in stdio:
        if fd is not None:
            os.fchown(fd, uid, -1)


async def run(
    monitor: Monitor,
    id: str,
    bundle: Path,
    layers: Sequence[Mount],
    stdio: Stdio,
    hold: Sequence[int],
    connect: Callable[[str], Awaitable[None]],
) -> Started:
    """`Monitor.run` with the network connected on the way: `connect` is given its namespace."""
    started = await monitor.create(id, bundle, layers, stdio, hold)
    try:
        await connect(f"/proc/{started.pid}/ns/net")
        await monitor.start(id)
    except (WherryError, OSError):
        os.close(started.pidfd)
        if started.console is not None:
            os.close(started.console)
        raise
    return started
