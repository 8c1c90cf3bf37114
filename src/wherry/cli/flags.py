"""Command lines as docker's CLI parses them (the conventions of Go's pflag), from flag tables that are plain data.

A flag is a tuple (name, shorthand, type, default, description); types are those that docker's help names. A
`Command` joins the table with the function that runs it: `run(cli, flags, arguments) -> exit code`.
"""

from __future__ import annotations

from wherry.errors import InvalidArgument, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from wherry.cli.main import Cli

    Flag = tuple[str, str, str, Any, str]
    Convert = Mapping[str, Callable[[str], Any]]

LISTS = frozenset(("list", "map", "filter", "ulimit", "mount", "network", "strings", "stringToString", "gpu-request"))
_INTEGERS = {
    "int": (-(1 << 63), (1 << 63) - 1, "ParseInt"),
    "uint16": (0, (1 << 16) - 1, "ParseUint"),
    "uint": (0, (1 << 64) - 1, "ParseUint"),
}
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


class UsageError(WherryError):
    """The command line is wrong; shown with the command's usage. Exit code 125, or 1 for a wrong count of arguments."""

    code = 125
    verb = "Run"


class CountError(UsageError):
    code = 1


class StatusError(WherryError):
    """Ends the command with a message (may be empty) and an exit code of its own."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Flags:
    """Parsed flags: `flags["name"]` is the value or its default; `changed` holds the names that were given."""

    __slots__ = ("changed", "values")

    def __init__(self, table: Sequence[Flag]) -> None:
        self.changed: set[str] = set()
        self.values: dict[str, Any] = {name: [] if kind in LISTS else default for name, _, kind, default, _ in table}

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def __contains__(self, name: str) -> bool:
        return name in self.changed


class Command:
    """How a command is called. `count`: least and most arguments (None: any number).

    `convert` checks and converts values of single flags as they are parsed; `refuse` names flags which docker has and
    Wherry does not, each with a reason; `deprecated` old names that still work, each with what to use instead. `raw`
    commands get their arguments unparsed.
    """

    __slots__ = ("aliases", "convert", "count", "deprecated", "flags", "interspersed", "raw", "refuse", "run")

    def __init__(
        self,
        run: Callable[[Cli, Flags, list[str]], int],
        flags: Sequence[Flag] = (),
        count: tuple[int, int | None] = (0, 0),
        interspersed: bool = True,
        convert: Convert | None = None,
        aliases: Mapping[str, str] | None = None,
        refuse: Mapping[str, str] | None = None,
        deprecated: Mapping[str, str] | None = None,
        raw: bool = False,
    ) -> None:
        self.run = run
        self.flags = flags
        self.count = count
        self.interspersed = interspersed
        self.convert = convert or {}
        self.aliases = aliases or {}
        self.refuse = refuse or {}
        self.deprecated = deprecated or {}
        self.raw = raw


class HelpRequested(Exception):
    """--help was among the flags."""


def parse(command: Command, arguments: Sequence[str]) -> tuple[Flags, list[str]]:
    """Raises UsageError in docker's words, HelpRequested for --help."""
    if command.raw:
        return Flags(()), list(arguments)
    parser = _Parser(command)
    parser.run(list(arguments))
    flags = parser.flags
    for name in flags.changed:
        if name in command.refuse and flags[name] not in (parser.table[name][3], []):
            raise UsageError(f"--{name} is not implemented in wherry: {command.refuse[name]}")
    return flags, parser.positional


def check_count(name: str, command: Command, given: int) -> None:
    least, most = command.count
    if given >= least and (most is None or given <= most):
        return
    plural = "" if (most if most is not None and not least else least) == 1 else "s"
    if least == most:
        error = CountError(
            f"'{name}' accepts no arguments" if not least else f"'{name}' requires {least} argument{plural}"
        )
    elif most is not None and not least:
        error = CountError(f"'{name}' requires at most {most} argument{plural}")
    elif most is not None:
        error = CountError(f"'{name}' requires at least {least} and at most {most} arguments")
    else:
        error = CountError(f"'{name}' requires at least {least} argument{plural}")
        error.verb = "See"
    raise error


