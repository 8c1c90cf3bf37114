"""Networks."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from wherry.api.call import Call
from wherry.api.reply import Answer, reply_empty, reply_json
from wherry.api.router import Route
from wherry.engine.prune import parse_until
from wherry.errors import InvalidArgument
from wherry.network import NetworkRequest, Subnet
from wherry.spec.decode import document, key
from wherry.spec.docker import EndpointSettings

_FILTERS = frozenset(("dangling", "driver", "id", "label", "name", "scope", "type"))
_BUILT_IN = ("bridge", "host", "none")
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class _Subnet:
    subnet: str = ""
    ip_range: str = key("IPRange", "")
    gateway: str = ""
    aux_address: Mapping[str, str] | None = key("AuxiliaryAddresses", None)


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class _IPAM:
    driver: str = ""
    options: Mapping[str, str] | None = None
    config: tuple[_Subnet, ...] | None = None


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class _ConfigFrom:
    network: str = ""


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class _CreateNetwork:
    name: str = ""
    check_duplicate: bool = False
    driver: str = ""
    scope: str = ""
    enable_ipv4: bool | None = key("EnableIPv4", None)
    enable_ipv6: bool | None = key("EnableIPv6", None)
    ipam: _IPAM | None = key("IPAM", None)
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: _ConfigFrom | None = None
    options: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = None


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class _Connect:
    container: str = ""
    endpoint_config: EndpointSettings | None = None


@document("pascal")
@dataclass(frozen=True, slots=True, kw_only=True)
class _Disconnect:
    container: str = ""
    force: bool = False


async def list_networks(call: Call) -> Answer:
    """GET /networks; from API 1.28 without the containers in them."""
    wanted = select(call.query.filters(), _FILTERS)
    networks = call.engine.networks.list(await _names(call))
    found = [network for network in networks if wanted(network)]
    if call.version >= (1, 28):
        found = [{**network, "Containers": {}} for network in found]
    return reply_json([_shape(call, network) for network in found])


def select(filters: Mapping[str, Sequence[str]], known: frozenset[str]) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a network's document is wanted; InvalidArgument for filters that cannot be."""
    for name in filters:
        if name not in known:
            raise InvalidArgument(f"invalid filter '{name}'", object=name)
    dangling = filters.get("dangling") or ()
    if len(dangling) > 1 or any(value.lower() not in (*_TRUE, *_FALSE) for value in dangling):
        raise InvalidArgument(f"invalid filter 'dangling={' '.join(dangling)}'", object="dangling")
    for value in filters.get("type") or ():
        if value not in ("builtin", "custom"):
            raise InvalidArgument(f"invalid filter: 'type'='{value}'", object="type")
    tests: dict[str, Callable[[str, Mapping[str, Any]], bool]] = {
        "driver": lambda value, network: value == network["Driver"],
        "id": lambda value, network: network["Id"].startswith(value),
        "name": lambda value, network: value in network["Name"],
        "scope": lambda value, network: value == network["Scope"],
        "type": lambda value, network: (value == "builtin") == (network["Name"] in _BUILT_IN),
        "dangling": lambda value, network: (value.lower() in _TRUE) == _is_dangling(network),
    }

    def fits(network: Mapping[str, Any]) -> bool:
        if not all(_has_label(network["Labels"], value) for value in filters.get("label", ())):
            return False
        if any(_has_label(network["Labels"], value) for value in filters.get("label!", ())):
            return False
        return all(
            any(tests[name](value, network) for value in values)
            for name, values in filters.items()
            if values and name in tests
        )

    return fits


def _is_dangling(network: Mapping[str, Any]) -> bool:
    return network["Name"] not in _BUILT_IN and not network["Containers"]


def _has_label(labels: Mapping[str, str], text: str) -> bool:
    name, equals, value = text.partition("=")
    return name in labels and (not equals or labels[name] == value)


async def inspect(call: Call) -> Answer:
    """GET /networks/{id}."""
    scope = call.query.get("scope")
    if scope not in ("", "local", "global", "swarm"):
        raise InvalidArgument(f'invalid scope: "{scope}"', object="scope")
    return reply_json(_shape(call, call.engine.networks.inspect(call.name, await _names(call))))


