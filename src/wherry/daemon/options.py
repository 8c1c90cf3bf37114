"""Every option of the daemon: its flag, its key in the configuration file, what kind of value it takes.

Names and meanings are dockerd's (its --help, API documentation of daemon.json). What Wherry does not do is known by
name all the same, so that asking for it is refused with the reason instead of "unknown flag"; asking for what Wherry
does anyway (`fixed`) is accepted.
"""

from typing import NamedTuple

DEFAULT_HOST = "unix:///var/run/docker.sock"
"""Where every Docker client looks when it is told nothing else."""
DEFAULT_CONFIG_FILE = "/etc/wherry/daemon.json"


class Option(NamedTuple):
    """One option. `kind`: bool, string, int, list, map, ulimit, bytes, features (name=bool), runtimes (name=path;
    objects in the file). `key`: in daemon.json, None for flags only. `live`: a reload takes it over."""

    flag: str
    kind: str
    help: str
    key: str | None = None
    short: str = ""
    default: str = ""
    live: bool = False


OPTIONS = (
    Option("add-runtime", "runtimes", "a further name for the runtime (name=path)", "runtimes", live=True),
    Option("authorization-plugin", "list", "plugins that must allow each request", "authorization-plugins", live=True),
    Option("bip", "string", "IPv4 address and prefix of the default bridge", "bip"),
    Option("bridge", "string", 'name of the default bridge; "none" for no bridge network', "bridge", "b"),
    Option("bridge-dns", "bool", "containers on the default bridge find each other by name", "bridge-dns"),
    Option(
        "cdi-spec-dir",
        "list",
        "directories of CDI specifications (default: /etc/cdi, /var/run/cdi)",
        "cdi-spec-dirs",
    ),
    Option("cgroup-parent", "string", "cgroup under which all containers' cgroups are made", "cgroup-parent"),
    Option("config-file", "string", "configuration file", None, default=DEFAULT_CONFIG_FILE),
    Option("data-root", "string", "what must survive a reboot", "data-root", default="/var/lib/wherry"),
    Option("debug", "bool", "log what happens in detail", "debug", "D", live=True),
    Option(
        "default-address-pool",
        "list",
        "where subnets of networks that name none come from (base=10.0.0.0/8,size=24)",
        "default-address-pools",
    ),
    Option(
        "default-network-opt",
        "list",
        "options of networks that do not set them (bridge=com.docker.network.driver.mtu=1400)",
        "default-network-opts",
    ),
    Option(
        "default-cgroupns-mode",
        "string",
        "cgroup namespace of containers that name none: host or private",
        "default-cgroupns-mode",
    ),
    Option(
        "default-ipc-mode",
        "string",
        "IPC namespace of containers that name none: private or shareable",
        "default-ipc-mode",
        default="private",
    ),
    Option(
        "default-runtime",
        "string",
        "runtime of containers that name none",
        "default-runtime",
        default="wherry",
        live=True,
    ),
    Option("default-shm-size", "bytes", "size of /dev/shm in containers", "default-shm-size", default="64MiB"),
    Option("default-ulimit", "ulimit", "ulimits of containers that name none", "default-ulimits"),
    Option("dns", "list", "DNS servers of containers", "dns"),
    Option("dns-opt", "list", "DNS options of containers", "dns-opts"),
    Option("dns-search", "list", "DNS search domains of containers", "dns-search"),
    Option("exec-root", "string", "what must not survive a reboot", "exec-root", default="/run/wherry"),
    Option("feature", "features", "switch a feature (name=true)", "features", live=True),
    Option(
        "fixed-cidr", "string", "part of the default bridge's subnet that containers get addresses of", "fixed-cidr"
    ),
    Option("fixed-cidr-v6", "string", "IPv6 subnet of the default bridge", "fixed-cidr-v6"),
    Option("group", "string", "group that may use the unix socket", "group", "G", default="docker"),
    Option("help", "bool", "show this help"),
    Option("host", "list", "where to listen: unix://, tcp://, fd://", "hosts", "H"),
    Option("host-gateway-ip", "list", "what host-gateway means in --add-host", "host-gateway-ips"),
    Option("http-proxy", "string", "proxy for http://", "http-proxy"),
    Option("https-proxy", "string", "proxy for https://", "https-proxy"),
    Option("icc", "bool", "containers of the default network reach each other", "icc", default="true"),
    Option("init", "bool", "run an init in containers, which forwards signals and reaps processes", "init"),
    Option("insecure-registry", "list", "registries spoken to without verified TLS", "insecure-registries", live=True),
    Option("ip", "string", "address on which ports are published", "ip", default="0.0.0.0"),
    Option("ip-forward", "bool", "turn on forwarding of packets, which containers need", "ip-forward", default="true"),
    Option("ip-masq", "bool", "what leaves the default bridge gets the host's address", "ip-masq", default="true"),
    Option("ipv6", "bool", "give the default bridge IPv6", "ipv6"),
    Option(
        "ipv6-networks",
        "string",
        "IPv6 for new networks that do not say: auto (when the host has it), always or never",
        "ipv6-networks",
        default="auto",
    ),
    Option("label", "list", "labels of the daemon (key=value)", "labels", live=True),
    Option(
        "live-restore",
        "bool",
        "containers run on when the daemon stops; false: they are stopped with it",
        "live-restore",
        default="true",
        live=True,
    ),
    Option("log-driver", "string", "log driver of containers that name none", "log-driver", default="json-file"),
    Option("log-format", "string", "form of the daemon's own log: text or json", "log-format", default="text"),
    Option("log-level", "string", "debug, info, warn, error or fatal", "log-level", "l", default="info", live=True),
    Option("log-opt", "map", "options of the log driver (key=value)", "log-opts"),
    Option(
        "max-concurrent-downloads",
        "int",
        "blobs one pull downloads at once",
        "max-concurrent-downloads",
        default="3",
        live=True,
    ),
    Option(
        "max-concurrent-uploads",
        "int",
        "blobs one push uploads at once",
        "max-concurrent-uploads",
        default="5",
        live=True,
    ),
    Option(
        "max-download-attempts",
        "int",
        "how often a download is tried",
        "max-download-attempts",
        default="5",
        live=True,
    ),
    Option("metrics-addr", "string", "address and port of the metrics for Prometheus", "metrics-addr"),
    Option("no-proxy", "string", "hosts reached without a proxy, with commas between", "no-proxy"),
    Option(
        "no-new-privileges",
        "bool",
        "containers' processes gain no privileges by exec, unless their own options say otherwise",
        "no-new-privileges",
    ),
    Option("mtu", "int", "MTU of the default bridge", "mtu", default="1500"),
    Option("pidfile", "string", "file that holds the daemon's process id (default: in the exec-root)", "pidfile", "p"),
    Option("registry-mirror", "list", "mirrors asked before Docker Hub", "registry-mirrors", live=True),
    Option(
        "seccomp-profile",
        "string",
        'file with the seccomp profile of containers that name none, or "unconfined"',
        "seccomp-profile",
        default="builtin",
    ),
    Option(
        "shutdown-timeout",
        "int",
        "seconds given to requests and, without live-restore, to containers at the end",
        "shutdown-timeout",
        default="15",
        live=True,
    ),
    Option(
        "stop-at-once",
        "bool",
        "kill without waiting what has no handler for its stop signal; false: wait as dockerd does",
        "stop-at-once",
        default="true",
    ),
    Option("tls", "bool", "use TLS on tcp:// (implied by --tlsverify)", "tls"),
    Option("tlscacert", "string", "certificates that sign clients'", "tlscacert", default="~/.docker/ca.pem"),
    Option("tlscert", "string", "the server's certificate", "tlscert", default="~/.docker/cert.pem"),
    Option("tlskey", "string", "the server's key", "tlskey", default="~/.docker/key.pem"),
    Option("tlsverify", "bool", "use TLS and demand a certificate of clients", "tlsverify"),
    Option(
        "userns-remap",
        "string",
        "user namespace for containers: default, user[:group] or uid[:gid] with ids in /etc/subuid and /etc/subgid",
        "userns-remap",
    ),
    Option("validate", "bool", "check the configuration and exit"),
    Option("version", "bool", "show the version", None, "v"),
)


