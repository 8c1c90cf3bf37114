"""Networks: what there is."""

from typing import Any

from wherry.api.call import Call
from wherry.api.reply import Answer, reply_json
from wherry.api.router import Route
from wherry.errors import InvalidArgument

_FILTERS = frozenset(("dangling", "driver", "id", "label", "name", "scope", "type"))


async def list_networks(call: Call) -> Answer:
    """GET /networks; from API 1.28 without the containers in them."""
    filters = call.query.filters()
    for name in filters:
        if name not in _FILTERS:
            raise InvalidArgument(f"invalid filter '{name}'", object=name)
    found = [network for network in call.engine.networks.list() if _selects(filters, network)]
    if call.version >= (1, 28):
        found = [{**network, "Containers": {}} for network in found]
    return reply_json([_shape(call, network) for network in found])


def _selects(filters: dict[str, list[str]], network: dict[str, Any]) -> bool:
    tests = {
        "driver": lambda value: value == network["Driver"],
        "id": lambda value: network["Id"].startswith(value),
        "name": lambda value: value in network["Name"],
        "scope": lambda value: value == network["Scope"],
        # Of these three none is anybody's own.
        "type": lambda value: value == "builtin",
        "dangling": lambda value: value.lower() not in ("1", "true"),
    }
    if filters.get("label"):
        return False
    return all(any(map(tests[name], values)) for name, values in filters.items() if values)


async def inspect(call: Call) -> Answer:
    """GET /networks/{id}."""
    scope = call.query.get("scope")
    if scope not in ("", "local", "global", "swarm"):
        raise InvalidArgument(f'invalid scope: "{scope}"', object="scope")
    containers = await call.engine.containers.list(all=True)
    names = {container["Id"]: container["Names"][0].lstrip("/") for container in containers if container["Names"]}
    return reply_json(_shape(call, call.engine.networks.inspect(call.name, names)))


def _shape(call: Call, network: dict[str, Any]) -> dict[str, Any]:
    if call.version >= (1, 48):
        return network
    return {name: value for name, value in network.items() if name != "EnableIPv4"}


ROUTES = [
    Route("GET", "/networks", list_networks),
    Route("GET", "/networks/{id}", inspect),
]
