"""--change of `import` and `commit`: Dockerfile instructions that change only an image's configuration.

The wording of refusals is docker's. Sources: docker-docs "docker import", dockerfile/reference.md.
"""

import posixpath
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from wherry.errors import InvalidArgument
from wherry.images.words import expand, parse_json_words, parse_pairs, split_words
from wherry.spec.oci_image import Healthcheck, RunConfig

_SHELL = ("/bin/sh", "-c")
_PROTOCOLS = ("tcp", "udp", "sctp")
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def apply_changes(config: RunConfig, changes: Sequence[str]) -> RunConfig:
    """`config` after the instructions, in order; InvalidArgument names the one that is wrong."""
    given_command = False
    for change in changes:
        name, _, rest = change.strip().partition(" ")
        if not name:
            raise InvalidArgument("file with no instructions")
        instruction = _INSTRUCTIONS.get(name.upper())
        if instruction is None:
            raise InvalidArgument(f"{name.upper()} is not a valid change command", object=change)
        flags, rest = _split_flags(rest.strip())
        if name.upper() != "HEALTHCHECK" and flags:
            raise InvalidArgument(f"unknown flag: {flags[0].partition('=')[0]}", object=change)
        config = _set_healthcheck(config, rest, flags) if name.upper() == "HEALTHCHECK" else instruction(config, rest)
        given_command |= name.upper() == "CMD"
        if name.upper() == "ENTRYPOINT" and not given_command:
            # What was the command's argument before is none of the new one.
            config = replace(config, cmd=None)
    return config


def _split_flags(rest: str) -> tuple[list[str], str]:
    flags: list[str] = []
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        flags.append(flag)
        rest = rest.strip()
    return flags, rest


def _variables(config: RunConfig) -> dict[str, str]:
    return dict(entry.partition("=")[::2] for entry in config.env)


def _command(rest: str) -> tuple[str, ...] | None:
    words = parse_json_words(rest)
    if words is not None:
        return words
    return (*_SHELL, rest) if rest else None


def _set_cmd(config: RunConfig, rest: str) -> RunConfig:
    return replace(config, cmd=_command(rest))


def _set_entrypoint(config: RunConfig, rest: str) -> RunConfig:
    return replace(config, entrypoint=_command(rest) or None)


def _set_env(config: RunConfig, rest: str) -> RunConfig:
    variables = _variables(config)
    given = {}
    for name, value in parse_pairs(rest, "ENV"):
        if not (name := expand(name, variables)):
            raise InvalidArgument("ENV names can not be blank")
        # Every value sees the environment as it was before this instruction.
        given[name] = expand(value, variables)
    return replace(config, env=tuple(f"{name}={value}" for name, value in {**variables, **given}.items()))


def _set_labels(config: RunConfig, rest: str) -> RunConfig:
    variables = _variables(config)
    given = {}
    for name, value in parse_pairs(rest, "LABEL"):
        if not (name := expand(name, variables)):
            raise InvalidArgument("LABEL names can not be blank")
        given[name] = expand(value, variables)
    return replace(config, labels={**config.labels, **given})


def _set_ports(config: RunConfig, rest: str) -> RunConfig:
    words = [expand(word, _variables(config)) for word in rest.split()]
    if not words:
        raise InvalidArgument("EXPOSE requires at least one argument")
    ports: dict[str, Any] = {port: {} for word in words for port in _parse_ports(word)}
    return replace(config, exposed_ports={**config.exposed_ports, **ports})


def _parse_ports(word: str) -> list[str]:
    # As with -p, only the container's part of [ip:][host:]container counts.
    numbers, _, protocol = word.partition("/")
    numbers, protocol = numbers.rpartition(":")[2], protocol.lower() or "tcp"
    first, dash, last = numbers.partition("-")
    if not all(
        part.isascii() and part.isdigit() and int(part) < 65536 for part in ([first, last] if dash else [first])
    ):
        raise InvalidArgument(f"Invalid containerPort: {numbers}", object=word)
    if protocol not in _PROTOCOLS:
        raise InvalidArgument(f"Invalid proto: {protocol}", object=word)
    if dash and int(last) < int(first):
        raise InvalidArgument(f"Invalid containerPort: {numbers}", object=word)
    return [f"{port}/{protocol}" for port in range(int(first), int(last or first) + 1)]


def _set_user(config: RunConfig, rest: str) -> RunConfig:
    return replace(config, user=expand(_one("USER", rest), _variables(config)))


