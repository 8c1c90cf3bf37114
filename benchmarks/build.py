"""Builds: what is cached, small steps, and copies of many files. Whole commands, paired with docker's."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from benchmarks.engines import IMAGE, Row, Side

_STEPS = 25
_FILES = 30_000
_FILE_SIZE = 35_000
_LAYERS = 6


def build_rows(sides: list[Side], runs: int) -> Iterator[Row]:
    """The table of the builder: targets are ratios to BuildKit's figures for the same command."""
    place = os.environ.get("WHERRY_BENCH_CONTEXTS")
    with tempfile.TemporaryDirectory(prefix="wherry-bench-build-", dir=place) as directory:
        steps, files = Path(directory) / "steps", Path(directory) / "files"
        _write_steps(steps)
        yield _paired(sides, f"{_STEPS} small RUN steps, no cache", "1/5", steps, runs, "--no-cache")
        yield _paired(sides, f"{_STEPS} steps, all cached, small context", "1/3", steps, runs)
        _write_files(files)
        yield _paired(
            sides, f"COPY of {_FILES} files (1 GB) into {_LAYERS} layers, cold", "no slower", files, 1, cold=True
        )
        yield _paired(sides, f"the same, all cached, context of {_FILES} unchanged files", "1/2", files, runs)


def _paired(
    sides: list[Side], name: str, target: str, context: Path, runs: int, *flags: str, cold: bool = False
) -> Row:
    """Turn by turn, so that what else the machine does meets both alike; medians."""
    times: list[list[float]] = [[] for _ in sides]
    for round_number in range(1 if cold else runs + 1):
        for side, found in zip(sides, times, strict=True):
            taken = _timed(lambda side=side: _build(side, context, *flags))  # type: ignore[misc]
            # The first makes the cache there is to measure.
            if cold or round_number:
                found.append(taken)
    ours, peer = median(times[0]), median(times[1]) if len(sides) > 1 else None
    return Row(name, "s", ours, peer, target)


def _build(side: Side, context: Path, *flags: str) -> None:
    command, seen = [*side.command], str(context)
    peer = os.environ.get("WHERRY_BENCH_PEER_BUILD", "").split()
    if peer and side.engine.name != "wherry":
        # A docker with buildx that sees another root directory.
        command, seen = peer, "/" + os.path.relpath(context, os.environ.get("WHERRY_BENCH_PEER_ROOT", "/"))
    subprocess.run([*command, "build", "-q", *flags, seen], check=True, capture_output=True)


def _timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _write_steps(directory: Path) -> None:
    directory.mkdir()
    lines = [f"FROM {IMAGE}", *(f"RUN echo {number} > /f{number}" for number in range(_STEPS))]
    (directory / "Dockerfile").write_text("\n".join(lines) + "\n")


def _write_files(directory: Path) -> None:
    noise = os.urandom(1 << 20)
    number = 0
    for layer in range(_LAYERS):
        for group in range(50):
            path = directory / f"l{layer}" / f"d{group}"
            path.mkdir(parents=True)
            for name in range(_FILES // _LAYERS // 50):
                start = number * 7919 % (len(noise) - _FILE_SIZE)
                (path / f"f{name}").write_bytes(noise[start : start + _FILE_SIZE] + str(number).encode())
                number += 1
    lines = ["FROM scratch", *(f"COPY l{layer} /l{layer}" for layer in range(_LAYERS))]
    (directory / "Dockerfile").write_text("\n".join(lines) + "\n")
