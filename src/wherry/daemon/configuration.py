"""From settings to what the engine is told."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wherry.daemon.checks import parse_network_options, parse_pools
from wherry.daemon.settings import Settings
from wherry.daemon.ulimits import parse_ulimit
from wherry.errors import InvalidArgument

if TYPE_CHECKING:
    from wherry.engine import DaemonConfig


def daemon_config(settings: Settings, warnings: tuple[str, ...] = ()) -> "DaemonConfig":
    """What the engine needs to know; InvalidArgument and Unimplemented for what it cannot do."""
    from wherry.engine import DaemonConfig
    from wherry.engine.config import DEFAULT_CDI_DIRS
    from wherry.engine.runtimes import check_runtime, parse_runtimes
    from wherry.logs.options import check_options

    check_options(settings.text("log-driver"), settings.mapping("log-opt"))
    config = DaemonConfig(
        data_root=Path(settings.text("data-root")),
        exec_root=Path(settings.text("exec-root")),
        bridge=settings.text("bridge"),
        bip=settings.text("bip"),
        mtu=settings.number("mtu") if "mtu" in settings.given else 0,
        fixed_cidr=settings.text("fixed-cidr"),
        fixed_cidr_v6=settings.text("fixed-cidr-v6"),
        ipv6=settings.flag("ipv6"),
        icc=settings.flag("icc"),
        ip_forward=settings.flag("ip-forward"),
        ip_masq=settings.flag("ip-masq"),
        address_pools=parse_pools(settings.items("default-address-pool")),
        network_options=parse_network_options(settings.items("default-network-opt")),
        ipv6_networks={"auto": None, "always": True, "never": False}[settings.text("ipv6-networks")],
        default_bind_address=settings.text("ip"),
        cgroup_parent=settings.text("cgroup-parent"),
        bridge_dns=settings.flag("bridge-dns"),
        dns=settings.items("dns"),
        dns_options=settings.items("dns-opt"),
        dns_search=settings.items("dns-search"),
        default_ulimits=tuple(parse_ulimit(text) for text in settings.items("default-ulimit")),
        default_shm_size=settings.number("default-shm-size"),
        log_driver=settings.text("log-driver"),
        log_options=settings.mapping("log-opt"),
        shutdown_timeout=settings.number("shutdown-timeout"),
        labels=settings.items("label"),
        debug=settings.flag("debug"),
        insecure_registries=settings.items("insecure-registry"),
        registry_mirrors=settings.items("registry-mirror"),
        userns_remap=settings.text("userns-remap"),
        host_gateway_ip="".join(settings.items("host-gateway-ip")),
        no_new_privileges=settings.flag("no-new-privileges"),
        seccomp_profile=_seccomp_profile(settings.text("seccomp-profile")),
        default_ipc_mode=settings.text("default-ipc-mode"),
        default_cgroupns_mode=settings.text("default-cgroupns-mode"),
        max_downloads=_many(settings, "max-concurrent-downloads"),
        max_uploads=_many(settings, "max-concurrent-uploads"),
        max_download_attempts=settings.number("max-download-attempts"),
        http_proxy=settings.text("http-proxy"),
        https_proxy=settings.text("https-proxy"),
        no_proxy=settings.text("no-proxy"),
        init=settings.flag("init"),
        stop_at_once=settings.flag("stop-at-once"),
        cdi_spec_dirs=tuple(Path(path) for path in settings.items("cdi-spec-dir")) or DEFAULT_CDI_DIRS,
        live_restore=settings.flag("live-restore"),
        runtimes=parse_runtimes(settings.mapping("add-runtime")),
        default_runtime=settings.text("default-runtime"),
        authorization_plugins=settings.items("authorization-plugin"),
        features=_features(settings.mapping("feature")),
        warnings=warnings,
    )
    check_runtime(config, config.default_runtime)
    return config


_PROFILE_BYTES = 4 << 20


def _seccomp_profile(value: str) -> str:
    """The profile of a file, checked now rather than at every container."""
    from wherry.engine.security import parse_security_options

    if value in ("", "builtin"):
        return ""
    if value == "unconfined":
        return value
    try:
        with open(value) as file:
            profile = file.read(_PROFILE_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"opening seccomp profile ({value}) failed: {error}", object=value) from None
    parse_security_options((f"seccomp={profile}",))
    return profile


_UNBOUNDED = 32


def _many(settings: Settings, name: str) -> int:
    """As in dockerd, 0 is no bound; a thread each has to be afforded all the same."""
    return settings.number(name) or _UNBOUNDED


# Those of docker's that say what Wherry does anyway, and how.
_FEATURES = {"cdi": True, "containerd-snapshotter": False, "buildkit": None}


def _features(given: dict[str, Any]) -> dict[str, bool]:
    for name, on in given.items():
        if name not in _FEATURES:
            raise InvalidArgument(f"there is no feature {name!r}", object=name, hint=", ".join(sorted(_FEATURES)))
        if on and _FEATURES[name] is False:
            raise InvalidArgument(f"the feature {name} does not exist here: there is no containerd", object=name)
    return given