def _set_volumes(config: RunConfig, rest: str) -> RunConfig:
    words = parse_json_words(rest)
    if words is None:
        words = tuple(split_words(rest))
    paths = [expand(word, _variables(config)).strip() for word in words]
    if not paths:
        raise InvalidArgument("VOLUME requires at least one argument")
    if not all(paths):
        raise InvalidArgument("VOLUME specified can not be an empty string")
    return replace(config, volumes={**config.volumes, **{path: {} for path in paths}})


def _set_workdir(config: RunConfig, rest: str) -> RunConfig:
    path = expand(_one("WORKDIR", rest), _variables(config))
    joined = posixpath.normpath(posixpath.join("/", config.working_dir, path))
    # POSIX keeps two leading slashes apart; an image does not.
    return replace(config, working_dir="/" + joined.lstrip("/"))


def _add_trigger(config: RunConfig, rest: str) -> RunConfig:
    if not rest:
        raise InvalidArgument("ONBUILD requires at least one argument")
    trigger = rest.split()[0].upper()
    if trigger == "ONBUILD":
        raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("FROM", "MAINTAINER"):
        raise InvalidArgument(f"{trigger} isn't allowed as an ONBUILD trigger")
    return replace(config, on_build=(*config.on_build, rest))


def _set_stop_signal(config: RunConfig, rest: str) -> RunConfig:
    text = expand(_one("STOPSIGNAL", rest), _variables(config))
    name = text.upper().removeprefix("SIG")
    known = name.isdigit() and 0 < int(name) < 65
    known = (
        known or f"SIG{name}" in signal.Signals.__members__ or bool(re.fullmatch(r"RTM(IN(\+\d+)?|AX(-\d+)?)", name))
    )
    if not known:
        raise InvalidArgument(f"invalid signal: {text}", object=text)
    return replace(config, stop_signal=text)


def _set_healthcheck(config: RunConfig, rest: str, flags: Sequence[str] = ()) -> RunConfig:
    kind, _, command = rest.partition(" ")
    if not kind:
        raise InvalidArgument("HEALTHCHECK requires at least one argument")
    if kind.upper() == "NONE":
        if command.strip() or flags:
            raise InvalidArgument("HEALTHCHECK NONE takes no arguments")
        return replace(config, healthcheck=Healthcheck(test=("NONE",)))
    if kind.upper() != "CMD":
        raise InvalidArgument(f'Unknown type "{kind}" in HEALTHCHECK (try CMD)')
    command = command.strip()
    if not command:
        raise InvalidArgument("Missing command after HEALTHCHECK CMD")
    words = parse_json_words(command)
    test = ("CMD-SHELL", command) if words is None else ("CMD", *words)
    return replace(config, healthcheck=_with_flags(Healthcheck(test=test), flags))


def _with_flags(check: Healthcheck, flags: Sequence[str]) -> Healthcheck:
    times = ("interval", "timeout", "start-period", "start-interval")
    for flag in flags:
        name, _, value = flag.removeprefix("--").partition("=")
        if name in times:
            times_given: Any = {name.replace("-", "_"): _parse_interval(name, value)}
            check = replace(check, **times_given)
        elif name == "retries":
            if not re.fullmatch(r"-?\d+", value):
                raise InvalidArgument(f'strconv.ParseInt: parsing "{value}": invalid syntax')
            if int(value) < 0:
                raise InvalidArgument(f"--retries cannot be negative ({value})")
            check = replace(check, retries=int(value))
        else:
            raise InvalidArgument(f"unknown flag: --{name}")
    return check


def _parse_interval(name: str, text: str) -> int:
    """A Go duration ("1m30s") in nanoseconds."""
    parts = _DURATION.findall(text)
    if text != "0" and (not parts or "".join(number + unit for number, unit in parts) != text):
        raise InvalidArgument(f'time: invalid duration "{text}"', object=text)
    total = sum(round(float(number) * _UNITS[unit]) for number, unit in parts)
    if 0 < total < 10**6:
        raise InvalidArgument(f'Interval "{name}" cannot be less than 1ms')
    return total


def _one(instruction: str, rest: str) -> str:
    if not rest:
        raise InvalidArgument(f"{instruction} requires exactly one argument")
    return rest


_INSTRUCTIONS: dict[str, Callable[[RunConfig, str], RunConfig]] = {
    "CMD": _set_cmd,
    "ENTRYPOINT": _set_entrypoint,
    "ENV": _set_env,
    "EXPOSE": _set_ports,
    "HEALTHCHECK": _set_healthcheck,
    "LABEL": _set_labels,
    "ONBUILD": _add_trigger,
    "STOPSIGNAL": _set_stop_signal,
    "USER": _set_user,
    "VOLUME": _set_volumes,
    "WORKDIR": _set_workdir,
}
