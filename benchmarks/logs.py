"""Logs: a container that prints a gigabyte, and the end of what it printed."""

import io
import os
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median

from benchmarks.engines import IMAGE, LABEL, Row, Side, shell
from benchmarks.peer import processes

_IMAGE = "wherry-bench-logs:latest"
_FILE = 16 << 20
_TIMES = 64
_REST = 2.0
_SAMPLE_SECONDS = 0.05
_TICK = os.sysconf("SC_CLK_TCK")
_WIDTHS = {"short": 64, "long": 8192}


def log_rows(sides: list[Side], runs: int) -> Iterator[Row]:
    """Wall time and the engine's processor time for 1 GB by json-file; then reading the end of that log."""
    with _images(sides):
        for name, width in _WIDTHS.items():
            figures = [_print(side, name, keep=name == "short") for side in sides]
            for index, what, target in ((0, "wall time", "no slower"), (1, "engine CPU", "at most half")):
                peer = figures[1][index] if len(figures) > 1 else None
                yield Row(f"1 GB in lines of {width} bytes, {what}", "s", figures[0][index], peer, target)
        bounded = _print(sides[0], "short", bounded=True)
        yield Row("the same short lines, bounded and compressed by default, wall time", "s", bounded[0], None, "")
        yield Row("the same short lines, bounded and compressed by default, engine CPU", "s", bounded[1], None, "")
        yield _command(sides, runs, "logs --tail 100 of 1 GB, whole command", "--tail", "100")
        yield _command(sides, 3, "logs --since the last second of 1 GB, whole command", "--since", "")
        for side in sides:
            shell(side, "rm", "--force", _kept(side))


def _kept(side: Side) -> str:
    return f"wherry-bench-log-{side.engine.name}"


def _print(side: Side, name: str, *, keep: bool = False, bounded: bool = False) -> tuple[float, float]:
    """Seconds of wall time and of the engine's processor time."""
    script = f"i=0; while [ $i -lt {_TIMES} ]; do cat /{name}; i=$((i+1)); done; sleep {_REST:g}; echo end"
    options = {"max-size": "-1"} if side.engine.name == "wherry" and not bounded else {}
    config = {
        "Image": _IMAGE,
        "Cmd": ["sh", "-c", script],
        "Labels": {LABEL: "1"},
        "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "json-file", "Config": options}},
    }
    query = f"?name={_kept(side)}" if keep else ""
    made = side.engine.call("POST", f"/containers/create{query}", config)["Id"]
    with _processor_time(side) as used:
        started = time.perf_counter()
        side.engine.call("POST", f"/containers/{made}/start")
        side.engine.call("POST", f"/containers/{made}/wait")
        wall = time.perf_counter() - started - _REST
    if not keep:
        side.engine.call("DELETE", f"/containers/{made}")
    return wall, used[0]


@contextmanager
def _processor_time(side: Side) -> Iterator[list[float]]:
    """What the engine's processes use, those too that end meanwhile: each is looked at until it is gone."""
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    ended = threading.Event()

    def sample() -> None:
        for pid in {side.engine.pid(), *processes(*side.marks)}:
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            seconds = (int(fields[11]) + int(fields[12])) / _TICK
            first.setdefault(pid, seconds if not first_round.is_set() else 0.0)
            last[pid] = seconds

    def watch() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            sample()

    first_round = threading.Event()
    sample()
    first_round.set()
    thread = threading.Thread(target=watch)
    thread.start()
    used = [0.0]
    try:
        yield used
    finally:
        ended.set()
        thread.join()
        sample()
        used[0] = sum(last[pid] - first[pid] for pid in last)


def _command(sides: list[Side], runs: int, name: str, flag: str, value: str) -> Row:
    figures = []
    for side in sides:
        moment = value
        if flag == "--since":
            finished = side.engine.call("GET", f"/containers/{_kept(side)}/json")["State"]["FinishedAt"]
            moment = (datetime.fromisoformat(finished[:19]) - timedelta(seconds=1)).isoformat() + "Z"
        seconds = []
        # Reading all of it, as dockerd does for --since, takes a minute and a half.
        for _ in range(runs if side is sides[0] or flag == "--tail" else 1):
            started = time.perf_counter()
            shown = shell(side, "logs", flag, moment, _kept(side))
            seconds.append(time.perf_counter() - started)
            if not shown.endswith("end\n") or shown.count("\n") > 101:
                raise RuntimeError(f"{side.engine.name}: logs {flag} showed {len(shown)} characters: {shown[-80:]!r}")
        figures.append(median(seconds) * 1e3)
    return Row(name, "ms", figures[0], figures[1] if len(figures) > 1 else None, "50 ms")


@contextmanager
def _images(sides: list[Side]) -> Iterator[None]:
    """The benchmark's image with what is to be printed in it."""
    for side in sides:
        made = side.engine.call("POST", "/containers/create", {"Image": IMAGE, "Cmd": ["true"]})["Id"]
        side.engine.call("PUT", f"/containers/{made}/archive?path=/", _texts())
        repository, _, tag = _IMAGE.partition(":")
        side.engine.call("POST", f"/commit?container={made}&repo={repository}&tag={tag}")
        side.engine.call("DELETE", f"/containers/{made}")
    try:
        yield
    finally:
        for side in sides:
            side.engine.call("DELETE", f"/images/{_IMAGE}?force=1")


def _texts() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, width in _WIDTHS.items():
            entry = tarfile.TarInfo(name)
            entry.size = _FILE
            line = (b"0123456789 abcdef " * (width // 18 + 1))[: width - 1] + b"\n"
            tar.addfile(entry, io.BytesIO(line * (_FILE // width)))
    return out.getvalue()
