"""One network as data: what was asked for, and what was decided when it was made.

The record is the truth of the store (`networks/<id>`); what the kernel has is made from it again at every start.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from ipaddress import IPv4Network, IPv6Network, ip_network

BUILT_IN = ("bridge", "host", "none")
_SPELLING = {"bridge": "bridge", "host": "host", "none": "null"}


@dataclass(frozen=True, slots=True)
class Subnet:
    """One subnet of a network; every field as it was asked for, but `subnet`, which is always there once it exists.

    `gateway` "" : chosen, or none (see `Network.gateways`). `auxiliary`: name → an address that is never given out.
    """

    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    auxiliary: Mapping[str, str] = field(default_factory=dict)

    @property
    def network(self) -> IPv4Network | IPv6Network:
        return ip_network(self.subnet)

    @property
    def version(self) -> int:
        return 6 if ":" in self.subnet else 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network. `options` are the driver's. `state`: "" once made; "creating" or "removing" is a crash's trace.

    `subnets` are as asked for and shown; `gateways` are the addresses in use: subnet → gateway.
    """

    name: str
    id: str
    driver: str
    created: str
    scope: str = "local"
    ipv4: bool = True
    ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: str = ""
    ipam_driver: str = "default"
    ipam_options: Mapping[str, str] | None = None
    subnets: tuple[Subnet, ...] = ()
    gateways: Mapping[str, str] = field(default_factory=dict)
    ipam_pools: Mapping[str, str] = field(default_factory=dict)
    """subnet → what the IPAM plugin calls it."""
    own_subnets: bool = False
    """Whether the user chose any subnet: only then may containers ask for addresses."""
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    state: str = ""

    @property
    def built_in(self) -> bool:
        return self.name in BUILT_IN

    def of_version(self, version: int) -> tuple[Subnet, ...]:
        """Its subnets of IPv4 or IPv6."""
        return tuple(subnet for subnet in self.subnets if subnet.version == version)

    def dump(self) -> bytes:
        """What `load` reads."""
        return json.dumps(asdict(self)).encode()


def load(data: bytes) -> Network:
    """The network that `dump` wrote."""
    document = json.loads(data)
    subnets = tuple(Subnet(**subnet) for subnet in document.pop("subnets", ()))
    known = {field.name for field in fields(Network)}
    return Network(subnets=subnets, **{name: value for name, value in document.items() if name in known})


def built_in(name: str, id: str, created: str) -> Network:
    """One of the three that are always there."""
    return Network(name=name, id=id, driver=_SPELLING[name], created=created)


def changed(network: Network, **changes: object) -> Network:
    """The network with some fields changed."""
    return replace(network, **changes)  # type: ignore[arg-type]
