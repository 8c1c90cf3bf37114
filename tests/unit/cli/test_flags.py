"""The command line parser: pflag's conventions."""

from __future__ import annotations

import pytest

from wherry.cli.flags import Command, HelpRequested, UsageError, check_count, parse

TABLE = (
    ("interactive", "i", "bool", False, ""),
    ("tty", "t", "bool", False, ""),
    ("env", "e", "list", None, ""),
    ("name", "", "string", "", ""),
    ("number", "n", "int", 0, ""),
    ("weight", "", "uint16", 0, ""),
    ("proxy", "", "bool", True, ""),
    ("platform", "", "strings", None, ""),
    ("wait", "", "duration", 0, ""),
)


def command(interspersed: bool = True) -> Command:
    return Command(
        lambda _cli, _flags, _arguments: 0,
        TABLE,
        (0, None),
        interspersed,
        aliases={"old": "name"},
        refuse={"wait": "there is no hurry"},
    )


@pytest.mark.parametrize(
    ("line", "values", "rest"),
    [
        ("-it x", {"interactive": True, "tty": True}, ["x"]),
        ("-ite A=b x", {"tty": True, "env": ["A=b"]}, ["x"]),
        ("-eA=b -e=C -e D", {"env": ["A=b", "C", "D"]}, []),
        ("--env=A=b --env C", {"env": ["A=b", "C"]}, []),
        ("-t=false -i=1", {"tty": False, "interactive": True}, []),
        ("--proxy=false", {"proxy": False}, []),
        ("--tty false", {"tty": True}, ["false"]),
        ("x -t y", {"tty": True}, ["x", "y"]),
        ("x -- -t", {"tty": False}, ["x", "-t"]),
        ("-", {}, ["-"]),
        ("--name= x", {"name": ""}, ["x"]),
        ("--name -t", {"name": "-t", "tty": False}, []),
        ("--old x", {"name": "x"}, []),
        ("-n 0x10", {"number": 16}, []),
        ("-n -5", {"number": -5}, []),
        ("-n 010", {"number": 8}, []),
        ("--platform a,b --platform c", {"platform": ["a", "b", "c"]}, []),
    ],
)
def test_parsed(line: str, values: dict[str, object], rest: list[str]) -> None:
    flags, arguments = parse(command(), line.split())
    assert {name: flags[name] for name in values} == values
    assert arguments == rest


def test_what_was_given_is_known() -> None:
    flags, _ = parse(command(), ["--number=0"])
    assert "number" in flags
    assert "name" not in flags


def test_flags_end_at_the_first_argument() -> None:
    flags, arguments = parse(command(interspersed=False), ["-i", "image", "-t", "--", "x"])
    assert flags["interactive"]
    assert not flags["tty"]
    assert arguments == ["image", "-t", "--", "x"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--nosuch", "unknown flag: --nosuch"),
        ("-tx", "unknown shorthand flag: 'x' in -x"),
        ("--name", "flag needs an argument: --name"),
        ("-te", "flag needs an argument: 'e' in -e"),
        ("--=x", "bad flag syntax: --=x"),
        ("---x", "bad flag syntax: ---x"),
        ("-n x", 'invalid argument "x" for "-n, --number" flag: strconv.ParseInt: parsing "x": invalid syntax'),
        ("--weight 65536", '"--weight" flag: strconv.ParseUint: parsing "65536": value out of range'),
        ("--weight -1", '"--weight" flag: strconv.ParseUint: parsing "-1": invalid syntax'),
        ("--tty=maybe", '"-t, --tty" flag: strconv.ParseBool: parsing "maybe": invalid syntax'),
        ("--wait 5s", "--wait is not implemented in wherry: there is no hurry"),
    ],
)
def test_refused(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(command(), line.split())
    assert str(caught.value).endswith(message)
    assert caught.value.code == 125


@pytest.mark.parametrize("line", ["--help", "x --help", "-t -h"])
def test_help(line: str) -> None:
    with pytest.raises(HelpRequested):
        parse(command(), line.split())


@pytest.mark.parametrize(
    ("count", "given", "message"),
    [
        ((0, 0), 1, "accepts no arguments"),
        ((1, 1), 0, "requires 1 argument"),
        ((2, 2), 3, "requires 2 arguments"),
        ((1, None), 0, "requires at least 1 argument"),
        ((2, None), 1, "requires at least 2 arguments"),
        ((0, 1), 2, "requires at most 1 argument"),
        ((1, 2), 0, "requires at least 1 and at most 2 arguments"),
    ],
)
def test_count(count: tuple[int, int | None], given: int, message: str) -> None:
    with pytest.raises(UsageError, match=f"'wherry x' {message}"):
        check_count("wherry x", Command(lambda *_: 0, (), count), given)
    check_count("wherry x", Command(lambda *_: 0, (), count), count[0])
