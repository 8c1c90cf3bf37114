"""What is asked of an engine that has much: 1000 containers to list, images, layers and volumes to account for."""

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.engines import IMAGE, LABEL, Row, Side, paired, remove_all, start_one

_IMAGES, _RUNNING, _STOPPED, _MANY, _FILES = 50, 50, 150, 1000, 100


def stored_rows(sides: list[Side], runs: int) -> Iterator[Row]:
    """`system df` with 50 images and 200 containers (50 of them running); lists and inspections at 1000 containers."""
    for side in sides:
        for _ in range(_RUNNING):
            start_one(side.engine)
        _create(side, _STOPPED)
    with _images(sides):
        yield _row("system df, 50 images and 200 containers, API", "1/10", sides, runs, "/system/df")
        yield _row("ps -a -s with 200 containers, API", "", sides, runs, "/containers/json?all=1&size=1")
    last = ["" for _ in sides]
    for index, side in enumerate(sides):
        last[index] = _create(side, _MANY - _RUNNING - _STOPPED)
    yield _row(f"GET /containers/json?all=1 at {_MANY} containers", "no slower", sides, runs, "/containers/json?all=1")
    paths = {side.engine.name: f"/containers/{id}/json" for side, id in zip(sides, last, strict=True)}
    yield _row(f"GET /containers/ID/json at {_MANY} containers", "no slower", sides, runs, paths)
    for side in sides:
        remove_all(side.engine)


def _row(name: str, target: str, sides: list[Side], runs: int, path: str | dict[str, str]) -> Row:
    def ask(side: Side) -> None:
        side.engine.call("GET", path if isinstance(path, str) else path[side.engine.name])

    seconds = paired(sides, runs, ask)
    return Row(name, "ms", seconds[0] * 1e3, seconds[1] * 1e3 if len(seconds) > 1 else None, target)


def _create(side: Side, count: int) -> str:
    body = {"Image": IMAGE, "Cmd": ["true"], "Labels": {LABEL: "1"}, "HostConfig": {"NetworkMode": "none"}}
    made = ""
    for _ in range(count):
        made = side.engine.call("POST", "/containers/create", body)["Id"]
    return made


@contextmanager
def _images(sides: list[Side]) -> Iterator[None]:
    names = [f"wherry-bench-{number}:latest" for number in range(_IMAGES)]
    for side in sides:
        for number, name in enumerate(names):
            repository, _, tag = name.partition(":")
            side.engine.call("POST", f"/images/create?fromSrc=-&repo={repository}&tag={tag}", _tree(number))
    try:
        yield
    finally:
        for side in sides:
            for name in names:
                side.engine.call("DELETE", f"/images/{name}?force=1")


def _tree(number: int) -> bytes:
    """A tar of some small files that no other image has."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for index in range(_FILES):
            content = f"{number} {index}\n".encode() * 50
            member = tarfile.TarInfo(f"data/{index}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()