class Fixed(NamedTuple):
    """An option of dockerd's that has no choice here: its accepted values, and why no other."""

    flag: str
    kind: str
    accepted: tuple[str, ...]
    reason: str = "not supported yet"
    short: str = ""


_ON, _OFF = ("true",), ("false",)
FIXED = (
    Fixed("exec-opt", "list", ("native.cgroupdriver=cgroupfs",), "cgroups are always managed directly (cgroupfs)"),
    Fixed("experimental", "bool", _OFF),
    Fixed("ip6tables", "bool", _ON, "containers are kept apart by nftables, for IPv6 too"),
    Fixed("iptables", "bool", _ON, "containers are kept apart by nftables"),
    Fixed("raw-logs", "bool", ("true", "false"), "the daemon's log is never coloured"),
    Fixed("rootless", "bool", _OFF),
    Fixed("selinux-enabled", "bool", _OFF),
    Fixed("storage-driver", "string", ("overlay2", "overlay", "overlayfs"), "overlay is the only one yet", "s"),
    Fixed("userland-proxy", "bool", _OFF, "ports are published by the kernel alone"),
    Fixed("bip6", "string", ()),
    Fixed("containerd", "string", (), "there is no containerd here: images and containers are Wherry's own; remove it"),
    Fixed("containerd-namespace", "string", (), "there is no containerd here; remove it"),
    Fixed("containerd-plugins-namespace", "string", (), "there is no containerd here; remove it"),
    Fixed("cpu-rt-period", "string", (), "not supported yet: give --cpu-rt-period to the containers that need it"),
    Fixed("cpu-rt-runtime", "string", (), "not supported yet: give --cpu-rt-runtime to the containers that need it"),
    Fixed("default-gateway", "string", ()),
    Fixed("default-gateway-v6", "string", ()),
    Fixed("init-path", "string", (), "the init is Wherry's own and part of it; remove it"),
    Fixed("network-control-plane-mtu", "string", (), "there is no swarm mode yet; remove it"),
    Fixed("node-generic-resource", "string", (), "there is no swarm mode yet; remove it"),
    Fixed("storage-opt", "string", ()),
    Fixed("swarm-default-advertise-addr", "string", (), "there is no swarm mode yet; remove it"),
    Fixed("userland-proxy-path", "string", (), "ports are published by the kernel alone; remove it"),
    Fixed("builder", "string", ()),
    Fixed("network-diagnostic-port", "string", (), "there is no swarm mode yet; remove it"),
    Fixed("swarm-raft-heartbeat-tick", "string", (), "there is no swarm mode yet; remove it"),
    Fixed("swarm-raft-election-tick", "string", (), "there is no swarm mode yet; remove it"),
    Fixed("cri-containerd", "bool", _OFF, "there is no containerd here; remove it"),
    *(Fixed(flag, "bool", _OFF) for flag in ("allow-direct-routing", "ip-forward-no-drop")),
)

# Keys of daemon.json that are not their flag's own name.
FIXED_KEYS = {
    "exec-opts": "exec-opt",
    "storage-opts": "storage-opt",
    "node-generic-resources": "node-generic-resource",
}