async def _names(call: Call) -> dict[str, str]:
    """Containers' names by their IDs."""
    containers = await call.engine.containers.list()
    return {container["Id"]: container["Names"][0].lstrip("/") for container in containers if container["Names"]}


async def create(call: Call) -> Answer:
    """POST /networks/create."""
    wanted = await call.document(_CreateNetwork)
    ipam = wanted.ipam or _IPAM()
    request = NetworkRequest(
        name=wanted.name,
        driver=wanted.driver,
        scope=wanted.scope,
        ipv4=wanted.enable_ipv4,
        ipv6=wanted.enable_ipv6,
        internal=wanted.internal,
        attachable=wanted.attachable,
        ingress=wanted.ingress,
        config_only=wanted.config_only,
        config_from=wanted.config_from.network if wanted.config_from else "",
        ipam_driver=ipam.driver,
        ipam_options=ipam.options,
        subnets=tuple(Subnet(s.subnet, s.gateway, s.ip_range, s.aux_address or {}) for s in ipam.config or ()),
        options=wanted.options or {},
        labels=wanted.labels or {},
    )
    made = await asyncio.to_thread(call.engine.networks.create, request)
    call.engine.events.emit("network", "create", made["Id"], {"name": made["Name"], "type": made["Driver"]})
    return reply_json({"Id": made["Id"], "Warning": ""}, 201)


async def remove(call: Call) -> Answer:
    """DELETE /networks/{id}."""
    gone = await asyncio.to_thread(call.engine.networks.remove, call.name)
    call.engine.events.emit("network", "destroy", gone.id, {"name": gone.name, "type": gone.driver})
    return reply_empty()


async def connect(call: Call) -> Answer:
    """POST /networks/{id}/connect."""
    wanted = await call.document(_Connect)
    if not wanted.container:
        raise InvalidArgument("the container to connect is missing", object="Container")
    await call.engine.containers.connect(call.name, wanted.container, wanted.endpoint_config)
    return reply_empty(200)


async def disconnect(call: Call) -> Answer:
    """POST /networks/{id}/disconnect."""
    wanted = await call.document(_Disconnect)
    if not wanted.container:
        raise InvalidArgument("the container to disconnect is missing", object="Container")
    await call.engine.containers.disconnect(call.name, wanted.container, force=wanted.force)
    return reply_empty(200)


async def prune(call: Call) -> Answer:
    """POST /networks/prune."""
    filters = call.query.filters()
    limit = parse_until(filters["until"][0]) if filters.get("until") else None
    wanted = select(filters, frozenset(("label", "label!", "until")))

    def is_old(network: Mapping[str, Any]) -> bool:
        return limit is None or datetime.fromisoformat(network["Created"]).timestamp() < limit

    networks = call.engine.networks
    removed = await asyncio.to_thread(networks.prune, lambda network: wanted(network) and is_old(network))
    for network in removed:
        call.engine.events.emit("network", "destroy", network.id, {"name": network.name, "type": network.driver})
    call.engine.events.emit("network", "prune", "", {"reclaimed": "0"})
    return reply_json({"NetworksDeleted": [network.name for network in removed] or None})


async def explain(call: Call) -> Answer:
    """GET /wherry/networks/explain?address=...&port=...&proto=...: Wherry's own."""
    port = call.query.integer("port") or 0
    found = await asyncio.to_thread(
        call.engine.networks.explain, call.query.get("address"), port, call.query.get("proto") or "tcp"
    )
    return reply_json({"Passes": found.passes, "Steps": list(found.steps)})


def _shape(call: Call, network: dict[str, Any]) -> dict[str, Any]:
    if call.version >= (1, 48):
        return network
    return {name: value for name, value in network.items() if name != "EnableIPv4"}


ROUTES = [
    Route("GET", "/networks", list_networks),
    Route("POST", "/networks/create", create),
    Route("POST", "/networks/prune", prune),
    Route("GET", "/networks/{id}", inspect),
    Route("GET", "/wherry/networks/explain", explain),
    Route("DELETE", "/networks/{id}", remove),
    Route("POST", "/networks/{id}/connect", connect),
    Route("POST", "/networks/{id}/disconnect", disconnect),
]
