"""`wherry inspect`, and the inspect commands of the groups."""

from __future__ import annotations

import sys

from wherry.cli import describe
from wherry.cli.flags import Command, StatusError
from wherry.client import codec
from wherry.client.engine import segment
from wherry.errors import InvalidArgument, NotFound, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

    Fetch = Callable[[str], Any]

_FORMAT = ("format", "f", "string", "", describe.FORMAT)
_SIZE = ("size", "s", "bool", False, "Show file sizes of containers")
_KINDS = ("container", "image", "network", "volume", "service", "task", "node", "secret", "config", "plugin")
# In the order in which a name is looked up; swarm's kinds are asked for only when named.
_LOOKUP = ("container", "image", "network", "volume")
_PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
    "service": "/services/{}",
    "task": "/tasks/{}",
    "node": "/nodes/{}",
    "secret": "/secrets/{}",
    "config": "/configs/{}",
    "plugin": "/plugins/{}/json",
}


def fetcher(cli: Cli, kind: str, query: list[tuple[str, str]]) -> Fetch:
    return lambda name: cli.engine.get(_PATHS[kind].format(segment(name)), query)


def show(names: list[str], fetch: Fetch, format: str, escape: bool = False) -> int:
    """Writes what is found of `names`; then fails with what was not."""
    found: list[Any] = []
    errors: list[str] = []
    render = _renderer(format)
    failure = ""
    lines: list[str] = []
    for name in names:
        try:
            item = fetch(name)
        except WherryError as error:
            errors.append(str(error))
            continue
        found.append(item)
        if render and not failure:
            try:
                lines.append(render(item) + "\n")
            except WherryError as error:
                failure = str(error)
    if format in ("", "json") or not render:
        text = codec.indented(found) if format == "" else codec.go_dumps(found)
        text = codec.escape(text) if escape else text
        sys.stdout.write(text + "\n")
    else:
        sys.stdout.write("".join(lines) or "\n")
    if failure:
        errors = [f"template parsing error: {failure}", *errors]
    if errors:
        raise StatusError("\n".join(errors), 1)
    return 0


def _renderer(format: str) -> Callable[[Any], str] | None:
    if format in ("", "json"):
        return None
    from wherry.cli.template import Template
    from wherry.cli.template_functions import TemplateError

    try:
        template = Template(format.removeprefix("table ").strip())
    except TemplateError as error:
        raise StatusError(f"template parsing error: {error}", 64) from None
    return template.render


def inspect(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    kind = flags["type"]
    if kind:
        if kind not in _KINDS:
            known = ", ".join(f'"{name}"' for name in sorted(_KINDS))
            raise InvalidArgument(f'unknown type: "{kind}": must be one of {known}')
        query = [("size", "1")] if flags["size"] and kind == "container" else []
        return show(arguments, fetcher(cli, kind, query), flags["format"])

    def fetch(name: str) -> Any:
        for candidate in _LOOKUP:
            query = [("size", "1")] if flags["size"] and candidate == "container" else []
            try:
                return fetcher(cli, candidate, query)(name)
            except NotFound:
                continue
            except InvalidArgument:
                if candidate == "container":
                    continue
                raise
        raise NotFound(f"Error: No such object: {name}")

    return show(arguments, fetch, flags["format"])


def _of(kind: str) -> Callable[[Cli, Flags, list[str]], int]:
    def command(cli: Cli, flags: Flags, arguments: list[str]) -> int:
        query = [("size", "1")] if kind == "container" and flags["size"] else []
        if kind == "network" and flags["verbose"]:
            query.append(("verbose", "true"))
        if kind == "image" and flags["platform"]:
            from wherry.cli.platform import encode

            query.append(("platform", encode(flags["platform"])))
        return show(arguments, fetcher(cli, kind, query), flags["format"])

    return command


_SOME = (1, None)
COMMANDS = {
    "inspect": Command(
        inspect, (_FORMAT, _SIZE, ("type", "", "string", "", "Only inspect objects of this type")), _SOME
    ),
    "container inspect": Command(_of("container"), (_FORMAT, _SIZE), _SOME),
    "image inspect": Command(_of("image"), (_FORMAT, ("platform", "", "string", "", describe.PLATFORM)), _SOME),
    "network inspect": Command(
        _of("network"), (_FORMAT, ("verbose", "v", "bool", False, "Show diagnostics as well")), _SOME
    ),
    "volume inspect": Command(_of("volume"), (_FORMAT,), _SOME),
}
