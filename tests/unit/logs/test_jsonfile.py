import asyncio
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.logs import jsonfile
from wherry.logs.frame import STDERR, STDOUT
from wherry.logs.jsonfile import JSONFile
from wherry.logs.lines import LONGEST, character_boundary, cut, has_long_line
from wherry.logs.reader import LogRecord, read_log
from wherry.logs.rotation import Rotation


def collect(path: Path, **options: int | None) -> list[LogRecord]:
    async def run() -> list[LogRecord]:
        return [record async for record in read_log(path, **options)]  # type: ignore[arg-type]

    return asyncio.run(run())


def lines(path: Path, **options: int | None) -> list[bytes]:
    return [record.line for record in collect(path, **options)]


@given(st.lists(st.text(alphabet='ab\\n"\n\t\x1b\x00\x7fé\U0001f600', max_size=12), min_size=1))
def test_every_line_is_one_record(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    text = "\n".join(texts)
    log = JSONFile(str(path), Rotation(0, 1))
    whole, _, rest = text.rpartition("\n")
    for piece in (whole + "\n" if "\n" in text else "", rest):
        if piece:
            log.write(STDOUT, piece.encode())
    log.close()
    expected = [line for line in re.split(r"(?<=\n)", text) if line]
    with path.open("rb") as file:
        assert [json.loads(line)["log"] for line in file] == expected
    assert lines(path) == [line.encode() for line in expected]


def test_invalid_utf8_is_replaced(tmp_path: Path) -> None:
    log = JSONFile(str(tmp_path / "log"), Rotation(0, 1))
    log.write(STDERR, b"\xff\xfeok\n")
    log.close()
    (record,) = collect(tmp_path / "log")
    assert record.stream == "stderr"
    assert record.line == "��ok\n".encode()


def test_rotation_keeps_the_newest_and_readers_see_one_log(tmp_path: Path) -> None:
    log = JSONFile(str(tmp_path / "log"), Rotation(1000, 3))
    for number in range(100):
        log.write(STDOUT, b"%04d\n" % number)
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    seen = lines(tmp_path / "log")
    assert seen == [b"%04d\n" % number for number in range(100 - len(seen), 100)]
    assert lines(tmp_path / "log", tail=15) == seen[-15:]


def test_one_file_is_emptied_in_place(tmp_path: Path) -> None:
    log = JSONFile(str(tmp_path / "log"), Rotation(200, 1))
    for number in range(10):
        log.write(STDOUT, b"%d\n" % number)
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert lines(tmp_path / "log")[-1] == b"9\n"


def test_half_a_record_is_dropped_at_open(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"log":"a\\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}\n{"log":"b')
    log = JSONFile(str(path), Rotation(0, 1))
    log.write(STDOUT, b"c\n")
    log.close()
    assert lines(path) == [b"a\n", b"c\n"]


def _write_log(path: Path, times: list[int], width: int = 3) -> None:
    with path.open("wb") as file:
        for index, second in enumerate(times):
            stamp = jsonfile._rfc3339(second * 1_000_000_000 + 5).decode()
            text = json.dumps({"log": f"{index:0{width}d}\n", "stream": "stdout", "time": stamp})
            file.write(text.encode() + b"\n")


@given(
    times=st.lists(st.integers(1_700_000_000, 1_700_000_040), max_size=30).map(sorted),
    since=st.integers(1_699_999_999, 1_700_000_041),
    until=st.integers(1_699_999_999, 1_700_000_041),
    tail=st.none() | st.integers(0, 35),
    width=st.sampled_from([1, 4290]),
)
def test_bounds(
    tmp_path_factory: pytest.TempPathFactory, times: list[int], since: int, until: int, tail: int | None, width: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    _write_log(path, times, width)
    expected = [
        index for index, second in enumerate(times) if second <= until - 1 or second * 10**9 + 5 <= until * 10**9
    ]
    if tail is not None:
        expected = expected[len(expected) - min(tail, len(expected)) :]
    expected = [index for index in expected if times[index] >= since]
    found = lines(path, since=since * 10**9, until=until * 10**9, tail=tail)
    assert [int(line) for line in found] == expected


def test_no_file_has_no_records(tmp_path: Path) -> None:
    assert lines(tmp_path / "none") == []


def test_follow_sees_what_comes_later_across_a_rotation(tmp_path: Path) -> None:
    async def run() -> list[bytes]:
        log = JSONFile(str(tmp_path / "log"), Rotation(300, 2))
        log.write(STDOUT, b"first\n")
        seen: list[bytes] = []
        async for record in read_log(tmp_path / "log", follow=True, still_running=lambda: len(seen) < 12):
            seen.append(record.line)
            if len(seen) < 12:
                log.write(STDOUT, b"%d\n" % len(seen))
        log.close()
        return seen

    async def bounded() -> list[bytes]:
        async with asyncio.timeout(20):
            return await run()

    assert asyncio.run(bounded()) == [b"first\n", *(b"%d\n" % number for number in range(1, 12))]


@given(st.text(min_size=1, max_size=6), st.integers(0, 8))
def test_character_boundary_never_halves_a_character(text: str, cut: int) -> None:
    data = text.encode()[: max(1, cut)]
    boundary = character_boundary(data)
    assert data[:boundary].decode("utf-8", "strict").encode() == data[:boundary]
    assert len(data) - boundary < 4


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 5, LONGEST - 1, LONGEST, LONGEST + 1, 2 * LONGEST + 5]), st.booleans()))
)
def test_long_lines_are_cut_alike_wherever_reads_end(shape: list[tuple[int, bool]]) -> None:
    data = b"".join(b"x" * size + b"\n" * ends for size, ends in shape)
    pieces = cut(data)
    assert b"".join(pieces) == data
    assert all(len(piece.rstrip(b"\n")) <= LONGEST for piece in pieces)
    assert has_long_line(data) == any(len(line) > LONGEST for line in data.split(b"\n"))


def test_one_write_larger_than_a_file_fills_several(tmp_path: Path) -> None:
    log = JSONFile(str(tmp_path / "log"), Rotation(1000, 100))
    text = b"".join(b"%04d\n" % number for number in range(200)) + b"y" * 3000 + b"\n"
    log.write(STDOUT, text)
    log.close()
    sizes = sorted(path.stat().st_size for path in tmp_path.iterdir())
    assert sizes[-2] <= 1000 < sizes[-1]
    assert b"".join(lines(tmp_path / "log")) == text


def test_attributes_come_with_each_record(tmp_path: Path) -> None:
    attributes = {"tag": 'a","stream":"stdout","time":"x', "k": "v"}
    log = JSONFile(str(tmp_path / "log"), Rotation(0, 1), json.dumps(attributes))
    log.write(STDOUT, b"a\nb\n")
    log.close()
    assert [(record.line, record.attributes) for record in collect(tmp_path / "log")] == [
        (b"a\n", attributes),
        (b"b\n", attributes),
    ]
    assert list(json.loads((tmp_path / "log").read_bytes().splitlines()[0])) == ["log", "stream", "attrs", "time"]
