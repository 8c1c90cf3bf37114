"""`wherry top diff port`."""

from __future__ import annotations

import sys

from wherry.cli.flags import Command, StatusError
from wherry.cli.session import inspect_container
from wherry.client.engine import segment
from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

_KINDS = {0: "C", 1: "A", 2: "D"}


def top(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    from wherry.cli.tabulate import align

    query = [("ps_args", " ".join(arguments[1:]))] if len(arguments) > 1 else []
    found = cli.engine.get(f"/containers/{segment(arguments[0])}/top", query)
    lines = ["\t".join(row) for row in [found["Titles"], *(found["Processes"] or [])]]
    sys.stdout.write(align("".join(line + "\n" for line in lines), 20, 3))
    return 0


def diff(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    if not arguments[0]:
        raise StatusError("Container name cannot be empty", 1)
    for change in cli.engine.get(f"/containers/{segment(arguments[0])}/changes") or ():
        print(_KINDS[change["Kind"]], change["Path"])
    return 0


def port(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    found = inspect_container(cli, arguments[0])
    published = (found.get("NetworkSettings") or {}).get("Ports") or {}
    if len(arguments) == 2:
        number, _, protocol = arguments[1].partition("/")
        _check_port(number)
        bindings = published.get(f"{number}/{protocol or 'tcp'}") or []
        if not bindings:
            raise StatusError(f"Error: No public port '{arguments[1]}' published for {arguments[0]}", 1)
        lines = [_address(binding) for binding in bindings]
    else:
        lines = [f"{name} -> {_address(binding)}" for name, bindings in published.items() for binding in bindings or ()]
        lines.sort(key=_natural)
    sys.stdout.write("".join(line + "\n" for line in lines))
    return 0


def _check_port(text: str) -> None:
    from wherry.cli.flags import convert_kind

    try:
        convert_kind("uint16", text)
        if not text.isdigit():
            raise InvalidArgument(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    except InvalidArgument as error:
        raise StatusError(f"Error: invalid port ({text}): {error}", 1) from None


def _address(binding: dict[str, str]) -> str:
    host = binding.get("HostIp", "")
    return f"{f'[{host}]' if ':' in host else host}:{binding.get('HostPort', '')}"


def _natural(line: str) -> list[tuple[int, str]]:
    """Numbers within the line count as numbers."""
    import re

    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", line)]


COMMANDS = {
    "top": Command(top, (), (1, None), False),
    "diff": Command(diff, (), (1, 1)),
    "port": Command(port, (), (1, 2)),
}
