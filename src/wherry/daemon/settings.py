"""From the command line and daemon.json to what the daemon is told to do."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wherry.daemon.checks import check
from wherry.daemon.file import read_file
from wherry.daemon.options import DEFAULT_HOST, FIXED, FIXED_KEYS, OPTIONS, Fixed, Option
from wherry.errors import InvalidArgument, Unimplemented

_ALL: list[Option | Fixed] = [*OPTIONS, *FIXED]
_BY_FLAG = {option.flag: option for option in _ALL}
_BY_SHORT = {option.short: option for option in _ALL if option.short}
KEYS: dict[str, Option | Fixed] = {
    **{fixed.flag: fixed for fixed in FIXED},
    **{key: _BY_FLAG[flag] for key, flag in FIXED_KEYS.items()},
    **{option.key: option for option in OPTIONS if option.key},
    # Its name until there could be several of them.
    "host-gateway-ip": _BY_FLAG["host-gateway-ip"],
}
_MAPS = ("map", "features", "runtimes")
_COLLECTING = ("list", "ulimit", *_MAPS)
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of all options, by flag: str, bool, int, list[str] or dict[str, str], as their kind says."""

    values: Mapping[str, Any]
    given: frozenset[str] = field(default_factory=frozenset)
    """The flags set by the command line or the file."""

    def text(self, flag: str) -> str:
        """A string option."""
        return str(self.values[flag])

    def flag(self, flag: str) -> bool:
        """A bool option."""
        return bool(self.values[flag])

    def number(self, flag: str) -> int:
        """An int or bytes option."""
        return int(self.values[flag])

    def items(self, flag: str) -> tuple[str, ...]:
        """A list option."""
        return tuple(self.values[flag])

    def mapping(self, flag: str) -> dict[str, Any]:
        """A map option."""
        return dict(self.values[flag])

    @property
    def hosts(self) -> tuple[str, ...]:
        """Where to listen."""
        return self.items("host") or (DEFAULT_HOST,)


def read_settings(arguments: Sequence[str]) -> Settings:
    """Flags and configuration file together. InvalidArgument says what is wrong, as dockerd would."""
    flags = parse_flags(arguments)
    path = Path(flags.get("config-file", _default(_option("config-file"))))
    found: dict[str, Any] | None = None
    try:
        found = read_file(path, KEYS, _set, explicit="config-file" in flags)
        from_file = found or {}
        _refuse_both(flags, from_file)
        values = {option.flag: _default(option) for option in OPTIONS} | from_file | flags
        for option in OPTIONS:
            if option.kind in _MAPS:
                values[option.flag] = from_file.get(option.flag, {}) | flags.get(option.flag, {})
        check(values)
    except (InvalidArgument, Unimplemented) as error:
        if found is None and "config-file" not in flags and not path.exists():
            raise
        raise type(error)(f"unable to configure the daemon with file {path}: {error}", object=str(path)) from None
    return Settings(values, frozenset(flags) | frozenset(from_file))


def parse_flags(arguments: Sequence[str]) -> dict[str, Any]:
    """The options given as flags: `--flag value`, `--flag=value`, `-f value`, `-fvalue`; a bool needs no value."""
    found: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-") or argument == "-":
            raise InvalidArgument(f'"{argument}": the daemon takes no arguments', hint="see --help")
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("--"):
            option = _BY_FLAG.get(name)
        else:
            option = _BY_SHORT.get(argument[1:2])
            if len(argument) > 2 and not equals:
                equals, value = "=", argument[2:]
        if option is None:
            raise InvalidArgument(f"unknown flag: {argument.partition('=')[0]}", hint="see --help")
        if not equals:
            if option.kind == "bool":
                value = "true"
            elif rest:
                value = rest.pop(0)
            else:
                raise InvalidArgument(f"flag needs an argument: {argument}")
        _set(found, option, value, f"--{option.flag}")
    return found


def _set(found: dict[str, Any], option: Option | Fixed, text: str, where: str) -> None:
    if isinstance(option, Fixed):
        _check_fixed(option, text, where)
        return
    value = _parse(option, text, where)
    if option.kind in _COLLECTING:
        if isinstance(value, dict):
            found.setdefault(option.flag, {}).update(value)
        else:
            found.setdefault(option.flag, []).extend(value)
    else:
        found[option.flag] = value


def _check_fixed(option: Fixed, text: str, where: str) -> None:
    value = _boolean(text, where) if option.kind == "bool" else text
    shown = ("true" if value else "false") if isinstance(value, bool) else value
    if shown not in option.accepted:
        raise Unimplemented(f"{where}={shown} is not possible: {option.reason}", object=option.flag)


def _parse(option: Option, text: str, where: str) -> Any:
    if option.kind == "bool":
        return _boolean(text, where)
    if option.kind == "int":
        if not re.fullmatch(r"-?[0-9]{1,9}", text):
            raise InvalidArgument(f'invalid argument "{text}" for {where}: a whole number is needed')
        return int(text)
    if option.kind == "bytes":
        return _bytes(text, where)
    if option.kind in _MAPS:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise InvalidArgument(f'invalid argument "{text}" for {where}: key=value is needed')
        return {name: _boolean(value, where) if option.kind == "features" else value}
    return [text] if option.kind in _COLLECTING else text


def _boolean(text: str, where: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise InvalidArgument(f'invalid argument "{text}" for {where}: true or false is needed')
    return text.lower() in _TRUE


_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}


def _bytes(text: str, where: str) -> int:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([kmgtp]?)(?:i?b)?", text.lower())
    if not match:
        raise InvalidArgument(f'invalid argument "{text}" for {where}: a size such as 64MiB is needed')
    return int(float(match[1]) * (1 << _UNITS[match[2]]))


def _option(flag: str) -> Option:
    option = _BY_FLAG[flag]
    assert isinstance(option, Option)
    return option


def _default(option: Option) -> Any:
    if option.kind in _MAPS:
        return {}
    if option.kind in _COLLECTING:
        return []
    return _parse(option, option.default or ("false" if option.kind == "bool" else ""), option.flag)


def _refuse_both(flags: Mapping[str, Any], from_file: Mapping[str, Any]) -> None:
    both = sorted(flags.keys() & from_file.keys())
    both = [flag for flag in both if _option(flag).kind not in _MAPS]
    if both:
        details = ", ".join(
            f"{_option(flag).key}: (from flag: {_show(flags[flag])}, from file: {_show(from_file[flag])})"
            for flag in both
        )
        raise InvalidArgument(
            f"the following directives are specified both as a flag and in the configuration file: {details}"
        )


def _show(value: Any) -> str:
    return (
        f"[{' '.join(value)}]"
        if isinstance(value, list)
        else str(value).lower()
        if value in (True, False)
        else str(value)
    )
