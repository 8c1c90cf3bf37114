"""update: other limits for a running container."""

from __future__ import annotations

import sys

from wherry.errors import FailedPrecondition, InvalidArgument, Unimplemented
from wherry.spec import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wherry.runtime.cli.commands import Context
    from wherry.runtime.cli.flags import Options

# flag: (section, key) of linux.resources.
_NUMBERS = {
    "blkio-weight": ("blockIO", "weight"),
    "cpu-period": ("cpu", "period"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-share": ("cpu", "shares"),
    "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "cpu-idle": ("cpu", "idle"),
    "pids-limit": ("pids", "limit"),
}
_TEXTS = {"cpuset-cpus": ("cpu", "cpus"), "cpuset-mems": ("cpu", "mems")}
_SIZES = {
    "kernel-memory": ("memory", "kernel"),
    "kernel-memory-tcp": ("memory", "kernelTCP"),
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
}
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def update(context: Context, options: Options, arguments: Sequence[str]) -> int:
    """From a JSON object (--resources, "-" is stdin), or from flags."""
    for name in ("l3-cache-schema", "mem-bw-schema"):
        if options.text(name):
            raise Unimplemented(f"--{name} is not supported")
    runtime = context.runtime()
    if runtime.status(arguments[0]).status == "stopped":
        raise FailedPrecondition("container not running", object=arguments[0])
    path = options.text("resources")
    try:
        runtime.update(arguments[0], _read(path) if path else from_flags(options))
    except OSError as error:
        raise InvalidArgument(f"update container {arguments[0]}: {error}", object=arguments[0]) from None
    return 0


def _read(path: str) -> dict[str, Any]:
    try:
        if path == "-":
            found = fastjson.loads(sys.stdin.buffer.read())
        else:
            with open(path, "rb") as file:
                found = fastjson.loads(file.read())
    except ValueError as error:
        raise InvalidArgument(f"resources: {error}") from None
    if not isinstance(found, dict):
        raise InvalidArgument("resources: not an object")
    return found


def from_flags(options: Options) -> dict[str, Any]:
    """An OCI `linux.resources` object of what was given."""
    resources: dict[str, dict[str, Any]] = {}
    for name, (section, key) in _NUMBERS.items():
        number = options.number(name)
        if number is not None:
            resources.setdefault(section, {})[key] = number
    for name, (section, key) in _TEXTS.items():
        text = options.text(name)
        if text:
            resources.setdefault(section, {})[key] = text
    for name, (section, key) in _SIZES.items():
        text = options.text(name)
        if text:
            resources.setdefault(section, {})[key] = parse_size(text, name)
    return resources


def parse_size(text: str, flag: str) -> int:
    """Bytes from 1048576, 512k, 1.5GiB; -1 is unlimited."""
    if text == "-1":
        return -1
    word = text.strip().lower().removesuffix("b").removesuffix("i")
    unit = word[-1:] if word[-1:] in _UNITS else ""
    amount = word.removesuffix(unit)
    if not amount.replace(".", "", 1).isdigit():
        raise InvalidArgument(f"invalid value for {flag}: {text!r}", hint="bytes, or with k, m, g: 512m")
    return int(float(amount) * _UNITS[unit]) if "." in amount else int(amount) * _UNITS[unit]
