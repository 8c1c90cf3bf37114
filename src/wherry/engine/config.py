"""What a daemon is told at its start, and the names it derives from that."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wherry.spec.docker import Ulimit

DEFAULT_DATA_ROOT = Path("/var/lib/wherry")
DEFAULT_EXEC_ROOT = Path("/run/wherry")
DEFAULT_CDI_DIRS = (Path("/etc/cdi"), Path("/var/run/cdi"))


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonConfig:
    """Settings of one daemon. Sizes in bytes, times in seconds.

    Several daemons live side by side on one machine: what the kernel knows by one machine-wide name (bridge,
    nftables table, cgroup parent) is named after the exec-root unless given.
    """

    data_root: Path = DEFAULT_DATA_ROOT
    exec_root: Path = DEFAULT_EXEC_ROOT
    bridge: str = ""
    """Name of the default bridge; "none" for no bridge network."""
    bip: str = ""
    """Address of the bridge in CIDR form; empty: the network room's default."""
    mtu: int = 0
    """0: that of the interface with the default route."""
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    ipv6: bool = False
    icc: bool = True
    ip_forward: bool = True
    ip_masq: bool = True
    address_pools: tuple[tuple[str, int], ...] = ()
    """(base, bits) of the subnets for networks that name none; empty: docker's."""
    network_options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By driver, of networks that do not set them."""
    ipv6_networks: bool | None = None
    """Whether networks that do not say get IPv6; None: when the host has it."""
    default_bind_address: str = "0.0.0.0"
    cgroup_parent: str = ""
    nftables_table: str = ""
    bridge_dns: bool = False
    """Whether containers on the default bridge find each other by name, as on other networks."""
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    default_ulimits: tuple[Ulimit, ...] = ()
    default_shm_size: int = 64 << 20
    log_driver: str = "json-file"
    log_options: Mapping[str, str] = field(default_factory=dict)
    shutdown_timeout: int = 15
    labels: tuple[str, ...] = ()
    debug: bool = False
    stop_at_once: bool = True
    """Whether `stop` kills without waiting what cannot receive its signal."""
    init: bool = False
    """Whether containers that do not say have an init."""
    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    cdi_spec_dirs: tuple[Path, ...] = DEFAULT_CDI_DIRS
    """Where CDI specifications are; the last counts most."""
    userns_remap: str = ""
    """Whose subordinate ids containers live in: "default", user[:group] or uid[:gid]; empty: the host's own ids."""
    host_gateway_ip: str = ""
    """What `host-gateway` means in --add-host; empty: the default bridge's address."""
    no_new_privileges: bool = False
    seccomp_profile: str = ""
    """Of containers that name none: empty for the built-in one, "unconfined", or the profile itself as JSON."""
    default_ipc_mode: str = "private"
    default_cgroupns_mode: str = ""
    """Empty: as docker, private on cgroup v2 and the host's on v1."""
    max_downloads: int = 3
    max_uploads: int = 5
    max_download_attempts: int = 5
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    live_restore: bool = True
    """False: containers are stopped when the daemon is."""
    runtimes: Mapping[str, str] = field(default_factory=dict)
    """Further names of our runtime, with the paths they were given."""
    default_runtime: str = "wherry"
    authorization_plugins: tuple[str, ...] = ()
    features: Mapping[str, bool] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    """About this configuration, for `info`."""

    def __post_init__(self) -> None:
        suffix = _suffix(self.exec_root)
        for name, plain, suffixed in (
            ("bridge", "wherry0", f"wr-{suffix}"),
            ("nftables_table", "wherry", f"wherry_{suffix}"),
            ("cgroup_parent", "/wherry", f"/wherry-{suffix}"),
        ):
            if not getattr(self, name):
                object.__setattr__(self, name, suffixed if suffix else plain)

    @property
    def containers_dir(self) -> Path:
        """One directory per container: hostname, hosts, resolv.conf, log."""
        return self.data_root / "containers"

    @property
    def bundles_dir(self) -> Path:
        """One OCI bundle per started container."""
        return self.exec_root / "bundles"

    @property
    def monitor_socket(self) -> Path:
        """Where the monitor listens."""
        return self.exec_root / "monitor.sock"

    @property
    def resolver_socket(self) -> Path:
        """Where the resolver listens, when there is one."""
        return self.exec_root / "resolver.sock"

    @property
    def logger_socket(self) -> Path:
        """Where the logger listens."""
        return self.exec_root / "logger.sock"


def _suffix(exec_root: Path) -> str:
    if exec_root == DEFAULT_EXEC_ROOT:
        return ""
    return hashlib.sha256(str(exec_root).encode()).hexdigest()[:8]
