"""list and ps."""

from __future__ import annotations

import json

from wherry.errors import InvalidArgument, Unavailable
from wherry.runtime.container import state_document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.runtime.cli.commands import Context
    from wherry.runtime.cli.flags import Options

_COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")


def list_(context: Context, options: Options, arguments: Sequence[str]) -> int:
    """All containers of this root: a table, JSON, or ids alone."""
    found = [{**state_document(status), "owner": "root"} for status in context.runtime().list()]
    kind = options.text("format") or "table"
    if options.flag("quiet"):
        for entry in found:
            print(entry["id"])
    elif kind == "json":
        print(json.dumps(found or None))
    elif kind == "table":
        _print_table([_COLUMNS, *[[str(entry[name.lower()]) for name in _COLUMNS] for entry in found]])
    else:
        raise InvalidArgument("invalid format option", hint="table or json")
    return 0


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(12, *[len(row[column]) + 3 for row in rows]) for column in range(len(rows[0]) - 1)]
    for row in rows:
        print("".join([f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)]) + row[-1])


def ps(context: Context, options: Options, arguments: Sequence[str]) -> int:
    """The container's processes: their host pids as JSON, or those lines of ps(1)."""
    pids = list(context.runtime().processes(arguments[0]))
    kind = options.text("format") or "table"
    if kind == "json":
        print(json.dumps(pids))
        return 0
    if kind != "table":
        raise InvalidArgument("invalid format option", hint="table or json")
    import subprocess

    try:
        shown = subprocess.run(["ps", *(arguments[1:] or ("-ef",))], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Unavailable("there is no ps program on this host", hint="--format json needs none") from None
    if shown.returncode != 0:
        raise InvalidArgument(f"ps: {shown.stderr.strip()}")
    head, *lines = shown.stdout.splitlines()
    if "PID" not in head.split():
        raise InvalidArgument("couldn't find PID field in ps output")
    column = head.split().index("PID")
    print(head)
    wanted = {str(pid) for pid in pids}
    for line in lines:
        if line.split()[column] in wanted:
            print(line)
    return 0
