"""The files docker puts over the image's: /etc/hostname, /etc/hosts, /etc/resolv.conf."""

import os
from collections.abc import Sequence
from pathlib import Path

from wherry.engine.config import DaemonConfig
from wherry.engine.records import Definition
from wherry.network import hosts, resolvconf
from wherry.network.endpoint import Endpoint

NAMES = ("hostname", "hosts", "resolv.conf")
_LIMIT = 64 * 1024
_HOST_HOSTS = Path("/etc/hosts")


def write_hostname(directory: Path, hostname: str) -> None:
    """Write /etc/hostname."""
    _write(directory, "hostname", hosts.render_hostname(hostname))


def write_network_files(
    directory: Path, definition: Definition, config: DaemonConfig, endpoints: Sequence[Endpoint], gateway: str
) -> None:
    """Write /etc/hosts and /etc/resolv.conf; `gateway` is what host-gateway means, "" when nothing can mean it."""
    _write(directory, "resolv.conf", _resolv_conf(definition, config, endpoints))
    write_hosts(directory, definition, endpoints, gateway)


def update_network_files(
    directory: Path, definition: Definition, config: DaemonConfig, endpoints: Sequence[Endpoint], gateway: str
) -> None:
    """While it runs, its networks have become these. What it has written into resolv.conf itself stays."""
    if named(endpoints, config) and resolvconf.is_unchanged(_read(directory)):
        _write(directory, "resolv.conf", _resolv_conf(definition, config, endpoints))
    write_hosts(directory, definition, endpoints, gateway)


def named(endpoints: Sequence[Endpoint], config: DaemonConfig) -> list[Endpoint]:
    """Those on networks where containers find each other by their names."""
    return [
        endpoint
        for endpoint in endpoints
        if endpoint.netns is not None
        and (endpoint.network not in ("bridge", "host", "none") or (endpoint.network == "bridge" and config.bridge_dns))
    ]


def leads_to_resolver(directory: Path) -> bool:
    """Whether a container's resolv.conf names the resolver."""
    return resolvconf.RESOLVER in resolvconf.parse(_read(directory)).nameservers


def _resolv_conf(definition: Definition, config: DaemonConfig, endpoints: Sequence[Endpoint]) -> str:
    host = definition.host
    own, resolver = _is_own(endpoints), bool(named(endpoints, config))
    # The resolver asks from the host's namespace, where a server on the host's loopback interface answers.
    source, text = resolvconf.read_host(own_namespace=own and not resolver)
    return resolvconf.render(
        text,
        own_namespace=own,
        dns=host.dns or config.dns,
        search=host.dns_search or config.dns_search,
        options=host.dns_options or config.dns_options,
        source=source,
        resolver=resolver,
    )


def write_hosts(directory: Path, definition: Definition, endpoints: Sequence[Endpoint], gateway: str) -> None:
    """Write /etc/hosts."""
    own = _is_own(endpoints)
    lines = hosts.render(
        hostname=definition.config.hostname,
        domainname=definition.config.domainname,
        addresses=[address for endpoint in endpoints for address in (endpoint.ipv4, endpoint.ipv6) if address],
        extra=definition.host.extra_hosts or (),
        # Under --network host the container is where the host is.
        gateway=gateway if own else "127.0.0.1",
        host=None if own else _host_hosts(),
    )
    _write(directory, "hosts", lines)


def _is_own(endpoints: Sequence[Endpoint]) -> bool:
    """Whether the container has a network namespace of its own."""
    return not any(endpoint.driver == "host" for endpoint in endpoints)


def _write(directory: Path, name: str, text: str) -> None:
    # In place: a running container has it mounted.
    fd = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _read(directory: Path) -> str:
    """What is in its resolv.conf by now: the container may have written anything."""
    try:
        with open(directory / "resolv.conf", "rb") as file:
            return file.read(_LIMIT).decode(errors="replace")
    except OSError:
        return ""


def _host_hosts() -> str | None:
    try:
        return _HOST_HOSTS.read_text(errors="replace")
    except OSError:
        return None
