"""A seccomp profile over which libseccomp never ends: refused in time, and nobody else waits for it."""

from pathlib import Path
from typing import Any

import pytest

from wherry.errors import InvalidArgument, Unavailable
from wherry.kernel import seccomp
from wherry.runtime import filters
from wherry.runtime.waiting import Wait, drive


def entry(action: str, *conditions: tuple[int, int, int, str]) -> dict[str, Any]:
    arguments = [
        {"index": index, "value": value, "valueTwo": second, "op": f"SCMP_CMP_{operator}"}
        for index, value, second, operator in conditions
    ]
    return {"names": ["mkdir"], "action": f"SCMP_ACT_{action}", "args": arguments}


HARD = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
    "syscalls": [
        entry("ALLOW", (0, 3, 4294967297, "GT"), (1, 2, 2, "GT"), (2, 18446744073709551615, 0, "LT")),
        entry(
            "ALLOW",
            (2, 3, 2114060288, "MASKED_EQ"),
            (0, 4294967295, 2114060288, "LE"),
            (1, 4294967297, 18446744073709551615, "MASKED_EQ"),
        ),
        entry("LOG", (0, 4294967295, 2147483648, "MASKED_EQ")),
        entry("ALLOW", (0, 2147483648, 4294967295, "LT"), (2, 4294967295, 4294967295, "EQ"), (1, 1, 0, "GE")),
        entry("LOG", (0, 2147483648, 3, "LT"), (2, 2147483648, 4294967296, "GE")),
        entry("LOG", (0, 18446744073709551615, 1, "LT"), (2, 4294967296, 3, "GT"), (1, 4294967297, 3, "EQ")),
    ],
}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "DEADLINE", 0.5)
    monkeypatch.setattr(filters, "_too_hard", {})
    monkeypatch.setattr(seccomp, "_compiled", {})


def test_what_never_ends_is_refused_and_remembered(tmp_path: Path) -> None:
    waiting = filters.prepare(HARD, str(tmp_path / "cache"))
    # It hands the monitor's only thread back at once, and says for how long it waits.
    awaited = next(waiting)
    assert isinstance(awaited, Wait)
    assert awaited.seconds <= 0.5
    with pytest.raises(InvalidArgument, match=r"cannot be compiled in 0\.5 s"):
        drive(waiting)
    assert not filters._running
    # The second time nothing is tried.
    with pytest.raises(InvalidArgument):
        next(filters.prepare(HARD, str(tmp_path / "cache")))


def test_only_so_many_at_once(tmp_path: Path) -> None:
    begun = []
    for number in range(4):
        begun.append(filters.prepare({**HARD, "flags": [], "x": number}, str(tmp_path / "cache")))
        next(begun[-1])
    # It stands in line, and is refused when nobody has gone in time.
    late = filters.prepare({**HARD, "x": 5}, str(tmp_path / "cache"))
    assert isinstance(next(late), float)
    with pytest.raises(Unavailable, match="too many"):
        drive(late)
    for waiting in begun:
        waiting.close()
    assert not filters._running


def test_a_profile_that_many_ask_for_at_once_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first containers of a fresh installation all want the default one, at the same time."""
    monkeypatch.setattr(filters, "DEADLINE", 30.0)
    cache = str(tmp_path / "cache")
    plain = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry("ERRNO", (0, 3, 0, "EQ"))]}
    first, *others = [filters.prepare(plain, cache) for _ in range(16)]
    next(first)
    for other in others:
        assert isinstance(next(other), float)
    assert len(filters._running) == 1
    for waiting in (first, *others):
        drive(waiting)
    assert seccomp.compile(plain, cache)


def test_who_is_left_takes_over_when_the_first_one_gives_up(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    first, second = filters.prepare(HARD, cache), filters.prepare(HARD, cache)
    next(first)
    assert isinstance(next(second), float)
    first.close()
    with pytest.raises(InvalidArgument, match="cannot be compiled"):
        drive(second)


def test_what_ends_is_kept_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "DEADLINE", 30.0)
    plain = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry("ERRNO", (0, 3, 0, "EQ"))]}
    cache = str(tmp_path / "cache")
    drive(filters.prepare(plain, cache))
    monkeypatch.setattr(seccomp, "build", lambda _: pytest.fail("compiled again"))
    assert seccomp.compile(plain, cache)
    # Another process finds it on disk.
    monkeypatch.setattr(seccomp, "_compiled", {})
    assert list(filters.prepare(plain, cache)) == []


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"defaultAction": "FOO"}, "unknown action 'FOO'"),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry("ERRNO", (9, 3, 0, "EQ"))]},
            "not a condition on an argument",
        ),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [entry("ERRNO", (number % 6, number << 20, 0, "EQ")) for number in range(1, 6000)],
            },
            "instructions",
        ),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(filters, "DEADLINE", 30.0)
    with pytest.raises(InvalidArgument, match=message):
        drive(filters.prepare(profile, str(tmp_path / "cache")))
