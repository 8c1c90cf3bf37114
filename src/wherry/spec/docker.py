"""The Docker Engine API's request documents (API 1.50), decoded at the edge by `wherry.spec.decode`.

Field order is the order in which docker prints them in `inspect`, so `encode` gives docker's own document.
`None` is docker's `null`: what was not given.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wherry.spec.decode import document, key


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class HealthConfig:
    """A health check; durations in nanoseconds. `test[0]` is NONE, CMD or CMD-SHELL; empty inherits the image's.

    `on_failure` is Wherry's own: what follows from "unhealthy": none, restart, stop or kill.
    """

    test: tuple[str, ...] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0
    on_failure: str = ""


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerConfig:
    """What a container runs, independent of the machine."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: Mapping[str, Any] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: Mapping[str, Any] | None = None
    working_dir: str = ""
    entrypoint: tuple[str, ...] | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: tuple[str, ...] | None = None
    labels: Mapping[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: tuple[str, ...] | None = None


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """A log driver and its options; an empty type is the daemon's default."""

    type: str = ""
    config: Mapping[str, str] | None = None


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class PortBinding:
    """Where on the host one container port is published; an empty or "0" port is any free one; "a-b" a range."""

    host_ip: str = ""
    host_port: str = ""


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """`name`: "", "no", "always", "unless-stopped", "on-failure"."""

    name: str = ""
    maximum_retry_count: int = 0


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMapping:
    """A device (or directory of devices) of the host, made in the container; permissions out of "rwm"."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRequest:
    """Devices by driver (GPUs, CDI)."""

    driver: str = ""
    count: int = 0
    device_ids: tuple[str, ...] | None = key("DeviceIDs", None)
    capabilities: tuple[tuple[str, ...], ...] | None = None
    options: Mapping[str, str] | None = None


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class WeightDevice:
    """A blkio weight for one block device."""

    path: str = ""
    weight: int = 0


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottleDevice:
    """A rate limit for one block device: bytes or operations a second."""

    path: str = ""
    rate: int = 0


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class Ulimit:
    """A resource limit, by its name in lower case without "RLIMIT_"; -1 is unlimited."""

    name: str = ""
    hard: int = 0
    soft: int = 0


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class BindOptions:
    """How a bind mount is made."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False
    idmap: str = key("IDMap", "")
    """Ours: "auto", or ids as in engine.idmaps."""


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeDriver:
    """The driver of a volume to be made."""

    name: str = ""
    options: Mapping[str, str] | None = None


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeOptions:
    """How a volume is made and mounted."""

    no_copy: bool = False
    labels: Mapping[str, str] | None = None
    subpath: str = ""
    driver_config: VolumeDriver | None = None


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class TmpfsOptions:
    """Size in bytes, mode as a number, further mount options as [name] or [name, value]."""

    size_bytes: int = 0
    mode: int = 0
    options: tuple[tuple[str, ...], ...] | None = None


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """How an image is mounted."""

    subpath: str = ""


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class MountSpec:
    """One of HostConfig.Mounts; `type`: bind, volume, tmpfs, npipe, cluster, image."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """How a container meets the machine it runs on."""

    binds: tuple[str, ...] | None = None
    container_id_file: str = key("ContainerIDFile", "")
    log_config: LogConfig = LogConfig()
    network_mode: str = ""
    port_bindings: Mapping[str, tuple[PortBinding, ...]] | None = None
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: tuple[str, ...] | None = None
    console_size: tuple[int, ...] | None = None
    annotations: Mapping[str, str] | None = None
    cap_add: tuple[str, ...] | None = None
    cap_drop: tuple[str, ...] | None = None
    cgroupns_mode: str = ""
    dns: tuple[str, ...] | None = None
    dns_options: tuple[str, ...] | None = None
    dns_search: tuple[str, ...] | None = None
    extra_hosts: tuple[str, ...] | None = None
    group_add: tuple[str, ...] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: tuple[str, ...] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: tuple[str, ...] | None = None
    storage_opt: Mapping[str, str] | None = None
    tmpfs: Mapping[str, str] | None = None
    uts_mode: str = key("UTSMode", "")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: Mapping[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: tuple[WeightDevice, ...] | None = None
    blkio_device_read_bps: tuple[ThrottleDevice, ...] | None = None
    blkio_device_write_bps: tuple[ThrottleDevice, ...] | None = None
    blkio_device_read_iops: tuple[ThrottleDevice, ...] | None = key("BlkioDeviceReadIOps", None)
    blkio_device_write_iops: tuple[ThrottleDevice, ...] | None = key("BlkioDeviceWriteIOps", None)
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: tuple[DeviceMapping, ...] | None = None
    device_cgroup_rules: tuple[str, ...] | None = None
    device_requests: tuple[DeviceRequest, ...] | None = None
    kernel_memory_tcp: int = key("KernelMemoryTCP", 0)
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: tuple[Ulimit, ...] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = key("IOMaximumIOps", 0)
    io_maximum_bandwidth: int = key("IOMaximumBandwidth", 0)
    mounts: tuple[MountSpec, ...] | None = None
    init: bool | None = None
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointIPAMConfig:
    """Addresses asked for."""

    ipv4_address: str = key("IPv4Address", "")
    ipv6_address: str = key("IPv6Address", "")
    link_local_ips: tuple[str, ...] | None = key("LinkLocalIPs", None)


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """How a container is to be connected to one network."""

    ipam_config: EndpointIPAMConfig | None = key("IPAMConfig", None)
    links: tuple[str, ...] | None = None
    aliases: tuple[str, ...] | None = None
    mac_address: str = ""
    driver_opts: Mapping[str, str] | None = None
    gw_priority: int = 0


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkingConfig:
    """The networks to connect to, by name."""

    endpoints_config: Mapping[str, EndpointSettings] | None = None


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class ExecConfig:
    """A further process to run in a container."""

    user: str = ""
    privileged: bool = False
    tty: bool = False
    console_size: tuple[int, ...] | None = None
    attach_stdin: bool = False
    attach_stderr: bool = False
    attach_stdout: bool = False
    detach_keys: str = ""
    env: tuple[str, ...] | None = None
    working_dir: str = ""
    cmd: tuple[str, ...] | None = None


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class AuthConfig:
    """Credentials for one registry (POST /auth)."""

    username: str = key("username", "")
    password: str = key("password", "")
    identity_token: str = key("identitytoken", "")
    server_address: str = key("serveraddress", "")
