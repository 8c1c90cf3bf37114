"""What running containers use just now: all of them in one pass, for metrics."""

from typing import NamedTuple

from wherry.engine.container import Container
from wherry.engine.core import Core


class Usage(NamedTuple):
    """One container's. Bytes; `memory` is less the file cache that has not been used for a while, as `docker stats`."""

    id: str
    name: str
    image: str
    cpu_seconds: float
    memory: int
    memory_limit: float
    pids: int


def measure(core: Core, containers: list[Container]) -> list[Usage]:
    """In a thread. A container that ends meanwhile is left out."""
    found = []
    for container in containers:
        try:
            stats = core.parts.cgroup(core.cgroup_path(container)).stats()
        except OSError:
            continue
        memory, detail = stats.memory, stats.memory.detail
        idle = detail.get("total_inactive_file", detail.get("inactive_file", 0))
        found.append(
            Usage(
                id=container.id,
                name=container.name,
                image=container.definition.config.image,
                cpu_seconds=stats.cpu.total_ns / 1e9,
                memory=max(0, memory.usage - idle),
                memory_limit=float("inf") if memory.limit is None else float(memory.limit),
                pids=stats.pids,
            )
        )
    return found
