"""`wherry builder du prune`: what builds keep."""

from __future__ import annotations

import sys

from wherry.cli.flags import Command, StatusError
from wherry.client.codec import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli


def du(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    from wherry.cli.tabulate import columns
    from wherry.cli.units import decimal_size

    found = cli.engine.get("/system/df", [("type", "build-cache")])
    records = found.get("BuildCache") or (found.get("BuildCacheUsage") or {}).get("Items") or []
    rows = [["ID", "RECLAIMABLE", "SIZE", "LAST USED", "DESCRIPTION"]]
    for record in sorted(records, key=lambda one: str(one["LastUsedAt"]), reverse=True):
        free = "false" if record["InUse"] else "true"
        used = record["LastUsedAt"][:19].replace("T", " ")
        rows.append([record["ID"], free, decimal_size(record["Size"]), used, record["Description"][:60]])
    sys.stdout.write(columns(rows))
    total = sum(record["Size"] for record in records)
    print(f"Total:\t{decimal_size(total)}")
    return 0


def prune(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    from wherry.cli.units import decimal_size

    if not flags["force"]:
        sys.stderr.write("WARNING! This will remove all build cache. Are you sure you want to continue? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise StatusError("build cache prune has been canceled", 1)
    filters: dict[str, list[str]] = {}
    for name, value in flags["filter"]:
        filters.setdefault(name, []).append(value)
    query = [("all", "1")] if flags["all"] else []
    query += [("filters", dumps(filters))] if filters else []
    query += [("reserved-space", str(flags["keep-storage"]))] if flags["keep-storage"] else []
    answer = cli.engine.post("/build/prune", query)
    for name in answer.get("CachesDeleted") or ():
        print(name)
    print(f"Total:\t{decimal_size(answer['SpaceReclaimed'])}")
    return 0


COMMANDS = {
    "builder du": Command(du),
    "builder prune": Command(
        prune,
        (
            ("all", "a", "bool", False, "Remove cache mounts too"),
            ("filter", "", "filter", None, 'Provide filter values (e.g., "until=24h")'),
            ("force", "f", "bool", False, "Do not prompt for confirmation"),
            ("keep-storage", "", "bytes", 0, "Amount of disk space to keep for cache"),
        ),
    ),
}
