"""What all containers use, in one pass: the figures of a `stats` table, without what nobody prints.

Processor time needs two samples. The first reads one counter of each container, the second everything, and both note
the clock: docker's measure of the host's time is in ticks of 10 ms, too coarse for less than a second.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from wherry.engine import stats
from wherry.engine.container import Container
from wherry.engine.core import Core

SHORT_SECONDS = 0.1
_LONG_SECONDS = 1.0

Moment = tuple[int, int]


async def sample_all(
    core: Core, references: Sequence[str], *, all: bool = False, stream: bool = False
) -> AsyncIterator[list[dict[str, Any]]]:
    """Documents of docker's form, one of each container; with `stream`, lists of them, one a second.

    `references`: which containers; none: those that run (`all`: all).
    """
    chosen = [core.index.find(reference) for reference in references]
    before: dict[str, Moment] = {}
    while not core.closing:
        containers = chosen if references else [c for c in core.index if all or c.state.running]
        containers = [container for container in containers if container.id in core.index]
        if not references:
            containers.sort(key=lambda container: container.definition.created_ns, reverse=True)
        if fresh := [container for container in containers if container.id not in before and container.state.pid]:
            before |= await asyncio.to_thread(_first, core, fresh)
            await asyncio.sleep(SHORT_SECONDS)
        rows, before = await asyncio.to_thread(_second, core, containers, before)
        yield rows
        if not stream:
            return
        await asyncio.sleep(_LONG_SECONDS)


def _first(core: Core, containers: Sequence[Container]) -> dict[str, Moment]:
    return {
        container.id: (time.monotonic_ns(), core.parts.cgroup(core.cgroup_path(container)).cpu_ns())
        for container in containers
    }


def _second(
    core: Core, containers: Sequence[Container], before: dict[str, Moment]
) -> tuple[list[dict[str, Any]], dict[str, Moment]]:
    now: dict[str, Moment] = {}
    rows = []
    processors = os.cpu_count() or 1
    for container in containers:
        document: dict[str, Any] = {"id": container.id, "name": f"/{container.name}"}
        rows.append(document)
        pid = container.state.pid
        if not container.state.running or not pid:
            continue
        found = core.parts.cgroup(core.cgroup_path(container)).glance()
        moment = now[container.id] = (time.monotonic_ns(), found.cpu_ns)
        for key, (clock, used) in (("precpu_stats", before.get(container.id, moment)), ("cpu_stats", moment)):
            document[key] = {
                "cpu_usage": {"total_usage": used},
                "system_cpu_usage": clock * processors,
                "online_cpus": processors,
            }
        limit = min(container.definition.host.memory or stats.HOST_MEMORY, stats.HOST_MEMORY)
        document["memory_stats"] = {
            "usage": found.memory,
            "limit": limit,
            "stats": {"total_inactive_file": found.idle},
        }
        document["pids_stats"] = {"current": found.pids}
        moved = [{"op": "read", "value": found.read}, {"op": "write", "value": found.written}]
        document["blkio_stats"] = {"io_service_bytes_recursive": moved}
        if container.definition.host.network_mode != "host":
            document["networks"] = stats.networks(pid)
    return rows, now
