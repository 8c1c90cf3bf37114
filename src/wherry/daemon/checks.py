"""What must hold between the options of a daemon, whichever way they were given."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from wherry.errors import InvalidArgument

LEVELS = ("debug", "info", "warn", "error", "fatal")
_MIRRORS = ("http", "https")


def check(values: Mapping[str, Any]) -> None:
    """InvalidArgument, in dockerd's words where it has any."""
    _check_words(values)
    _check_numbers(values)
    _check_labels(values["label"])
    for name in ("data-root", "exec-root"):
        if not values[name].startswith("/"):
            raise InvalidArgument(f"--{name} must be an absolute path: {values[name]}", object=name)
    parse_pools(values["default-address-pool"])
    parse_network_options(values["default-network-opt"])
    if values["ipv6-networks"] not in ("auto", "always", "never"):
        raise InvalidArgument(f"invalid --ipv6-networks: {values['ipv6-networks']}", hint="auto, always or never")
    if len(values["host-gateway-ip"]) > 1:
        raise InvalidArgument("only one IP address is allowed for host-gateway-ip", object="host-gateway-ip")
    for address in (*values["dns"], values["ip"], *values["host-gateway-ip"]):
        _check_address(address)
    for mirror in values["registry-mirror"]:
        _check_mirror(mirror)
    if values["metrics-addr"]:
        split_address(values["metrics-addr"])


def parse_pools(texts: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """(base, size) of each "base=10.0.0.0/8,size=24"."""
    found = []
    for text in texts:
        fields = dict(part.partition("=")[::2] for part in text.replace(" ", "").split(","))
        if set(fields) != {"base", "size"} or not fields["size"].isdigit():
            raise InvalidArgument(f"invalid default address pool: {text}", object=text, hint="base=10.0.0.0/8,size=24")
        found.append((fields["base"], int(fields["size"])))
    return tuple(found)


def parse_network_options(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    """driver → options, of each "bridge=name=value"."""
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        driver, equals, rest = text.partition("=")
        name, more, value = rest.partition("=")
        if not (driver and equals and name and more):
            raise InvalidArgument(f"invalid default network option: {text}", object=text, hint="driver=name=value")
        found.setdefault(driver, {})[name] = value
    return found


def _check_words(values: Mapping[str, Any]) -> None:
    if values["log-level"] not in LEVELS:
        raise InvalidArgument(f"invalid logging level: {values['log-level']}", hint=f"one of {', '.join(LEVELS)}")
    if values["log-format"] not in ("text", "json"):
        raise InvalidArgument(f"invalid log format: {values['log-format']}", hint="text or json")

    if values["default-ipc-mode"] not in ("private", "shareable"):
        raise InvalidArgument(f"IPC mode {values['default-ipc-mode']!r} is not supported", hint="private or shareable")
    if values["default-cgroupns-mode"] not in ("", "host", "private"):
        raise InvalidArgument(
            f'invalid default cgroup namespace ({values["default-cgroupns-mode"]}): use "host" or "private"'
        )


def _check_numbers(values: Mapping[str, Any]) -> None:
    for name in ("max-concurrent-downloads", "max-concurrent-uploads"):
        if values[name] < 0:
            raise InvalidArgument(f"invalid {name.replace('-', ' ')}: {values[name]}", object=name)
    if values["max-download-attempts"] < 1:
        raise InvalidArgument(f"invalid max download attempts: {values['max-download-attempts']}")
    if values["mtu"] < 0:
        raise InvalidArgument(f"invalid default MTU: {values['mtu']}")


def _check_labels(labels: list[str]) -> None:
    seen: dict[str, str] = {}
    for label in labels:
        name, equals, _ = label.partition("=")
        if not equals:
            raise InvalidArgument(f"bad attribute format: {label}", object=label, hint="labels are key=value")
        if seen.setdefault(name, label) != label:
            raise InvalidArgument(f"conflict labels for {label} and {seen[name]}", object=label)


def _check_address(address: str) -> None:
    try:
        ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        raise InvalidArgument(f"invalid IP address: {address}", object=address) from None


def _check_mirror(mirror: str) -> None:
    parts = urlsplit(mirror)
    if parts.scheme not in _MIRRORS or not parts.netloc:
        raise InvalidArgument(
            f"invalid mirror: no scheme specified for \"{mirror}\": must use either 'https://' or 'http://'",
            object=mirror,
        )
    if parts.query or parts.fragment or parts.username:
        raise InvalidArgument(f'invalid mirror: "{mirror}" has a user, a query or a fragment', object=mirror)


def split_address(address: str) -> tuple[str, int]:
    """`host:port`, an IPv6 address in brackets."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.%a-z]+)\]|([^:\[\]]*)):([0-9]{1,5})", address)
    if not match or int(match[3]) > 65535:
        raise InvalidArgument(f"invalid address: {address}", object=address, hint="host:port")
    return match[1] or match[2] or "0.0.0.0", int(match[3])
