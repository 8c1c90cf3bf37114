"""What the resolver is told of one sandbox: plain JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Membership:
    """A place in a network: its id and name, addresses ("" for none), what others there may call the sandbox, first of
    all the name its addresses lead back to, and its own links: what it calls others → their names there."""

    id: str
    network: str
    ipv4: str
    ipv6: str
    names: Sequence[str]
    links: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """A sandbox. `netns`: the file its network namespace is mounted on. `members`: in the order they are asked.

    `servers`: who is asked, from its namespace, about names that are no container's; None: the host's servers, from the
    host's. `forward`: whether anybody is asked. `ndots`: single words are never asked about.
    """

    id: str
    netns: str
    members: Sequence[Membership]
    servers: Sequence[str] | None = None
    forward: bool = True
    ndots: bool = False

    def to_json(self) -> dict[str, Any]:
        """As it is sent."""
        return asdict(self)
