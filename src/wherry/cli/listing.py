"""Listings in docker's formats: its default table, `table TEMPLATE`, `json`, or a template per row."""

from __future__ import annotations

import sys

from wherry.cli.tabulate import columns
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any


class Row:
    """One row: a method per field, its name in capitals. `headers` are the titles of their columns."""

    headers: Mapping[str, str] = {}
    type_name = "*formatter.SubContext"
    fields: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        cls.fields = tuple(sorted(name for name in vars(cls) if name[0].isupper()))

    def document(self) -> dict[str, Any]:
        """What `json` shows: the fields that take no argument, in alphabetical order."""
        return {name: getattr(self, name)() for name in self.fields if name != "Label"}


class _Headers:
    """The titles of the columns, as templates see them."""

    type_name = "formatter.SubHeaderContext"

    def __init__(self, kind: type[Row]) -> None:
        self.fields = kind.fields
        for name in kind.fields:
            setattr(self, name, _label if name == "Label" else _constant(kind.headers.get(name, name.upper())))


def _label(name: str) -> str:
    """The last part of a label's name."""
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


def _constant(text: str) -> Callable[..., str]:
    return lambda *_arguments: text


def write(text: str) -> None:
    sys.stdout.write(text)


def show(rows: Iterable[Row], kind: type[Row], format: str, default: Sequence[str], quiet: str = "") -> None:
    """Writes a listing. `default`: the columns of the plain table; `quiet`: the single field of -q, or ""."""
    if quiet and format in ("", "table"):
        for row in rows:
            write(f"{getattr(row, quiet)()}\n")
    elif format in ("", "table"):
        lines = [[kind.headers.get(name, name.upper()) for name in default]]
        lines += [[getattr(row, name)() for name in default] for row in rows]
        write(columns(lines))
    elif format == "json":
        from wherry.client.codec import go_dumps

        for row in rows:
            write(go_dumps(row.document()) + "\n")
    else:
        _template(rows, kind, format)


def _template(rows: Iterable[Row], kind: type[Row], format: str) -> None:
    from wherry.cli import template
    from wherry.cli.tabulate import align
    from wherry.cli.template_functions import HEADER_FUNCTIONS, TemplateError

    table = format.startswith("table")
    source = format.removeprefix("table").strip(" ") if table else format
    source = source.replace("\\t", "\t").replace("\\n", "\n")
    try:
        compiled = template.Template(source)
    except TemplateError as error:
        raise WherryError(f"failed to parse template: {error}") from None
    lines = []
    try:
        if table:
            lines.append(template.Template(source, HEADER_FUNCTIONS).render(_Headers(kind)))
        lines += [compiled.render(row) for row in rows]
    except TemplateError as error:
        raise WherryError(f"failed to execute template: {error}") from None
    text = "".join(line + "\n" for line in lines)
    write(align(text) if table else text)
