"""The paged format, rotation with compression, and reading both at any place."""

import asyncio
import gzip
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.logs import pages, squeeze
from wherry.logs.formats import LogRecord
from wherry.logs.frame import STDERR, STDOUT
from wherry.logs.jsonfile import JSONFile
from wherry.logs.pages import PAGE, PagedLog
from wherry.logs.reader import read_log
from wherry.logs.rotation import Rotation


def collect(path: Path, **options: Any) -> list[LogRecord]:
    async def run() -> list[LogRecord]:
        return [record async for record in read_log(path, **options)]

    return asyncio.run(run())


class Clock:
    """A clock that a test turns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_700_000_000_000_000_000
        monkeypatch.setattr("time.time_ns", lambda: self.now)


def fill(log: PagedLog | JSONFile, clock: Clock, writes: int, lines: int, width: int = 90) -> list[tuple[int, bytes]]:
    """What was written: (time, line)."""
    written = []
    for number in range(writes):
        clock.now += 1_000_000
        text = [b"%08d " % (number * lines + index) + b"x" * width + b"\n" for index in range(lines)]
        log.write(STDOUT if number % 2 else STDERR, b"".join(text))
        written += [(clock.now, line) for line in text]
    return written


def some(written: list[tuple[int, bytes]], since: int, until: int, tail: int | None) -> list[bytes]:
    found = [(at, line) for at, line in written if not until or at <= until]
    if tail is not None:
        found = found[len(found) - min(tail, len(found)) :]
    return [line for at, line in found if at >= since]


@pytest.mark.parametrize("paged", [True, False])
@pytest.mark.parametrize("compressed", [True, False])
def test_every_way_of_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paged: bool, compressed: bool) -> None:
    clock = Clock(monkeypatch)
    path = tmp_path / "made" / "log"
    path.parent.mkdir()
    rotation = Rotation(PAGE * 3, 4)
    log = PagedLog(str(path), rotation) if paged else JSONFile(str(path), rotation)
    written = fill(log, clock, 300, 40, 260)
    log.close()
    if compressed:
        squeeze.compress(str(path), 4)
    names = sorted(entry.name for entry in path.parent.iterdir())
    assert names == ["log", *(f"log.{number}{'.gz' if compressed else ''}" for number in (1, 2, 3))]
    seen = collect(path, paged=paged)
    assert sum(len(record.line) for record in seen) > 3 * PAGE if paged else seen
    kept = written[len(written) - len(seen) :]
    assert [(record.time_ns, record.line) for record in seen] == kept
    for at in (0, 1, len(kept) // 3, len(kept) // 2, len(kept) - 50, len(kept) - 1):
        moment = kept[at][0]
        for tail in (None, 0, 1, 39, 40, 41, 3000, len(kept) + 5):
            for since, until in ((moment, 0), (0, moment), (moment - 1, moment + 5_000_000), (0, 0)):
                found = [record.line for record in collect(path, paged=paged, since=since, until=until, tail=tail)]
                assert found == some(kept, since, until, tail), (at, tail, since - moment, until)


def test_compressed_files_are_gzip_for_everyone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    log = JSONFile(str(path), Rotation(700_000, 2))
    fill(log, Clock(monkeypatch), 200, 40)
    log.close()
    plain = (tmp_path / "log.1").read_bytes()
    squeeze.compress(str(path), 2)
    assert gzip.decompress((tmp_path / "log.1.gz").read_bytes()) == plain
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["log", "log.1.gz"]


def test_a_rotation_during_compression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    clock = Clock(monkeypatch)
    log = JSONFile(str(path), Rotation(100_000, 3))
    fill(log, clock, 20, 50)
    original = squeeze._member
    content = (tmp_path / "log.1").read_bytes()
    rotated = []

    def member(data: bytes) -> bytes:
        if not rotated:
            rotated.append(True)
            log._files.rotate()
        return original(data)

    monkeypatch.setattr(squeeze, "_member", member)
    squeeze._compress_one(str(path), 1, 3)
    log.close()
    assert gzip.decompress((tmp_path / "log.2.gz").read_bytes()) == content
    assert not (tmp_path / "log.squeeze").exists()


@given(
    pieces=st.lists(
        st.tuples(st.sampled_from([0, 1, 20, 5000, 16384, 70_000, 250_000]), st.booleans()), min_size=1, max_size=14
    )
)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, bool]]) -> None:
    path = tmp_path_factory.mktemp("pages") / "log"
    log = PagedLog(str(path), Rotation(1 << 30, 1))
    whole = b""
    for size, ends in pieces:
        data = b"WL" * (size // 2) + b"\n" if ends else b"z" * min(size, 16384)
        if data:
            log.write(STDOUT, data)
            whole += data
    assert log.lost == 0
    assert log.position == path.stat().st_size
    log.close()
    assert b"".join(record.line for record in collect(path, paged=True)) == whole
    data = path.read_bytes()
    for start in range(0, len(data), PAGE):
        assert not whole or data[start : start + 2] == b"WL"


def test_what_a_crash_left_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    path = tmp_path / "log"
    log = PagedLog(str(path), Rotation(1 << 30, 1), '{"a":"b"}')
    fill(log, clock, 10, 3)
    log.close()
    size = path.stat().st_size
    os.truncate(path, size - 7)
    clock.now -= 10**12  # and the clock was set back
    again = PagedLog(str(path), Rotation(1 << 30, 1))
    again.write(STDOUT, b"after\n")
    again.close()
    seen = collect(path, paged=True)
    assert len(seen) == 28
    assert seen[-1].line == b"after\n"
    assert seen[-1].time_ns >= seen[-2].time_ns
    assert seen[0].attributes == {"a": "b"}


def test_positions_go_on_over_rotations_and_lives(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = PagedLog(str(path), Rotation(10_000, 2))
    total = 0
    for _ in range(100):
        log.write(STDOUT, b"y" * 500 + b"\n")
        total += 501
    log.close()
    again = PagedLog(str(path), Rotation(10_000, 2))
    assert again.position == log.position > total
    again.close()


def test_a_writer_waits_for_what_is_not_delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_SLACK", 1000)
    cursor = tmp_path / "cursor"
    log = PagedLog(str(tmp_path / "log"), Rotation(4000, 2), cursor=str(cursor))
    written = 0
    while log.ready():
        log.write(STDOUT, b"z" * 99 + b"\n")
        written += 100
        assert written < 10_000
    assert written > 4000
    assert cursor.read_bytes()[8:] == b"\1"
    cursor.write_bytes(log.position.to_bytes(8, "little") + b"\0")
    assert log.ready()
    log.close()


def test_following_over_rotations(tmp_path: Path) -> None:
    async def run() -> list[bytes]:
        path = tmp_path / "log"
        log = PagedLog(str(path), Rotation(400, 3))
        log.write(STDOUT, b"first\n")
        seen: list[bytes] = []
        async with asyncio.timeout(20):
            async for record in read_log(path, follow=True, still_running=lambda: len(seen) < 30, paged=True):
                seen.append(record.line)
                if len(seen) < 30:
                    log.write(STDOUT, b"%d\n" % len(seen))
        log.close()
        return seen

    assert asyncio.run(run()) == [b"first\n", *(b"%d\n" % number for number in range(1, 30))]
