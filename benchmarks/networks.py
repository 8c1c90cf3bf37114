"""Networks: made and removed, containers connected and disconnected, ports published."""

import time
from collections.abc import Iterator
from statistics import median

from benchmarks.engines import IMAGE, LABEL, Row, Side, paired, remove_all, settle, start_one
from benchmarks.peer import Engine, processes

_NAME = "wherry-bench-network"
_FIRST = 20000


def network_rows(sides: list[Side], runs: int) -> Iterator[Row]:
    """Through the API, one after the other."""

    def row(name: str, target: str, seconds: list[float]) -> Row:
        return Row(name, "ms", seconds[0] * 1e3, seconds[1] * 1e3 if len(seconds) > 1 else None, target)

    yield row("network create + remove", "1/5", paired(sides, runs, lambda side: _create_and_remove(side.engine)))
    running = {}
    for side in sides:
        side.engine.call("POST", "/networks/create", {"Name": _NAME, "EnableIPv6": False})
        running[side.engine.name] = start_one(side.engine)
    yield row(
        "network connect + disconnect of a running container",
        "1/5",
        paired(sides, runs, lambda side: _connect_and_disconnect(side.engine, running[side.engine.name])),
    )
    for side in sides:
        remove_all(side.engine)
        side.engine.call("DELETE", f"/networks/{_NAME}")
    starts = []
    for count, shown in ((0, "no published port"), (1, "1 published port"), (1000, "a range of 1000 published ports")):
        # dockerd takes seconds for a thousand.
        seconds = _starts(sides, count, runs if count < 1000 else max(3, runs // 10))
        starts.append(seconds)
        yield row(f"start with {shown}", "1/10", seconds)
    difference = [one - thousand for one, thousand in zip(starts[2], starts[1], strict=True)]
    yield row("start with 1000 ports less start with 1", "at most 5 ms", difference)
    figures = [_cost(side, 1000) for side in sides]
    for index, (name, unit) in enumerate((("memory", "MB"), ("processes", ""))):
        peer = figures[1][index] if len(figures) > 1 else None
        target = "under 1 MB" if unit else "none"
        yield Row(f"engine {name} added by 1000 published ports", unit, figures[0][index], peer, target)


def _create_and_remove(engine: Engine) -> None:
    engine.call("POST", "/networks/create", {"Name": _NAME, "EnableIPv6": False})
    engine.call("DELETE", f"/networks/{_NAME}")


def _connect_and_disconnect(engine: Engine, container: str) -> None:
    engine.call("POST", f"/networks/{_NAME}/connect", {"Container": container})
    engine.call("POST", f"/networks/{_NAME}/disconnect", {"Container": container})


def _create(engine: Engine, count: int) -> str:
    ports = range(_FIRST, _FIRST + count)
    body = {
        "Image": IMAGE,
        "Cmd": ["sleep", "86400"],
        "Labels": {LABEL: "1"},
        "ExposedPorts": {f"{port}/tcp": {} for port in ports},
        "HostConfig": {"PortBindings": {f"{port}/tcp": [{"HostPort": str(port)}] for port in ports}},
    }
    made: str = engine.call("POST", "/containers/create", body)["Id"]
    return made


def _starts(sides: list[Side], count: int, runs: int) -> list[float]:
    times: list[list[float]] = [[] for _ in sides]
    for run in range(runs + 1):
        for index, side in enumerate(sides):
            container = _create(side.engine, count)
            begin = time.perf_counter()
            side.engine.call("POST", f"/containers/{container}/start")
            if run:
                times[index].append(time.perf_counter() - begin)
            side.engine.call("DELETE", f"/containers/{container}?force=1")
            time.sleep(0.1)
    return [median(series) for series in times]


def _cost(side: Side, count: int) -> tuple[float, float]:
    """(megabytes, processes) of the engine for one container's published ports, less those for one without any."""
    side.engine.call("DELETE", f"/containers/{_create(side.engine, count)}?force=1")
    found = []
    for number in (0, count):
        container = _create(side.engine, number)
        side.engine.call("POST", f"/containers/{container}/start")
        settle()
        found.append((side.memory(), len(processes(*side.marks))))
        side.engine.call("DELETE", f"/containers/{container}?force=1")
        settle()
    return (found[1][0] - found[0][0]) / 1e6, found[1][1] - found[0][1]
