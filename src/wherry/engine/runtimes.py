"""The names under which containers may ask for a runtime. All are our own runtime's: others cannot be driven yet."""

from collections.abc import Mapping
from typing import Any

from wherry.engine.config import DaemonConfig
from wherry.errors import InvalidArgument, Unimplemented

OWN = "wherry"
# What clients ask for who know docker's default by name.
ALIASES = ("runc", "io.containerd.runc.v2")
_PROGRAM = "wherry-runtime"


def check_runtime(config: DaemonConfig, name: str) -> None:
    """InvalidArgument, in docker's words, for a runtime nobody has configured."""
    if name not in ("", OWN, *ALIASES) and name not in config.runtimes:
        raise InvalidArgument(f"unknown or invalid runtime name: {name}", object=name)


def parse_runtimes(definitions: Mapping[str, Any]) -> dict[str, str]:
    """`runtimes` of daemon.json as names and paths; Unimplemented for every program but ours, which says what to do."""
    found = {}
    for name, definition in definitions.items():
        given = definition if isinstance(definition, dict) else {"path": definition}
        path = given.get("path") or ""
        if not isinstance(path, str):
            raise InvalidArgument(f"invalid JSON: runtimes.{name}.path must be a string", object=name)
        if name in (OWN, *ALIASES):
            raise InvalidArgument(f"runtime name {name!r} is reserved", object=name)
        if path.rpartition("/")[2] != _PROGRAM:
            what = path or given.get("runtimeType") or "nothing"
            raise Unimplemented(
                f"runtime {name!r} ({what}) cannot be used: containers run in Wherry's own runtime, which stays warm",
                object=name,
                hint=f"remove it; a further name for ours is possible with the path {_PROGRAM}",
            )
        if given.get("runtimeArgs") or given.get("options"):
            raise Unimplemented(
                f"runtime {name!r}: runtimeArgs and options have no meaning for {_PROGRAM}", object=name
            )
        found[name] = path
    return found
