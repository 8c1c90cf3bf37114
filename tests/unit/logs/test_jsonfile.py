import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.errors import InvalidArgument, Unimplemented
from wherry.logs import jsonfile
from wherry.logs.jsonfile import JSONFile
from wherry.logs.reader import LogRecord, read_log
from wherry.logs.stream import _character_boundary
from wherry.logs.target import Rotation, check_options, rotation


def collect(path: Path, **options: int | None) -> list[LogRecord]:
    async def run() -> list[LogRecord]:
        return [record async for record in read_log(path, **options)]  # type: ignore[arg-type]

    return asyncio.run(run())


def lines(path: Path, **options: int | None) -> list[bytes]:
    return [record.line for record in collect(path, **options)]


@given(st.lists(st.text(alphabet='ab\\n"\n\t\x1bé\U0001f600', max_size=12), min_size=1))
def test_every_line_is_one_record(texts: list[str]) -> None:
    text = "\n".join(texts)
    written = jsonfile._encode("stdout", text.encode(), "T").decode()
    records = [json.loads(line)["log"] for line in written.split("\n")[:-1]]
    pieces = [piece + "\n" for piece in text.split("\n")]
    pieces[-1] = pieces[-1][:-1]
    assert [record for record in records if record] == [piece for piece in pieces if piece]


def test_invalid_utf8_is_replaced(tmp_path: Path) -> None:
    log = JSONFile(str(tmp_path / "log"), Rotation(0, 1))
    log.write("stderr", b"\xff\xfeok\n")
    log.close()
    (record,) = collect(tmp_path / "log")
    assert record.stream == "stderr"
    assert record.line == "��ok\n".encode()


def test_rotation_keeps_the_newest_and_readers_see_one_log(tmp_path: Path) -> None:
    log = JSONFile(str(tmp_path / "log"), Rotation(1000, 3))
    for number in range(100):
        log.write("stdout", b"%04d\n" % number)
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    seen = lines(tmp_path / "log")
    assert seen == [b"%04d\n" % number for number in range(100 - len(seen), 100)]
    assert lines(tmp_path / "log", tail=15) == seen[-15:]


def test_one_file_is_emptied_in_place(tmp_path: Path) -> None:
    log = JSONFile(str(tmp_path / "log"), Rotation(200, 1))
    for number in range(10):
        log.write("stdout", b"%d\n" % number)
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert lines(tmp_path / "log")[-1] == b"9\n"


def test_half_a_record_is_dropped_at_open(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"log":"a\\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}\n{"log":"b')
    log = JSONFile(str(path), Rotation(0, 1))
    log.write("stdout", b"c\n")
    log.close()
    assert lines(path) == [b"a\n", b"c\n"]


def _write_log(path: Path, times: list[int], width: int = 3) -> None:
    with path.open("wb") as file:
        for index, second in enumerate(times):
            stamp = jsonfile._rfc3339(second * 1_000_000_000 + 5)
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
        log.write("stdout", b"first\n")
        seen: list[bytes] = []
        async for record in read_log(tmp_path / "log", follow=True, still_running=lambda: len(seen) < 12):
            seen.append(record.line)
            if len(seen) < 12:
                log.write("stdout", b"%d\n" % len(seen))
        log.close()
        return seen

    async def bounded() -> list[bytes]:
        async with asyncio.timeout(20):
            return await run()

    assert asyncio.run(bounded()) == [b"first\n", *(b"%d\n" % number for number in range(1, 12))]


@given(st.text(min_size=1, max_size=6), st.integers(0, 8))
def test_character_boundary_never_halves_a_character(text: str, cut: int) -> None:
    data = text.encode()[: max(1, cut)]
    boundary = _character_boundary(data)
    assert data[:boundary].decode("utf-8", "strict").encode() == data[:boundary]
    assert len(data) - boundary < 4


@pytest.mark.parametrize(
    ("driver", "options", "error"),
    [
        ("json-file", {"max-size": "10x"}, InvalidArgument),
        ("json-file", {"max-size": "0"}, InvalidArgument),
        ("json-file", {"max-file": "2"}, InvalidArgument),
        ("json-file", {"max-size": "1m", "max-file": "0"}, InvalidArgument),
        ("json-file", {"nonsense": "1"}, InvalidArgument),
        ("json-file", {"compress": "true"}, Unimplemented),
        ("none", {"max-size": "1m"}, InvalidArgument),
        ("syslog", {}, Unimplemented),
        ("bogus", {}, InvalidArgument),
    ],
)
def test_options_that_cannot_be_honoured_are_refused(
    driver: str, options: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        check_options(driver, options)


def test_sizes() -> None:
    assert rotation({"max-size": "10m", "max-file": "3"}).max_size == 10 << 20
    assert rotation({}).max_size == 0
