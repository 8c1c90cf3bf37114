"""What keeps volumes: the contract of drivers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Found:
    """A volume as its driver knows it. `mountpoint`: "" while it is nowhere. `created`: RFC 3339, "" if not known."""

    name: str
    mountpoint: str = ""
    created: str = ""
    status: Mapping[str, Any] | None = None


class Driver(Protocol):
    """One place of volumes, called from any thread, but for one volume from one thread at a time.

    A volume is there from `create` to `remove`, and can be used from `mount` to `unmount`: each *user* (a container's
    id) mounts once and unmounts once; the path is the same for all. Calls for what is done already are no errors:
    `create` of what is there keeps it, `unmount` of what is not mounted does nothing, `remove` of what is gone, too.

        create("data", {}); path = mount("data", "c1"); unmount("data", "c1"); remove("data")

    Errors: NotFound from `get` and `mount`, InvalidArgument from `create` for a name or options the driver has no use
    for; FailedPrecondition or Internal with the driver's own words when it cannot; Unavailable when it does not answer
    in time. A call that failed has changed nothing that the same call, made again, would not mend.
    """

    @property
    def name(self) -> str: ...
    @property
    def scope(self) -> str:
        """ "local" to this host, or "global"."""

    def create(self, name: str, options: Mapping[str, str]) -> None: ...
    def get(self, name: str) -> Found: ...
    def list(self) -> list[Found]: ...
    def mount(self, name: str, user: str) -> Path: ...
    def unmount(self, name: str, user: str) -> None: ...
    def remove(self, name: str) -> None: ...
