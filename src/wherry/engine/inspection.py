"""One container as docker's inspect document."""

from typing import Any

from wherry.engine import attachments
from wherry.engine.container import Container
from wherry.engine.core import Core
from wherry.engine.mount_specs import shown_mounts
from wherry.engine.ports import shown_port_map
from wherry.engine.records import rfc3339
from wherry.engine.security import MASKED_PATHS, READONLY_PATHS
from wherry.spec.decode import encode
from wherry.spec.docker import ContainerConfig, HostConfig

# docker prints these as empty lists, all others as null.
_EMPTY_LISTS = (
    "BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps Devices Ulimits "
    "Dns DnsOptions DnsSearch"
)
_OMITTED_HOST = ("Annotations", "StorageOpt", "Tmpfs", "Sysctls", "Mounts", "Init", "KernelMemoryTCP", "KernelMemory")
_OMITTED_CONFIG: tuple[str, ...] = (
    "ExposedPorts",
    "Healthcheck",
    "ArgsEscaped",
    "NetworkDisabled",
    "MacAddress",
    "StopSignal",
)
_OMITTED_CONFIG += ("StopTimeout", "Shell")


def inspect(core: Core, container: Container, exec_ids: list[str] | None) -> dict[str, Any]:
    """Docker's document but for SizeRw and SizeRootFs."""
    definition = container.definition
    directory = core.directory(container.id)
    joined = definition.host.network_mode.startswith("container:")
    return {
        "Id": definition.id,
        "Created": rfc3339(definition.created_ns),
        "Path": definition.path,
        "Args": list(definition.args),
        "State": _state(container),
        "Image": definition.image_id,
        "ResolvConfPath": "" if joined else str(directory / "resolv.conf"),
        "HostnamePath": "" if joined else str(directory / "hostname"),
        "HostsPath": "" if joined else str(directory / "hosts"),
        "LogPath": str(core.log_path(container.id)) if definition.host.log_config.type == "json-file" else "",
        "Name": f"/{definition.name}",
        "RestartCount": container.state.restart_count,
        "Driver": core.parts.snapshots.name,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": exec_ids or None,
        "HostConfig": _host(definition.host),
        "GraphDriver": {"Data": {"ID": definition.id}, "Name": core.parts.snapshots.name},
        "Mounts": shown_mounts(definition.mounts),
        "Config": _config(definition.config),
        "NetworkSettings": _network_settings(container),
    }


def _state(container: Container) -> dict[str, Any]:
    state = container.state
    status = state.shown_status
    return {
        "Status": status,
        "Running": state.running,
        "Paused": status == "paused",
        "Restarting": status == "restarting",
        "OOMKilled": state.oom_killed,
        "Dead": status == "dead",
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": rfc3339(state.started_ns),
        "FinishedAt": rfc3339(state.finished_ns),
        **({"Health": container.health.document()} if container.health is not None else {}),
    }


def _host(host: HostConfig) -> dict[str, Any]:
    shown: dict[str, Any] = encode(host)
    for name in _EMPTY_LISTS.split():
        shown[name] = shown[name] or []
    for name in _OMITTED_HOST:
        if not shown.get(name):
            shown.pop(name, None)
    shown["ConsoleSize"] = shown["ConsoleSize"] or [0, 0]
    shown["LogConfig"]["Config"] = shown["LogConfig"]["Config"] or {}
    unmasked = host.privileged or "systempaths=unconfined" in (host.security_opt or ())
    for name, default in (("MaskedPaths", MASKED_PATHS), ("ReadonlyPaths", READONLY_PATHS)):
        if shown[name] is None and not unmasked:
            shown[name] = list(default)
    if shown.get("Mounts"):
        shown["Mounts"] = [_drop_empty(mount) for mount in shown["Mounts"]]
    return shown


def _config(config: ContainerConfig) -> dict[str, Any]:
    shown: dict[str, Any] = encode(config)
    for name in _OMITTED_CONFIG:
        if not shown[name] and shown[name] != 0:
            del shown[name]
    if not shown.get("ArgsEscaped"):
        shown.pop("ArgsEscaped", None)
    if not shown.get("NetworkDisabled"):
        shown.pop("NetworkDisabled", None)
    shown["Labels"] = shown["Labels"] or {}
    if isinstance(shown.get("Healthcheck"), dict):
        shown["Healthcheck"] = _drop_empty(shown["Healthcheck"])
    return shown


def _drop_empty(document: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _drop_empty(value) if isinstance(value, dict) and name.endswith("Options") else value
        for name, value in document.items()
        if value not in (None, "", 0, False, [], {})
    }


def _network_settings(container: Container) -> dict[str, Any]:
    endpoint = container.endpoints[0] if container.endpoints else None
    running = container.state.running and endpoint is not None
    # docker keeps these fields for the default network only.
    bridged = next((e for e in container.endpoints if e.network == "bridge"), None)
    exposed = container.definition.config.exposed_ports
    netns = str(endpoint.netns) if endpoint is not None and endpoint.netns else ""
    return {
        "Bridge": "",
        "SandboxID": endpoint.endpoint_id if endpoint else "",
        "SandboxKey": netns,
        "Ports": shown_port_map(exposed, container.ports) if running else {},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": bridged.endpoint_id if bridged else "",
        "Gateway": bridged.gateway if bridged else "",
        "GlobalIPv6Address": bridged.ipv6 if bridged else "",
        "GlobalIPv6PrefixLen": bridged.prefix6 if bridged else 0,
        "IPAddress": bridged.ipv4 if bridged else "",
        "IPPrefixLen": bridged.prefix if bridged else 0,
        "IPv6Gateway": bridged.gateway6 if bridged else "",
        "MacAddress": bridged.mac if bridged else "",
        "Networks": attachments.shown(container),
    }
