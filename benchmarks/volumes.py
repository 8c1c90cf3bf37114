"""Volumes: made and removed."""

from collections.abc import Iterator

from benchmarks.engines import Row, Side, paired
from benchmarks.peer import Engine

_NAME = "wherry-bench-volume"


def volume_rows(sides: list[Side], runs: int) -> Iterator[Row]:
    """Through the API, one after the other."""
    seconds = paired(sides, runs, lambda side: _create_and_remove(side.engine))
    yield Row("volume create + remove", "ms", seconds[0] * 1e3, seconds[1] * 1e3 if len(seconds) > 1 else None, "1/3")


def _create_and_remove(engine: Engine) -> None:
    engine.call("POST", "/volumes/create", {"Name": _NAME})
    engine.call("DELETE", f"/volumes/{_NAME}")
