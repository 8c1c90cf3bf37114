"""What running containers cost an engine that looks after them: health checks every second, one sample of stats."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.engines import IMAGE, LABEL, Row, Side, remove_all, settle, shell, start_one
from benchmarks.peer import Engine, processes

_TICKS = os.sysconf("SC_CLK_TCK")
_SECOND = 1_000_000_000
_MEASURED_SECONDS = 15.0


def health_rows(sides: list[Side], count: int) -> Iterator[Row]:
    """With `count` containers that run `true` every second: processor time of the engine and of what it starts."""
    figures = [_health(side, count) for side in sides]
    names = (
        (f"{count} health checks a second: processor time of engine and checks", "s/s", "1/5"),
        (f"{count} health checks a second: checks made", "per second", "not less"),
        ("processor time of one health check", "ms", "1/5"),
    )
    for index, (name, unit, target) in enumerate(names):
        yield Row(name, unit, figures[0][index], figures[1][index] if len(figures) > 1 else None, target)


def _health(side: Side, count: int) -> tuple[float, float, float]:
    check = {"Test": ["CMD", "true"], "Interval": _SECOND, "Timeout": 60 * _SECOND}
    made = []
    for _ in range(count):
        body = {"Image": IMAGE, "Cmd": ["sleep", "86400"], "Labels": {LABEL: "1"}, "Healthcheck": check}
        body["HostConfig"] = {"NetworkMode": "none"}
        made.append(side.engine.call("POST", "/containers/create", body)["Id"])
        side.engine.call("POST", f"/containers/{made[-1]}/start")
    settle()
    pids = {side.engine.pid(), *processes(*side.marks)}
    first, begun = _processor(pids), time.time()
    time.sleep(_MEASURED_SECONDS)
    spent, seconds = _processor(pids) - first, time.time() - begun
    # Each container's log holds the last five: how far they are apart tells how often it is checked.
    rate = sum(_rate(side.engine, container) for container in made)
    remove_all(side.engine)
    return spent / seconds, rate, spent / seconds / rate * 1e3


def _rate(engine: Engine, container: str) -> float:
    log = engine.call("GET", f"/containers/{container}/json")["State"]["Health"]["Log"]
    if len(log) < 2:
        return 1 / _MEASURED_SECONDS
    first, last = (_seconds(log[index]["Start"]) for index in (0, -1))
    return (len(log) - 1) / (last - first)


def _seconds(stamp: str) -> float:
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return time.mktime(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{fraction or 0}")


def _processor(pids: set[int]) -> float:
    """Seconds of processor time of these and of all their children that have ended (proc_pid_stat(5))."""
    ticks = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks += sum(int(field) for field in text.rpartition(")")[2].split()[11:15])
    return ticks / _TICKS


def stats_rows(sides: list[Side], count: int, runs: int) -> Iterator[Row]:
    """`stats --no-stream` of `count` containers, whole command."""
    seconds = []
    for side in sides:
        for _ in range(count):
            start_one(side.engine)
        settle()
        times = []
        for _ in range(runs):
            begun = time.perf_counter()
            shell(side, "stats", "--no-stream")
            times.append(time.perf_counter() - begun)
        seconds.append(sorted(times)[len(times) // 2])
        remove_all(side.engine)
    yield Row(
        f"stats --no-stream of {count} containers, whole command",
        *("ms", seconds[0] * 1e3, seconds[1] * 1e3 if len(seconds) > 1 else None, "1/10"),
    )
