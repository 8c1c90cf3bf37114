"""From the command line and daemon.json to what the daemon is told to do."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wherry.daemon.options import DEFAULT_HOST, FIXED, FIXED_KEYS, OPTIONS, Fixed, Option
from wherry.errors import InvalidArgument, Unimplemented

_ALL: list[Option | Fixed] = [*OPTIONS, *FIXED]
_BY_FLAG = {option.flag: option for option in _ALL}
_BY_SHORT = {option.short: option for option in _ALL if option.short}
_BY_KEY: dict[str, Option | Fixed] = {
    **{fixed.flag: fixed for fixed in FIXED},
    **{key: _BY_FLAG[flag] for key, flag in FIXED_KEYS.items()},
    **{option.key: option for option in OPTIONS if option.key},
}
_COLLECTING = ("list", "map", "ulimit")
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")
LEVELS = ("debug", "info", "warn", "error", "fatal")


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

    def mapping(self, flag: str) -> dict[str, str]:
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
    try:
        from_file = _read_file(path, explicit="config-file" in flags)
        _refuse_both(flags, from_file)
    except (InvalidArgument, Unimplemented) as error:
        raise type(error)(f"unable to configure the daemon with file {path}: {error}", object=str(path)) from None
    values = {option.flag: _default(option) for option in OPTIONS} | from_file | flags
    _check(values)
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
    if option.kind == "map":
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise InvalidArgument(f'invalid argument "{text}" for {where}: key=value is needed')
        return {name: value}
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
    if option.kind == "map":
        return {}
    if option.kind in _COLLECTING:
        return []
    return _parse(option, option.default or ("false" if option.kind == "bool" else ""), option.flag)


def _read_file(path: Path, *, explicit: bool) -> dict[str, Any]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        if explicit:
            raise InvalidArgument(f"open {path}: no such file or directory") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"cannot read it: {error}") from None
    if not text.strip():
        return {}
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidArgument("invalid JSON: an object is needed")
    unknown = sorted(key for key in document if key not in _BY_KEY)
    if unknown:
        raise InvalidArgument(f"the following directives don't match any configuration option: {', '.join(unknown)}")
    found: dict[str, Any] = {}
    for key, value in document.items():
        _set_from_file(found, _BY_KEY[key], key, value)
    return found


def _set_from_file(found: dict[str, Any], option: Option | Fixed, key: str, value: Any) -> None:
    if option.kind == "ulimit" and isinstance(value, dict):
        value = [_ulimit_text(name, limit) for name, limit in value.items()]
    elif option.kind == "map" and isinstance(value, dict):
        value = [f"{name}={item}" for name, item in value.items()]
    values = value if isinstance(value, list) and (option.kind in _COLLECTING) else [value]
    for item in values:
        fits = {"bool": bool, "int": int}.get(option.kind, str)
        if option.kind == "bytes" and isinstance(item, int) and not isinstance(item, bool):
            item = str(item)
        if not isinstance(item, fits) or (fits is int and isinstance(item, bool)):
            if isinstance(option, Fixed):
                raise Unimplemented(f"{key} is not possible: {option.reason}", object=key)
            raise InvalidArgument(f"invalid JSON: {key} must be {_KINDS.get(option.kind, 'a string')}", object=key)
        text = str(item).lower() if isinstance(item, bool) else str(item)
        _set(found, option, text, key)


_KINDS = {
    "bool": "true or false",
    "int": "a whole number",
    "list": "a list of strings",
    "map": "an object of strings",
    "ulimit": "an object of ulimits",
    "bytes": "a size",
}


def _ulimit_text(name: str, limit: Any) -> str:
    if not isinstance(limit, dict):
        raise InvalidArgument(f"invalid JSON: default-ulimits.{name} must be an object")
    return f"{limit.get('Name', name)}={limit.get('Soft', 0)}:{limit.get('Hard', 0)}"


def _refuse_both(flags: Mapping[str, Any], from_file: Mapping[str, Any]) -> None:
    both = sorted(flags.keys() & from_file.keys())
    both = [flag for flag in both if _option(flag).kind != "map"]
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


def _check(values: Mapping[str, Any]) -> None:
    if values["log-level"] not in LEVELS:
        raise InvalidArgument(f"invalid logging level: {values['log-level']}", hint=f"one of {', '.join(LEVELS)}")
    if values["log-format"] not in ("text", "json"):
        raise InvalidArgument(f"invalid log format: {values['log-format']}", hint="text or json")
    if values["log-driver"] not in ("json-file", "none"):
        raise Unimplemented(f"log driver {values['log-driver']!r} is not supported yet", hint="json-file or none")
    for label in values["label"]:
        if "=" not in label:
            raise InvalidArgument(f"bad attribute format: {label}", object=label, hint="labels are key=value")
    for name in ("data-root", "exec-root"):
        if not values[name].startswith("/"):
            raise InvalidArgument(f"--{name} must be an absolute path: {values[name]}", object=name)
    if values["mtu"] < 0:
        raise InvalidArgument(f"invalid default MTU: {values['mtu']}")
