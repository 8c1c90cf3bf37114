"""Sizes, durations, moments and columns."""

from __future__ import annotations

import pytest

from wherry.cli import ports, tabulate, units
from wherry.cli.help import flag_usages
from wherry.cli.reference import check, familiar, split
from wherry.cli.suggest import unknown_command
from wherry.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("10", 10), ("1k", 1024), ("1kb", 1024), ("1KiB", 1024), ("1.5g", 3 << 29), ("2 m", 2 << 20), ("1b", 1)],
)
def test_ram_bytes(text: str, size: int) -> None:
    assert units.ram_bytes(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1x", "1kbb", "1 2k", "k"])
def test_no_ram_bytes(text: str) -> None:
    with pytest.raises(InvalidArgument):
        units.ram_bytes(text)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("0", 0), ("1.5s", 1500000000), ("1h2m3s4ms5us6ns", 3723004005006), ("-5m", -300000000000), (".5s", 500000000)],
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert units.parse_duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "5", "x", "1y", "1..5s", "-", "s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(InvalidArgument, match="time: "):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (59 * 60, "59 minutes"),
        (3600, "About an hour"),
        (5399, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (59 * 86400, "8 weeks"),
        (60 * 86400, "2 months"),
        (729 * 86400, "24 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_human_durations(seconds: float, text: str) -> None:
    assert units.human_duration(seconds) == text


def test_human_sizes() -> None:
    sizes = [units.decimal_size(size) for size in (0, 999, 1000, 1234567, 10**12)]
    assert sizes == ["0B", "999B", "1kB", "1.235MB", "1TB"]
    assert units.decimal_size(1234567, 3) == "1.23MB"
    assert units.binary_size(25276514304) == "23.54GiB"


def test_columns_are_runs_of_lines() -> None:
    text = tabulate.align("A\tB\tC\nlong long long\tb\tc\nalone\n\tx\ty\n")
    assert text == ("A                B         C\nlong long long   b         c\nalone\n          x         y\n")


def test_ports() -> None:
    def port(private: int, public: int = 0, ip: str = "", kind: str = "tcp") -> dict[str, object]:
        return {"PrivatePort": private, "PublicPort": public, "IP": ip, "Type": kind}

    assert ports.display([port(80)]) == "80/tcp"
    assert ports.display([port(80, 8080, "0.0.0.0"), port(80, 8080, "::")]) == "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
    assert ports.display([port(number) for number in (82, 80, 81, 90)]) == "80-82/tcp, 90/tcp"
    assert ports.display([port(number, number, "0.0.0.0") for number in (80, 81)]) == "0.0.0.0:80-81->80-81/tcp"


def test_help_wraps_as_docker() -> None:
    table = (
        ("add-host", "", "list", None, "Add a custom host-to-IP mapping (host:ip)"),
        ("attach", "a", "bool", True, "Attach"),
        ("pull", "", "string", "missing", "When"),
    )
    assert flag_usages(table, 60) == (
        "      --add-host list   Add a custom host-to-IP\n"
        "                        mapping (host:ip)\n"
        "  -a, --attach          Attach (default true)\n"
        '      --pull string     When (default "missing")\n'
    )


@pytest.mark.parametrize(
    ("image", "parts", "short"),
    [
        ("busybox", ("docker.io", "library/busybox", "", ""), "busybox:latest"),
        ("a/b:1", ("docker.io", "a/b", "1", ""), "a/b:1"),
        ("docker.io/library/x", ("docker.io", "library/x", "", ""), "x:latest"),
        ("localhost:5000/a", ("localhost:5000", "a", "", ""), "localhost:5000/a:latest"),
        ("r.example/a@sha256:0", ("r.example", "a", "", "sha256:0"), "r.example/a@sha256:0"),
    ],
)
def test_references(image: str, parts: tuple[str, str, str, str], short: str) -> None:
    assert split(image) == parts
    assert familiar(image) == short


def test_upper_case_is_no_repository() -> None:
    with pytest.raises(InvalidArgument, match=r"repository name \(library/UPPER\) must be lowercase"):
        check("UPPER")


def test_suggestion() -> None:
    assert "Did you mean: wherry ps\n" in unknown_command("pss")
    assert "Did you mean: wherry container rename\n" in unknown_command("container renam")
    assert unknown_command("swarm") == "wherry: 'wherry swarm' is not implemented yet"
