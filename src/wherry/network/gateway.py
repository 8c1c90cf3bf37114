"""Which of its networks a sandbox's default routes, and with them its published ports, belong to."""

import socket
from collections.abc import Iterable
from typing import NamedTuple

from wherry.kernel.netlink import Message, Netlink, add_route, delete_route
from wherry.network.endpoint import Endpoint


class Gateways(NamedTuple):
    """The endpoints that lead out, one for each kind; None: no way out."""

    ipv4: Endpoint | None
    ipv6: Endpoint | None


def choose(endpoints: Iterable[Endpoint]) -> Gateways:
    """docker's order: highest priority, networks that are not internal, those with more gateways, by name."""
    ordered = sorted(endpoints, key=_rank)
    first4 = next((e for e in ordered if e.gateway and not e.internal), None)
    first6 = next((e for e in ordered if e.gateway6 and not e.internal), None)
    return Gateways(first4, first6)


def _rank(endpoint: Endpoint) -> tuple[int, bool, int, str]:
    gateways = bool(endpoint.gateway) + bool(endpoint.gateway6)
    return (-endpoint.priority, endpoint.internal, -gateways, endpoint.network)


def move(inside: Netlink, before: Gateways, after: Gateways, indexes: dict[str, int]) -> None:
    """Change the default routes. `indexes`: interface → its number; of one that is gone there is none."""
    messages: list[Message] = []
    for family, old, new in (
        (socket.AF_INET, before.ipv4, after.ipv4),
        (socket.AF_INET6, before.ipv6, after.ipv6),
    ):
        if (old and old.endpoint_id) == (new and new.endpoint_id):
            continue
        if old is not None and old.ifname in indexes:
            messages.append(delete_route(None, 0, family=family, **_way(old, family, indexes)))  # type: ignore[arg-type]
        if new is not None:
            messages.append(add_route(None, 0, family=family, replace=True, **_way(new, family, indexes)))  # type: ignore[arg-type]
    inside.request(*messages)


def routes(endpoint: Endpoint, index: int, chosen: Gateways) -> list[Message]:
    """The default routes of a sandbox that had none, as far as they are this endpoint's."""
    messages = []
    for family, owner in ((socket.AF_INET, chosen.ipv4), (socket.AF_INET6, chosen.ipv6)):
        if owner is not None and owner.endpoint_id == endpoint.endpoint_id:
            way = _way(endpoint, family, {endpoint.ifname: index})
            messages.append(add_route(None, 0, family=family, **way))  # type: ignore[arg-type]
    return messages


def _way(endpoint: Endpoint, family: int, indexes: dict[str, int]) -> dict[str, object]:
    gateway = endpoint.gateway if family == socket.AF_INET else endpoint.gateway6
    # A layer 3 network (ipvlan l3) has no gateway to ask: everything goes out of the interface.
    return {"gateway": None if gateway in ("0.0.0.0", "::") else gateway, "index": indexes[endpoint.ifname]}
