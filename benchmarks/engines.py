"""The engine's figures through its API and its CLI, paired with a peer where one is given."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.peer import Engine, available, processes, pss

IMAGE = "wherry-bench:latest"
LABEL = "wherry.bench"
_REST_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two engines: how to reach it, its command line, and which processes are its own."""

    engine: Engine
    command: tuple[str, ...]
    marks: tuple[str, ...]

    def memory(self) -> int:
        """PSS of every process of the engine, in bytes."""
        return sum(pss(pid) for pid in {self.engine.pid(), *processes(*self.marks)})


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of each side. `target` is the greatest allowed ratio ours/peer (least, for rates) or an absolute."""

    name: str
    unit: str
    ours: float
    peer: float | None
    target: str


def cycle(engine: Engine, network: str) -> None:
    """create + start + wait + remove."""
    created = engine.call("POST", "/containers/create", _config(["true"], network))["Id"]
    engine.call("POST", f"/containers/{created}/start")
    engine.call("POST", f"/containers/{created}/wait")
    engine.call("DELETE", f"/containers/{created}")


def exec_true(engine: Engine, container: str) -> None:
    """Run `true` in a running container and learn its status."""
    made = engine.call("POST", f"/containers/{container}/exec", {"Cmd": ["true"], "AttachStdout": True})["Id"]
    engine.upgrade(f"/exec/{made}/start", {"Detach": False})
    if engine.call("GET", f"/exec/{made}/json")["ExitCode"] != 0:
        raise RuntimeError(f"{engine.name}: exec of true failed")


def _config(command: list[str], network: str = "bridge") -> dict[str, object]:
    return {"Image": IMAGE, "Cmd": command, "Labels": {LABEL: "1"}, "HostConfig": {"NetworkMode": network}}


def paired(sides: list[Side], runs: int, step: Callable[[Side], None]) -> list[float]:
    """Median seconds of `step` for each side, in turn, so that the machine's moods meet both."""
    times: list[list[float]] = [[] for _ in sides]
    for run in range(runs + 2):
        for index, side in enumerate(sides):
            start = time.perf_counter()
            step(side)
            if run >= 2:
                times[index].append(time.perf_counter() - start)
            # What a step leaves to the kernel's workers (namespaces, mounts, cgroups) must not meet the other side's.
            time.sleep(_REST_SECONDS)
    return [median(series) for series in times]


def latency_rows(sides: list[Side], runs: int) -> Iterator[Row]:
    """One after the other, through the API and by whole commands."""

    def row(name: str, target: str, step: Callable[[Side], None], count: int = runs) -> Row:
        seconds = paired(sides, count, step)
        return Row(name, "ms", seconds[0] * 1e3, seconds[1] * 1e3 if len(seconds) > 1 else None, target)

    yield row("create + start + wait + remove, default network", "1/10", lambda s: cycle(s.engine, "bridge"))
    yield row("create + start + wait + remove, --network none", "1/12", lambda s: cycle(s.engine, "none"))
    running = {}
    for side in sides:
        running[side.engine.name] = start_one(side.engine)
    yield row("exec of true through the API", "1/6", lambda s: exec_true(s.engine, running[s.engine.name]))
    yield row("run --rm IMAGE true, whole command", "1/4", lambda s: shell(s, "run", "--rm", IMAGE, "true"))
    for side in sides:
        remove_all(side.engine)


def start_one(engine: Engine) -> str:
    """A container that sleeps; its id."""
    made: str = engine.call("POST", "/containers/create", _config(["sleep", "86400"]))["Id"]
    engine.call("POST", f"/containers/{made}/start")
    return made


def shell(side: Side, *arguments: str) -> str:
    """Run the side's command line; its output."""
    return subprocess.run([*side.command, *arguments], check=True, capture_output=True, text=True).stdout


def crowd_rows(sides: list[Side], count: int, runs: int) -> Iterator[Row]:
    """With many containers: memory, rate of starts, listing, removing. One side after the other, each alone."""
    figures = [_crowd(side, count, runs) for side in sides]
    names = (
        ("idle engine processes, PSS", "MB", "less"),
        (f"{count} sleeping containers: engine processes, PSS, each", "MB", "0.6 MB"),
        (f"{count} sleeping containers: all memory but their own, each", "MB", "0.6 MB"),
        (f"starting {count} through the API, 8 at a time", "per second", "at least 4 times"),
        (f"ps with {count} containers, whole command", "ms", "at most 2 times"),
        (f"rm --force of {min(100, count)} in one command", "s", "1/5"),
    )
    for index, (name, unit, target) in enumerate(names):
        peer = figures[1][index] if len(figures) > 1 else None
        yield Row(name, unit, figures[0][index], peer, target)


def _crowd(side: Side, count: int, runs: int) -> tuple[float, ...]:
    engine = side.engine
    # Warm: what the first container of a kind makes once is no container's cost.
    engine.call("DELETE", f"/containers/{start_one(engine)}?force=1")
    settle()
    idle = side.memory()
    free = available()
    started = time.perf_counter()
    containers = _start_many(engine, count)
    rate = count / (time.perf_counter() - started)
    settle()
    own = sum(pss(pid) for pid in _container_processes(engine, containers))
    memory = (side.memory() - idle) / count
    everything = (free - available() - own) / count
    listing = median(_timed(lambda: shell(side, "ps")) for _ in range(runs))
    victims = containers[: min(100, count)]
    removal = _timed(lambda: shell(side, "rm", "--force", *victims))
    remove_all(engine)
    return idle / 1e6, memory / 1e6, everything / 1e6, rate, listing * 1e3, removal


def _start_many(engine: Engine, count: int) -> list[str]:
    def work(share: int) -> list[str]:
        connection = engine.another()
        try:
            return [start_one(connection) for _ in range(share)]
        finally:
            connection.close()

    shares = [count // 8 + (index < count % 8) for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        return [made for part in pool.map(work, shares) for made in part]


def _container_processes(engine: Engine, containers: list[str]) -> list[int]:
    return [engine.call("GET", f"/containers/{container}/json")["State"]["Pid"] for container in containers]


def _timed(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def settle() -> None:
    """Let deferred work (namespaces being torn down, caches) end before memory is read."""
    os.sync()
    time.sleep(2)


def remove_all(engine: Engine) -> None:
    """Remove every container of the benchmark."""
    for container in engine.call("GET", f'/containers/json?all=1&filters={{"label":["{LABEL}"]}}'):
        engine.call("DELETE", f"/containers/{container['Id']}?force=1&v=1")


@contextmanager
def image(side: Side, archive: Path) -> Iterator[None]:
    """The benchmark's image, imported from the same tar on both sides."""
    name, _, tag = IMAGE.partition(":")
    side.engine.call("POST", f"/images/create?fromSrc=-&repo={name}&tag={tag}", archive.read_bytes())
    try:
        yield
    finally:
        remove_all(side.engine)
        side.engine.call("DELETE", f"/images/{IMAGE}?force=1")
