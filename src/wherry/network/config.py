"""What the daemon's flags say about networking."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Names are kernel-wide, so they come from the daemon, derived from its exec-root.

    `bridge` is the interface's name (at most 15 bytes), `table` the nftables table's. `bip` is the bridge's address
    with its prefix ("172.17.0.1/16"), None to choose one that meets nothing the host has; `fixed_cidr` narrows what is
    given to containers. `mtu` None follows the interface of the default route. `default_bind` is where ports go that
    name no address. `icc` False keeps containers from each other but for published ports (and
    from those too where br_netfilter is on: the bridge then translates them before isolating the two ports).
    `warm` is how many sandboxes are kept ready ahead of need.
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
