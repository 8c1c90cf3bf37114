"""events: figures of a container, once or at an interval, and kills for want of memory."""

from __future__ import annotations

import json
import select
import sys

from wherry.errors import FailedPrecondition, InvalidArgument
from wherry.kernel import processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from wherry.kernel.cgroups import CgroupStats, IoEntry
    from wherry.runtime.cli.commands import Context
    from wherry.runtime.cli.flags import Options

_UNITS = (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0))


def events(context: Context, options: Options, arguments: Sequence[str]) -> int:
    """One JSON object per line, until the container ends."""
    interval = parse_duration(options.text("interval") or "5s")
    runtime = context.runtime()
    status = runtime.status(arguments[0])
    if status.process is None or status.status == "stopped":
        raise FailedPrecondition("container not running", object=arguments[0])
    group = runtime.cgroup(arguments[0])
    if options.flag("stats"):
        _print("stats", arguments[0], document(group.stats()))
        return 0
    pidfd = processes.pidfd_open(status.process.pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    killed = group.oom_kills()
    while not poll.poll(interval * 1000):
        _print("stats", arguments[0], document(group.stats()))
        if group.oom_kills() > killed:
            killed = group.oom_kills()
            _print("oom", arguments[0], None)
    return 0


def _print(kind: str, identifier: str, data: object) -> None:
    event = {"type": kind, "id": identifier}
    if data is not None:
        event["data"] = data  # type: ignore[assignment]
    print(json.dumps(event))
    sys.stdout.flush()


def parse_duration(text: str) -> float:
    """Seconds from 500ms, 5s, 1m."""
    for unit, seconds in _UNITS:
        amount = text.removesuffix(unit)
        if amount != text and amount.replace(".", "", 1).isdigit() and float(amount) > 0:
            return float(amount) * seconds
    raise InvalidArgument(f"invalid interval {text!r}", hint="such as 5s or 500ms")


def document(stats: CgroupStats) -> dict[str, Any]:
    """The figures in the shape of runc's `events`, which containerd's and others' tools read."""
    cpu, memory = stats.cpu, stats.memory
    return {
        "cpu": {
            "usage": {
                "total": cpu.total_ns,
                "percpu": list(cpu.per_cpu_ns),
                "kernel": cpu.kernel_ns,
                "user": cpu.user_ns,
            },
            "throttling": {
                "periods": cpu.periods,
                "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled_ns,
            },
        },
        "memory": {
            "cache": memory.detail.get("cache", memory.detail.get("file", 0)),
            "usage": _level(memory.usage, memory.peak, memory.limit, memory.failures),
            "swap": _level(memory.swap, None, memory.swap_limit, 0),
            "kernel": _level(0, None, None, 0),
            "kernelTCP": _level(0, None, None, 0),
            "raw": memory.detail,
        },
        "pids": {"current": stats.pids, "limit": stats.pids_limit or 0},
        "blkio": {
            "ioServiceBytesRecursive": _entries(stats.io_bytes),
            "ioServicedRecursive": _entries(stats.io_operations),
        },
        "hugetlb": {
            size: {"usage": found.usage, "max": found.peak or 0, "failcnt": found.failures}
            for size, found in stats.hugetlb.items()
        },
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _level(usage: int, peak: int | None, limit: int | None, failures: int) -> dict[str, int]:
    unlimited = (1 << 64) - 1
    return {"limit": unlimited if limit is None else limit, "usage": usage, "max": peak or 0, "failcnt": failures}


def _entries(entries: Iterable[IoEntry]) -> list[dict[str, Any]]:
    return [{"major": e.major, "minor": e.minor, "op": e.op, "value": e.value} for e in entries]
