"""Docker's port maps: "80/tcp", ranges and bindings, as requests to the network room."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from wherry.errors import InvalidArgument
from wherry.network.endpoint import PortRequest, PublishedPort
from wherry.spec.docker import HostConfig, PortBinding

_SPEC = re.compile(r"(\d+)(?:-(\d+))?(?:/([a-z]+))?")
_PROTOCOLS = ("tcp", "udp", "sctp")


def parse_port(text: str) -> tuple[int, str]:
    """ "80/tcp" or "80" as (80, "tcp")."""
    match = _SPEC.fullmatch(text.lower())
    if not match or match[2]:
        raise InvalidArgument(f'invalid port specification: "{text}"', object=text)
    port, protocol = int(match[1][:6]), match[3] or "tcp"
    if port > 65535 or protocol not in _PROTOCOLS:
        raise InvalidArgument(f'invalid port specification: "{text}"', object=text)
    return port, protocol


def expand_ports(text: str) -> list[tuple[int, str]]:
    """ "80-82/udp" as three ports."""
    match = _SPEC.fullmatch(text.lower())
    if not match:
        raise InvalidArgument(f'invalid port specification: "{text}"', object=text)
    start, protocol = int(match[1][:6]), match[3] or "tcp"
    end = int((match[2] or match[1])[:6])
    if end < start or end > 65535 or protocol not in _PROTOCOLS:
        raise InvalidArgument(f'invalid port specification: "{text}"', object=text)
    return [(port, protocol) for port in range(start, end + 1)]


def port_requests(exposed: Mapping[str, Any] | None, host: HostConfig) -> tuple[PortRequest, ...]:
    """What to publish: the bindings, and with PublishAllPorts every exposed port without one."""
    requests = []
    bound = set()
    for text, bindings in (host.port_bindings or {}).items():
        port, protocol = parse_port(text)
        bound.add((port, protocol))
        for binding in bindings or (PortBinding(),):
            start, end = _host_range(binding.host_port)
            requests.append(PortRequest(port, protocol, binding.host_ip, start, end))
    if host.publish_all_ports:
        for text in exposed or ():
            requests += [PortRequest(*port) for port in expand_ports(text) if port not in bound]
    return tuple(requests)


def _host_range(text: str) -> tuple[int, int]:
    if not text:
        return 0, 0
    start, dash, end = text.partition("-")
    if not (start.isascii() and start.isdigit() and len(start) < 6 and (not dash or (end.isdigit() and len(end) < 6))):
        raise InvalidArgument(f'invalid port specification: "{text}"', object=text)
    first, last = int(start), int(end) if dash else int(start)
    if last < first or last > 65535:
        raise InvalidArgument(f'invalid port specification: "{text}"', object=text)
    return first, last if dash else 0


def shown_port_map(exposed: Mapping[str, Any] | None, ports: Iterable[PublishedPort]) -> dict[str, Any]:
    """NetworkSettings.Ports: every exposed port, with its bindings or null."""
    found: dict[str, Any] = {}
    for text in exposed or ():
        for port, protocol in expand_ports(text):
            found[f"{port}/{protocol}"] = None
    for published in ports:
        for offset in range(published.count):
            key = f"{published.container_port + offset}/{published.proto}"
            number = str(published.host_port + offset) if published.host_port else ""
            found[key] = [*(found.get(key) or ()), {"HostIp": published.host_ip, "HostPort": number}]
    return found


def shown_ports(exposed: Mapping[str, Any] | None, ports: Iterable[PublishedPort]) -> list[dict[str, Any]]:
    """The Ports of a summary."""
    found = []
    for key, bindings in shown_port_map(exposed, ports).items():
        port, protocol = parse_port(key)
        if bindings is None:
            found.append({"PrivatePort": port, "Type": protocol})
        for item in bindings or ():
            public = {"PublicPort": int(item["HostPort"])} if item["HostPort"] else {}
            found.append({"IP": item["HostIp"], "PrivatePort": port, **public, "Type": protocol})
    return found
