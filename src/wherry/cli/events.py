"""`wherry events`."""

from __future__ import annotations

import sys
import time

from wherry.cli import describe, filters
from wherry.cli.flags import Command
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

FLAGS = (
    ("filter", "f", "filter", None, describe.FILTER),
    ("format", "", "string", "", describe.FORMAT),
    ("since", "", "string", "", "Show events since this time"),
    ("until", "", "string", "", "Stop at this time"),
)


class _Event:
    """An event as templates see it: Go's names over JSON's."""

    type_name = "*events.Message"
    fields = ("Action", "Actor", "From", "ID", "Scope", "Status", "Time", "TimeNano", "Type")

    def __init__(self, item: dict[str, Any]) -> None:
        self._item = item

    def __getattr__(self, name: str) -> Any:
        key = {"TimeNano": "timeNano"}.get(name, name if name in ("Action", "Actor", "Type") else name.lower())
        return lambda: self._item.get(key, "")

    def document(self) -> dict[str, Any]:
        return self._item


def _line(item: dict[str, Any]) -> str:
    nanoseconds = item.get("timeNano") or item.get("time", 0) * 10**9
    local = time.localtime(nanoseconds // 10**9)
    zone = time.strftime("%z", local)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", local) + f".{nanoseconds % 10**9:09d}"
    moment += "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    actor = item.get("Actor") or {}
    attributes = ", ".join(f"{key}={value}" for key, value in sorted((actor.get("Attributes") or {}).items()))
    text = f"{moment} {item.get('Type')} {item.get('Action')} {actor.get('ID')}"
    return f"{text} ({attributes})" if attributes else text


def events(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    from wherry.cli.timestamp import timestamp

    format = flags["format"]
    render: Callable[[dict[str, Any]], str] = _line
    if format and format != "json":
        from wherry.cli.template import Template
        from wherry.cli.template_functions import TemplateError

        try:
            template = Template(format)
        except TemplateError as error:
            raise WherryError(f"Error parsing format: {error}") from None
        render = lambda item: template.render(_Event(item))  # noqa: E731
    elif format == "json":
        from wherry.client.codec import go_dumps

        render = go_dumps
    query = [(name, timestamp(flags[name], name)) for name in ("since", "until") if flags[name]]
    for item in cli.engine.messages("GET", "/events", query + filters.encode(flags["filter"])):
        sys.stdout.write(render(item) + "\n")
        sys.stdout.flush()
    return 0


COMMANDS = {"events": Command(events, FLAGS)}
