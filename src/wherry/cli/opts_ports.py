"""--publish and --expose as docker reads them."""

from __future__ import annotations

from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Bindings = dict[str, list[dict[str, str]]]

_PROTOCOLS = ("tcp", "udp", "sctp")


def publish(specs: list[str]) -> tuple[dict[str, dict[str, Any]], Bindings]:
    """(Config.ExposedPorts, HostConfig.PortBindings). Raises InvalidArgument in docker's words."""
    exposed: dict[str, dict[str, Any]] = {}
    bindings: Bindings = {}
    for spec in specs:
        for port, binding in _expand(_long_form(spec) if "=" in spec else spec):
            exposed[port] = {}
            bindings.setdefault(port, []).append(binding)
    return exposed, bindings


def expose(specs: list[str]) -> dict[str, dict[str, Any]]:
    exposed: dict[str, dict[str, Any]] = {}
    for spec in specs:
        if ":" in spec:
            raise InvalidArgument(f"invalid port format for --expose: {spec}")
        ports, _, protocol = spec.partition("/")
        try:
            first, last = _range(ports)
        except ValueError as error:
            raise InvalidArgument(f"invalid range format for --expose: {spec}, error: {error}") from None
        for number in range(first, last + 1):
            exposed[f"{number}/{protocol or 'tcp'}"] = {}
    return exposed


def _long_form(spec: str) -> str:
    """target=80,published=8080,protocol=udp"""
    values = {"protocol": "tcp"}
    for field in spec.split(","):
        name, equals, value = field.partition("=")
        if not equals:
            raise InvalidArgument(f"invalid port syntax: {field} must be a key=value pair")
        if name.lower() not in ("target", "published", "protocol", "mode"):
            raise InvalidArgument(f"invalid field key: {name}")
        values[name.lower()] = value
    if "target" not in values:
        raise InvalidArgument('missing mandatory field "target"')
    published = values.get("published", "")
    return (
        f"{published}:{values['target']}/{values['protocol']}"
        if published
        else f"{values['target']}/{values['protocol']}"
    )


def _expand(spec: str) -> list[tuple[str, dict[str, str]]]:
    address, host, container = _parts(spec)
    container, _, protocol = container.partition("/")
    protocol = protocol.lower() or "tcp"
    if address and not address.startswith("["):
        from wherry.cli.opts_values import is_ip

        if not is_ip(address):
            raise InvalidArgument(f"invalid IP address: {address}")
    address = address.strip("[]")
    if not container:
        raise InvalidArgument(f"no port specified: {spec}<empty>")
    try:
        first, last = _range(container)
    except ValueError:
        raise InvalidArgument(f"invalid containerPort: {container}") from None
    start, end = 0, 0
    if host:
        try:
            start, end = _range(host)
        except ValueError:
            raise InvalidArgument(f"invalid hostPort: {host}") from None
    if host and last - first != end - start and last != first:
        raise InvalidArgument(f"invalid ranges specified for container and host Ports: {container} and {host}")
    if protocol not in _PROTOCOLS:
        raise InvalidArgument(f"invalid proto: {protocol}")
    result = []
    for offset in range(last - first + 1):
        published = str(start + offset) if host else ""
        # One container port and a range of host ports: the engine picks one of them.
        if host and first == last and start != end:
            published = f"{start}-{end}"
        result.append((f"{first + offset}/{protocol}", {"HostIp": address, "HostPort": published}))
    return result


def _parts(spec: str) -> tuple[str, str, str]:
    """(address, host ports, container ports); an IPv6 address may stand in brackets."""
    if spec.startswith("["):
        address, bracket, rest = spec.partition("]")
        if bracket and rest.startswith(":"):
            host, _, container = rest[1:].rpartition(":")
            return address + bracket, host, container
    parts = spec.split(":")
    if len(parts) <= 3:
        padded = [""] * (3 - len(parts)) + parts
        return padded[0], padded[1], padded[2]
    return ":".join(parts[:-2]), parts[-2], parts[-1]


def _range(text: str) -> tuple[int, int]:
    if not text:
        raise ValueError("empty string specified for ports")
    first, dash, last = text.partition("-")
    start = _number(first)
    end = _number(last) if dash else start
    if end < start:
        raise ValueError(f"invalid range specified for port: {text}")
    return start, end


def _number(text: str) -> int:
    if not text.isdigit():
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if int(text) > 65535:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)
