"""Scoped sockets: making, listing and removing them. Only by sockets that may do everything (wherry.api.scope)."""

from wherry.api.call import Call, SocketKeeper
from wherry.api.operations import GROUPS
from wherry.api.reply import Answer, reply_empty, reply_json
from wherry.api.router import Route
from wherry.errors import Unimplemented


def _keeper(call: Call) -> SocketKeeper:
    if call.sockets is None:
        raise Unimplemented("this engine makes no sockets")
    return call.sockets


async def create(call: Call) -> Answer:
    """POST /wherry/sockets/create."""
    return reply_json(await _keeper(call).create(await call.json()), 201)


async def list_all(call: Call) -> Answer:
    """GET /wherry/sockets."""
    return reply_json(_keeper(call).list())


async def list_operations(call: Call) -> Answer:
    """GET /wherry/sockets/operations: everything that can be allowed, by name, and the groups."""
    groups = {name: sorted(words) for name, words in GROUPS.items()}
    return reply_json({"Operations": _keeper(call).operations(), "Groups": groups})


async def inspect(call: Call) -> Answer:
    """GET /wherry/sockets/{name}."""
    return reply_json(_keeper(call).inspect(call.name))


async def remove(call: Call) -> Answer:
    """DELETE /wherry/sockets/{name}."""
    await _keeper(call).remove(call.name)
    return reply_empty()


ROUTES = [
    Route("GET", "/wherry/sockets", list_all),
    Route("POST", "/wherry/sockets/create", create),
    Route("GET", "/wherry/sockets/operations", list_operations),
    Route("GET", "/wherry/sockets/{name}", inspect),
    Route("DELETE", "/wherry/sockets/{name}", remove),
]
