"""What the daemon's flags say about networking."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wherry.plugins import Places


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Names are kernel-wide, so they come from the daemon, derived from its exec-root.

    `bridge` is the interface's name (at most 15 bytes), "none" for no default network on a bridge; `table` the
    nftables table's. `bip` is the bridge's address with its prefix ("172.17.0.1/16"), None to choose one that meets
    nothing the host has; `fixed_cidr` narrows what is given to containers. `ipv6` and `fixed_cidr_v6` give the
    default network IPv6. `mtu` None follows the interface of the default route. `default_bind` is where ports go
    that name no address. `icc` False keeps containers of the default network from each other but for published
    ports (and from those too where br_netfilter is on: the bridge then translates them before isolating the two
    ports). `pools`: (base, size) of the subnets for networks that name none; empty: docker's. `ipv6_networks`:
    whether networks that say nothing about IPv6 get it; None: when the host has it. `driver_options`: driver →
    options of networks that do not set them.
    `warm` is how many sandboxes are kept ready ahead of need. `plugins`: where they are looked for, None: docker's own
    places.
    """

    bridge: str
    table: str
    exec_root: Path
    bip: str | None = None
    fixed_cidr: str | None = None
    mtu: int | None = None
    default_bind: str = "0.0.0.0"
    icc: bool = True
    ip_forward: bool = True
    ip_masq: bool = True
    warm: int = 4
    plugins: Places | None = None
    ipv6: bool = False
    fixed_cidr_v6: str | None = None
    pools: tuple[tuple[str, int], ...] = ()
    ipv6_networks: bool | None = None
    driver_options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
