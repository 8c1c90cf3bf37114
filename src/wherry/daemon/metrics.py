"""Figures for Prometheus (metrics-addr) in its text form 0.0.4. Names are dockerd's; our own begin with wherry_."""

import asyncio
import logging
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from wherry.api.timing import BOUNDS, Histogram, Timing
from wherry.engine.usage import Usage
from wherry.errors import FailedPrecondition

if TYPE_CHECKING:
    from wherry.engine import Engine

log = logging.getLogger("wherry.daemon")
_HEAD_BYTES = 16 << 10
_SECONDS = 10.0
_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PAGE = os.sysconf("SC_PAGE_SIZE")
_STATES = {"paused": ("paused",), "running": ("running", "restarting"), "stopped": ("created", "exited", "dead")}
Sample = tuple[Mapping[str, str], float]


async def serve(address: tuple[str, int], engine: "Engine", timing: Timing) -> asyncio.Server:
    """Answer GET /metrics on a socket of its own; nothing else is there."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await _answer(head, engine, timing))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(answer, address[0], address[1], limit=_HEAD_BYTES)
    except OSError as error:
        raise FailedPrecondition(f"cannot serve metrics on {address[0]}:{address[1]}: {error.strerror}") from None
    log.info("metrics API listening on %s:%d", *server.sockets[0].getsockname()[:2])
    return server


async def _answer(head: bytes, engine: "Engine", timing: Timing) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if method not in (b"GET", b"HEAD") or path != b"/metrics":
        return _response("404 Not Found", b"404 page not found\n", True)
    return _response("200 OK", (await render(engine, timing)).encode(), method == b"GET")


def _response(status: str, body: bytes, whole: bool) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {_TYPE}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + (body if whole else b"")


async def render(engine: "Engine", timing: Timing) -> str:
    """All figures, as of now."""
    info = await engine.info()
    usage = await engine.containers.usage()
    return "".join(
        line
        for part in (_engine(engine, info), _actions(timing), _health(engine), _process(), _containers(usage))
        for line in part
    )


def _engine(engine: "Engine", info: Mapping[str, Any]) -> Iterator[str]:
    count = engine.containers.count()
    states = [({"state": name}, float(sum(count[word] for word in words))) for name, words in _STATES.items()]
    about = {
        "architecture": info["Architecture"],
        "commit": "",
        "daemon_id": info["ID"],
        "graphdriver": info["Driver"],
        "kernel": info["KernelVersion"],
        "os": info["OperatingSystem"],
        "os_type": info["OSType"],
        "os_version": info["OSVersion"],
        "version": info["ServerVersion"],
    }
    name = "engine_daemon_"
    yield from _family(f"{name}container_states_containers", "gauge", "Containers in each state", states)
    yield from _family(f"{name}engine_cpus_cpus", "gauge", "CPUs of the machine", [({}, info["NCPU"])])
    yield from _family(f"{name}engine_info", "gauge", "The engine and its machine", [(about, 1)])
    yield from _family(f"{name}engine_memory_bytes", "gauge", "Memory of the machine", [({}, info["MemTotal"])])
    subscribers = float(engine.events.listeners)
    yield from _family(f"{name}events_subscribers_total", "gauge", "Subscribers to events", [({}, subscribers)])
    yield from _family(f"{name}events_total", "counter", "Events so far", [({}, engine.events.emitted)])


def _actions(timing: Timing) -> Iterator[str]:
    name = "engine_daemon_container_actions_seconds"
    yield f"# HELP {name} Seconds taken by each action on containers\n# TYPE {name} histogram\n"
    for action, histogram in timing.actions.items():
        yield from _histogram(name, {"action": action}, histogram)


def _health(engine: "Engine") -> Iterator[str]:
    done, failed = engine.health_checks
    yield from _family("engine_daemon_health_checks_total", "counter", "Health checks so far", [({}, done)])
    yield from _family("engine_daemon_health_checks_failed_total", "counter", "Those that failed", [({}, failed)])


def _histogram(name: str, labels: Mapping[str, str], histogram: Histogram) -> Iterator[str]:
    total = 0
    for bound, count in zip((*BOUNDS, None), histogram.counts, strict=True):
        total += count
        yield _line(f"{name}_bucket", {**labels, "le": "+Inf" if bound is None else f"{bound:g}"}, total)
    yield _line(f"{name}_sum", labels, histogram.total)
    yield _line(f"{name}_count", labels, total)


def _process() -> Iterator[str]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm") as file:
        virtual, resident = (int(pages) * _PAGE for pages in file.read().split()[:2])
    figures = (
        ("cpu_seconds_total", "counter", "CPU time of the daemon", usage.ru_utime + usage.ru_stime),
        ("resident_memory_bytes", "gauge", "Resident memory of the daemon", resident),
        ("virtual_memory_bytes", "gauge", "Virtual memory of the daemon", virtual),
        ("open_fds", "gauge", "Open files of the daemon", len(os.listdir("/proc/self/fd"))),
        ("max_fds", "gauge", "Files the daemon may open", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        ("start_time_seconds", "gauge", "When the daemon started", _started()),
    )
    for name, kind, help, value in figures:
        yield from _family(f"process_{name}", kind, help, [({}, value)])


def _started() -> float:
    with open("/proc/self/stat") as file:
        ticks = int(file.read().rpartition(")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


_PER_CONTAINER: tuple[tuple[str, str, str, Callable[[Usage], float]], ...] = (
    ("cpu_seconds_total", "counter", "CPU time", lambda use: use.cpu_seconds),
    ("memory_usage_bytes", "gauge", "Memory, less what the kernel can take back,", lambda use: use.memory),
    ("memory_limit_bytes", "gauge", "Memory limit", lambda use: use.memory_limit),
    ("pids", "gauge", "Processes and threads", lambda use: use.pids),
)


def _containers(usage: Iterable[Usage]) -> Iterator[str]:
    found = [({"id": use.id, "name": use.name, "image": use.image}, use) for use in usage]
    for name, kind, help, read in _PER_CONTAINER:
        samples = [(labels, read(use)) for labels, use in found]
        yield from _family(f"wherry_container_{name}", kind, f"{help} of each running container", samples)


def _family(name: str, kind: str, help: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {name} {help}\n# TYPE {name} {kind}\n"
    for labels, value in samples:
        yield _line(name, labels, value)


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    text = ",".join(f'{key}="{_escape(item)}"' for key, item in labels.items())
    number = "+Inf" if value == float("inf") else f"{value:.17g}"
    return f"{name}{{{text}}} {number}\n" if text else f"{name} {number}\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
