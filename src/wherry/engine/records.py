"""One container as data: what was asked for (never changes but by rename and update), and the state it is in.

Two keys of the store hold it, so that the frequent writes are short: `containers/<id>` and `states/<id>`.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from wherry.spec.decode import decode, document, json_keys, key
from wherry.spec.docker import ContainerConfig, HostConfig, NetworkingConfig

NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time, as docker prints it."""


def rfc3339(ns: int) -> str:
    """Nanoseconds since 1970 as docker prints times: UTC, nine digits less trailing zeros. 0 is NEVER."""
    if not ns:
        return NEVER
    seconds, rest = divmod(ns, 1_000_000_000)
    base = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{base}.{rest:09d}".rstrip("0").rstrip(".") + "Z"


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class MountPoint:
    """One resolved mount of a container, as inspect shows it, and what is needed to perform it.

    `source` is a path of the host for binds and volumes, empty for tmpfs. `options` is for tmpfs only.
    """

    type: str
    name: str = ""
    source: str = ""
    destination: str = ""
    driver: str = ""
    mode: str = ""
    rw: bool = key("RW", True)
    propagation: str = ""
    recursive: bool = True
    read_only_recursive: str = ""
    """Of a read-only bind: "" as far as the kernel can, "no" its top only, "force" or fail."""
    subpath: str = ""
    copy_up: bool = False
    anonymous: bool = False
    create_source: bool = False
    driver_options: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = None
    idmap: str = ""
    """Of a bind: see engine.idmaps."""
    options: tuple[str, ...] = ()
    from_mounts: bool = False

    def shown(self) -> dict[str, Any]:
        """Docker's MountPoint document."""
        named = {"Name": self.name} if self.name else {}
        driver = {"Driver": self.driver} if self.driver else {}
        return {
            "Type": self.type,
            **named,
            "Source": self.source,
            "Destination": self.destination,
            **driver,
            "Mode": self.mode,
            "RW": self.rw,
            "Propagation": self.propagation,
        }


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What a container was made from."""

    id: str
    name: str
    created_ns: int
    image_id: str
    image_size: int = 0
    chain: str | None = None
    path: str = ""
    args: tuple[str, ...] = ()
    config: ContainerConfig
    host: HostConfig
    networking: NetworkingConfig = NetworkingConfig()
    mounts: tuple[MountPoint, ...] = ()


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a container is in its life.

    `status`: created, running, paused, restarting, exited, removing, dead; `starting` is internal and
    never stored: a start is under way. Times in nanoseconds since 1970, 0 is never. `endpoints` are the network
    room's own JSON.
    """

    status: str = "created"
    pid: int = 0
    process_start: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_ns: int = 0
    finished_ns: int = 0
    restart_count: int = 0
    stopped_by_user: bool = False
    endpoints: tuple[Mapping[str, Any], ...] = ()
    health: Mapping[str, Any] | None = None
    """State.Health of the inspect document, as it was at the last change of its status."""
    changed: bool = False
    """Whether something was copied in before its first start."""

    @property
    def running(self) -> bool:
        """Whether it has a process: docker counts paused and restarting as running."""
        return self.status in ("running", "paused", "restarting")

    @property
    def shown_status(self) -> str:
        """The word for the user."""
        return "created" if self.status == "starting" and not self.started_ns else _SHOWN.get(self.status, self.status)

    def but(self, **changes: Any) -> "State":
        """This state with some fields changed."""
        return replace(self, **changes)


_SHOWN = {"starting": "exited"}


def definition_key(id: str) -> str:
    """Where a definition is kept."""
    return f"containers/{id}"


def state_key(id: str) -> str:
    """Where a state is kept."""
    return f"states/{id}"


def dump(record: Definition | State) -> bytes:
    """A record for the store: what has its default value is left out."""
    return json.dumps(_sparse(record), separators=(",", ":")).encode()


def load_definition(data: bytes) -> Definition:
    """The inverse of `dump`."""
    return decode(Definition, json.loads(data))


def load_state(data: bytes) -> State:
    """The inverse of `dump`."""
    return decode(State, json.loads(data))


_plans: dict[type, tuple[tuple[str, str, Any], ...]] = {}


def _sparse(value: Any) -> Any:
    """`encode`, less what has its default: most of the hundred fields of a HostConfig, on every write."""
    plan = _plans.get(type(value))
    if plan is None:
        if not is_dataclass(value):
            if isinstance(value, tuple):
                return [_sparse(item) for item in value]
            if isinstance(value, Mapping):
                return {name: _sparse(item) for name, item in value.items()}
            return value
        plan = _plans[type(value)] = _plan(type(value))
    found = {}
    for attribute, name, default in plan:
        item = getattr(value, attribute)
        if item is not default and item != default:
            found[name] = _sparse(item)
    return found


def _plan(cls: type) -> tuple[tuple[str, str, Any], ...]:
    names = json_keys(cls)
    return tuple((field.name, names[field.name], field.default) for field in fields(cls))
