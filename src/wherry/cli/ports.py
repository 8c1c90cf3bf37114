"""How docker shows the published ports of a container: runs of ports that map to runs of ports in one entry."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def display(ports: Sequence[dict[str, Any]]) -> str:
    """`0.0.0.0:8080-8081->80-81/tcp, 90/udp`."""
    if len(ports) == 1:
        return _one(ports[0])
    groups: dict[str, tuple[int, int]] = {}
    shown: list[str] = []
    mapped: list[str] = []
    order: list[str] = []
    for port in sorted(ports, key=_order):
        current = port.get("PrivatePort", 0)
        key = str(port.get("Type", "tcp"))
        if port.get("IP"):
            if port.get("PublicPort", 0) != current:
                mapped.append(_one(port))
                continue
            key = f"{port['IP']}/{key}"
        if key not in groups:
            groups[key] = (current, current)
            order.append(key)
        elif groups[key][1] == current - 1:
            groups[key] = (groups[key][0], current)
        else:
            shown.append(_group(key, *groups[key]))
            groups[key] = (current, current)
    shown += [_group(key, *groups[key]) for key in order]
    return ", ".join(shown + mapped)


def _order(port: dict[str, Any]) -> tuple[Any, ...]:
    return (
        port.get("PrivatePort", 0),
        port.get("IP", ""),
        port.get("PublicPort", 0),
        port.get("Type", ""),
    )


def _one(port: dict[str, Any]) -> str:
    private = f"{port.get('PrivatePort')}/{port.get('Type', 'tcp')}"
    address = port.get("IP")
    return f"{_host(address)}:{port.get('PublicPort', 0)}->{private}" if address else private


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _group(key: str, first: int, last: int) -> str:
    address, _, kind = key.rpartition("/")
    span = str(first) if first == last else f"{first}-{last}"
    return f"{_host(address)}:{span}->{span}/{kind}" if address else f"{span}/{kind}"