class _Parser:
    def __init__(self, command: Command) -> None:
        self.command = command
        self.flags = Flags(command.flags)
        self.table = {flag[0]: flag for flag in command.flags}
        self.short = {flag[1]: flag for flag in command.flags if flag[1]}
        self.positional: list[str] = []

    def run(self, arguments: list[str]) -> None:
        while arguments:
            argument = arguments.pop(0)
            if argument == "--":
                self.positional += arguments
                return
            if len(argument) < 2 or argument[0] != "-":
                self.positional.append(argument)
                if not self.command.interspersed:
                    self.positional += arguments
                    return
            elif argument[1] == "-":
                self._long(argument, arguments)
            else:
                self._cluster(argument, arguments)

    def _long(self, argument: str, rest: list[str]) -> None:
        name, given, value = argument[2:].partition("=")
        if not name or name[0] == "-":
            raise UsageError(f"bad flag syntax: {argument}")
        flag = self.table.get(self.command.aliases.get(name, name))
        if flag is None:
            if name == "help":
                raise HelpRequested
            raise UsageError(f"unknown flag: --{name}")
        if name in self.command.deprecated:
            import sys

            sys.stderr.write(f"Flag --{name} has been deprecated, use --{self.command.deprecated[name]} instead\n")
        if not given:
            if flag[2] == "bool":
                value = "true"
            elif rest:
                value = rest.pop(0)
            else:
                raise UsageError(f"flag needs an argument: --{name}")
        self._set(flag, value)

    def _cluster(self, argument: str, rest: list[str]) -> None:
        letters = argument[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            flag = self.short.get(letter)
            if flag is None:
                if letter == "h":
                    raise HelpRequested
                raise UsageError(f"unknown shorthand flag: '{letter}' in -{letter}{letters}")
            if letters[:1] == "=" and len(letters) > 1:
                value, letters = letters[1:], ""
            elif flag[2] == "bool":
                value = "true"
            elif letters:
                value, letters = letters, ""
            elif rest:
                value = rest.pop(0)
            else:
                raise UsageError(f"flag needs an argument: '{letter}' in -{letter}")
            self._set(flag, value)

    def _set(self, flag: Flag, text: str) -> None:
        name, short, kind = flag[0], flag[1], flag[2]
        try:
            convert = self.command.convert.get(name)
            value = convert(text) if convert else convert_kind(kind, text)
        except InvalidArgument as error:
            label = f"-{short}, --{name}" if short else f"--{name}"
            raise UsageError(f'invalid argument "{text}" for "{label}" flag: {error}') from None
        if kind in LISTS:
            stored = self.flags.values[name]
            if kind == "strings":
                stored.extend(value)
            else:
                stored.append(value)
        else:
            self.flags.values[name] = value
        self.flags.changed.add(name)


def convert_kind(kind: str, text: str) -> Any:
    """The value of a flag of this type. Raises InvalidArgument in Go's words."""
    if kind == "bool":
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        raise InvalidArgument(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    if kind in _INTEGERS:
        return _integer(kind, text)
    if kind == "bytes":
        from wherry.cli.units import ram_bytes

        return ram_bytes(text)
    if kind == "duration":
        from wherry.cli.units import parse_duration

        return parse_duration(text)
    if kind == "filter":
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidArgument("bad format of filter (expected name=value)")
        return name.strip().lower(), value.strip()
    if kind == "strings":
        return text.split(",")
    return text


def _integer(kind: str, text: str) -> int:
    least, most, function = _INTEGERS[kind]
    try:
        # Go's base 0 also takes 0x, 0o and 0b; like it, Python's refuses a bare leading zero, which Go reads as octal.
        digits = text.lstrip("+-")
        octal = len(digits) > 1 and digits[0] == "0" and digits.isdigit()
        number = int(text, 8 if octal else 0)
        if text != text.strip() or (least == 0 and text[0] in "+-"):
            raise ValueError
    except ValueError:
        raise InvalidArgument(f'strconv.{function}: parsing "{text}": invalid syntax') from None
    if not least <= number <= most:
        raise InvalidArgument(f'strconv.{function}: parsing "{text}": value out of range')
    return number
