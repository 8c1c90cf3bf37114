"""`wherry container|image|volume|system prune`."""

from __future__ import annotations

import sys

from wherry.cli import filters
from wherry.cli.flags import Command
from wherry.cli.units import decimal_size
from wherry.errors import NotFound, Unimplemented

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

_FILTER = ("filter", "", "filter", None, 'Limits what is removed (e.g. "until=<timestamp>")')
_FORCE = ("force", "f", "bool", False, "Do not ask")
_ALL_IMAGES = "all images without at least one container associated to them"


def _confirmed(flags: Flags, warning: str) -> bool:
    if flags["force"]:
        return True
    sys.stdout.write(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _containers(cli: Cli, pairs: list[tuple[str, str]]) -> tuple[int, str]:
    found = cli.engine.post("/containers/prune", filters.encode(pairs))
    return found.get("SpaceReclaimed", 0), _block("Deleted Containers:", found.get("ContainersDeleted"))


def _images(cli: Cli, pairs: list[tuple[str, str]], everything: bool) -> tuple[int, str]:
    pairs = [*pairs, ("dangling", "false" if everything else "true")]
    found = cli.engine.post("/images/prune", filters.encode(pairs))
    lines = [
        f"untagged: {entry['Untagged']}" if entry.get("Untagged") else f"deleted: {entry['Deleted']}"
        for entry in found.get("ImagesDeleted") or ()
    ]
    return found.get("SpaceReclaimed", 0), _block("Deleted Images:", lines)


def _volumes(cli: Cli, pairs: list[tuple[str, str]], everything: bool) -> tuple[int, str]:
    found = cli.engine.post("/volumes/prune", filters.encode([*pairs, ("all", "true")] if everything else pairs))
    return found.get("SpaceReclaimed", 0), _block("Deleted Volumes:", found.get("VolumesDeleted"))


def _networks(cli: Cli, pairs: list[tuple[str, str]]) -> tuple[int, str]:
    found = cli.engine.post("/networks/prune", filters.encode(pairs))
    return 0, _block("Deleted Networks:", found.get("NetworksDeleted"))


def _builds(cli: Cli, pairs: list[tuple[str, str]], everything: bool) -> tuple[int, str]:
    query = [("all", "1")] if everything else []
    try:
        found = cli.engine.post("/build/prune", query + filters.encode(pairs))
    except (NotFound, Unimplemented):
        return 0, ""  # an engine without a builder
    return found.get("SpaceReclaimed", 0), _block("Deleted build cache objects:", found.get("CachesDeleted"))


def _block(title: str, lines: Any) -> str:
    return f"{title}\n" + "".join(f"{line}\n" for line in lines) if lines else ""


def _report(*parts: tuple[int, str]) -> int:
    for _, text in parts:
        if text:
            print(text)
    print(f"Total reclaimed space: {decimal_size(sum(size for size, _ in parts))}")
    return 0


def container(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    if not _confirmed(flags, "This will remove all stopped containers."):
        return 0
    return _report(_containers(cli, flags["filter"]))


def image(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    what = _ALL_IMAGES if flags["all"] else "all dangling images"
    if not _confirmed(flags, f"This will remove {what}."):
        return 0
    return _report(_images(cli, flags["filter"], flags["all"]))


def volume(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    what = "all" if flags["all"] else "anonymous"
    if not _confirmed(flags, f"This will remove {what} local volumes not used by at least one container."):
        return 0
    return _report(_volumes(cli, flags["filter"], flags["all"]))


def network(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    if not _confirmed(flags, "This will remove all custom networks not used by at least one container."):
        return 0
    _, text = _networks(cli, flags["filter"])
    if text:
        print(text)
    return 0


def system(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    everything, volumes, pairs = flags["all"], flags["volumes"], flags["filter"]
    lines = ["all stopped containers", "all networks not used by at least one container"]
    lines += ["all anonymous volumes not used by at least one container"] if volumes else []
    lines += [_ALL_IMAGES, "all build cache"] if everything else ["all dangling images", "unused build cache"]
    warning = "This will remove:\n" + "".join(f"  - {line}\n" for line in lines)
    if pairs:
        shown = sorted(f"{name}={value}" for name, value in pairs)
        warning += "\n  Items to be pruned will be filtered with:\n" + "".join(f"  - {line}\n" for line in shown)
    if not _confirmed(flags, warning):
        return 0
    parts = [_containers(cli, pairs), _networks(cli, pairs)]
    if volumes:
        parts.append(_volumes(cli, [pair for pair in pairs if pair[0] != "until"], False))
    parts += [_images(cli, pairs, everything), _builds(cli, pairs, everything)]
    return _report(*parts)


_ALL_FLAG = ("all", "a", "bool", False, "Remove all unused images, not just dangling ones")
COMMANDS = {
    "container prune": Command(container, (_FILTER, _FORCE)),
    "image prune": Command(image, (_ALL_FLAG, _FILTER, _FORCE)),
    "network prune": Command(network, (_FILTER, _FORCE)),
    "volume prune": Command(
        volume, (("all", "a", "bool", False, "Remove all unused volumes, not just anonymous ones"), _FILTER, _FORCE)
    ),
    "system prune": Command(
        system, (_ALL_FLAG, _FILTER, _FORCE, ("volumes", "", "bool", False, "Prune anonymous volumes as well"))
    ),
}
