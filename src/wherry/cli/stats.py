"""`wherry stats`."""

from __future__ import annotations

import sys
import time

from wherry.cli import describe
from wherry.cli.flags import Command
from wherry.cli.listing import Row, show
from wherry.cli.units import binary_size, decimal_size
from wherry.client.engine import segment
from wherry.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

    Document = dict[str, Any]

FLAGS = (
    ("all", "a", "bool", False, "Show all containers, not only those that run"),
    ("format", "", "string", "", describe.FORMAT_LIST),
    ("no-stream", "", "bool", False, "Show one result instead of a live display"),
    ("no-trunc", "", "bool", False, "Don't truncate output"),
)
_COLUMNS = ("Container", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
_INTERVAL = 1.0
_ONE_SHOT = (("stream", "false"), ("one-shot", "true"))
_NOTHING = "--"
# Wherry's own: all containers in one sample.
_TOGETHER = "/wherry/containers/stats"


class Usage(Row):
    """One container between two samples; None: it could not be asked."""

    headers = {
        "CPUPerc": "CPU %",
        "MemUsage": "MEM USAGE / LIMIT",
        "MemPerc": "MEM %",
        "NetIO": "NET I/O",
        "BlockIO": "BLOCK I/O",
        "Container": "CONTAINER ID",
    }
    type_name = "*container.statsContext"

    def __init__(self, name: str, before: Document | None, now: Document | None, trunc: bool) -> None:
        self._asked = name
        self._before = before
        self._now = now
        self._trunc = trunc

    def Container(self) -> str:
        return self.ID() if self._now else self._asked

    def ID(self) -> str:
        if self._now is None:
            return _NOTHING
        return str(self._now["id"])[:12] if self._trunc else str(self._now["id"])

    def Name(self) -> str:
        return str(self._now["name"]).removeprefix("/") if self._now else _NOTHING

    def CPUPerc(self) -> str:
        return _NOTHING if self._now is None else f"{self._cpu():.2f}%"

    def MemUsage(self) -> str:
        if self._now is None:
            return f"{_NOTHING} / {_NOTHING}"
        used, limit = self._memory()
        return f"{binary_size(used)} / {binary_size(limit)}"

    def MemPerc(self) -> str:
        if self._now is None:
            return _NOTHING
        used, limit = self._memory()
        return f"{used / limit * 100 if limit else 0:.2f}%"

    def NetIO(self) -> str:
        if self._now is None:
            return _NOTHING
        links = (self._now.get("networks") or {}).values()
        received, sent = (sum(link[key] for link in links) for key in ("rx_bytes", "tx_bytes"))
        return f"{decimal_size(received, 3)} / {decimal_size(sent, 3)}"

    def BlockIO(self) -> str:
        if self._now is None:
            return _NOTHING
        entries = (self._now.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
        read, written = (sum(e["value"] for e in entries if e["op"][:1].lower() == op) for op in ("r", "w"))
        return f"{decimal_size(read, 3)} / {decimal_size(written, 3)}"

    def PIDs(self) -> str:
        return _NOTHING if self._now is None else str((self._now.get("pids_stats") or {}).get("current", 0))

    def _cpu(self) -> float:
        now, before = (self._now or {}).get("cpu_stats") or {}, (self._before or {}).get("cpu_stats") or {}
        host = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
        own = (now.get("cpu_usage") or {}).get("total_usage", 0) - (before.get("cpu_usage") or {}).get("total_usage", 0)
        return float(own / host * now.get("online_cpus", 1) * 100) if host > 0 and own > 0 else 0.0

    def _memory(self) -> tuple[int, int]:
        """Used, without the page cache that the kernel would give back at once, as docker counts it; and the limit."""
        memory = (self._now or {}).get("memory_stats") or {}
        detail = memory.get("stats") or {}
        idle = detail.get("total_inactive_file", detail.get("inactive_file", 0))
        used = memory.get("usage", 0)
        return (used - idle if idle < used else used), memory.get("limit", 0)


def stats(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    asked = [("name", name) for name in arguments] + [("all", "1")] * bool(flags["all"])
    try:
        if flags["no-stream"]:
            _print(cli.engine.get(_TOGETHER, asked), flags)
            return 0
        for documents in cli.engine.messages("GET", _TOGETHER, [*asked, ("stream", "1")]):
            sys.stdout.write("\033[H\033[J")
            _print(documents, flags)
        return 0
    except NotFound as error:
        if "page not found" not in error.message:
            raise
    return _ask_each(cli, flags, arguments)


def _print(documents: list[Document], flags: Flags) -> None:
    rows = [
        Usage(found["id"], {"cpu_stats": found.get("precpu_stats")}, found, not flags["no-trunc"])
        for found in documents
    ]
    show(rows, Usage, flags["format"], _COLUMNS)
    sys.stdout.flush()


def _ask_each(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    """Of an engine that knows only docker's API."""
    names = arguments or _listed(cli, flags["all"])
    before = _samples(cli, names, strict=bool(arguments))
    while True:
        time.sleep(_INTERVAL)
        if not arguments:
            names = _listed(cli, flags["all"])
        now = _samples(cli, names, strict=False)
        if not flags["no-stream"]:
            sys.stdout.write("\033[H\033[J")
        rows = [Usage(name, before.get(name), now.get(name), not flags["no-trunc"]) for name in names]
        show(rows, Usage, flags["format"], _COLUMNS)
        sys.stdout.flush()
        if flags["no-stream"]:
            return 0
        before = now


def _listed(cli: Cli, all: bool) -> list[str]:
    found = cli.engine.get("/containers/json", [("all", "1")] if all else ())
    return [container["Id"] for container in found or ()]


def _samples(cli: Cli, names: list[str], *, strict: bool) -> dict[str, Document]:
    """A sample of each that is there; NotFound is raised for one that is not when the user named it."""
    found = {}
    for name in names:
        try:
            found[name] = cli.engine.get(f"/containers/{segment(name)}/stats", _ONE_SHOT)
        except NotFound:
            if strict:
                raise
    return found


COMMANDS = {"stats": Command(stats, FLAGS, (0, None))}
