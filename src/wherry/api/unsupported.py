"""What the Engine API has and Wherry does not have yet: a clear 501 instead of "page not found"."""

from collections.abc import Awaitable, Callable

from wherry.api.call import Call
from wherry.api.reply import Answer, reply_json
from wherry.api.router import Route
from wherry.errors import Unavailable, Unimplemented

_NOT_YET = {
    "attestations are not supported yet": ("GET /images/{name:.*}/attestations",),
    "cluster volumes are not supported": ("PUT /volumes/{name}",),
    "plugins are not supported yet": (
        "GET /plugins/privileges",
        "POST /plugins/pull",
        "GET /plugins/{name:.*}/json",
        "DELETE /plugins/{name:.*}",
        "POST /plugins/{name:.*}/enable",
        "POST /plugins/{name:.*}/disable",
        "POST /plugins/{name:.*}/upgrade",
        "POST /plugins/create",
        "POST /plugins/{name:.*}/push",
        "POST /plugins/{name:.*}/set",
    ),
    "swarm mode is not supported yet": ("POST /swarm/init", "POST /swarm/join"),
}
_OF_A_MANAGER = (
    "GET /swarm",
    "POST /swarm/leave",
    "POST /swarm/update",
    "GET /swarm/unlockkey",
    "POST /swarm/unlock",
    *(
        f"{method} /{kind}{rest}"
        for kind in ("nodes", "services", "tasks", "secrets", "configs")
        for method, rest in (
            ("GET", ""),
            ("POST", "/create"),
            ("GET", "/{id}"),
            ("DELETE", "/{id}"),
            ("POST", "/{id}/update"),
            ("GET", "/{id}/logs"),
        )
    ),
)


def _refuse(message: str) -> Callable[[Call], Awaitable[Answer]]:
    async def handler(call: Call) -> Answer:
        raise Unimplemented(message)

    return handler


async def _no_manager(call: Call) -> Answer:
    raise Unavailable("This node is not a swarm manager. Wherry does not support swarm mode yet.")


async def _no_plugins(call: Call) -> Answer:
    return reply_json([])


def _route(line: str, handler: Callable[[Call], Awaitable[Answer]]) -> Route:
    method, _, pattern = line.partition(" ")
    return Route(method, pattern, handler)


ROUTES = [
    *(_route(line, _refuse(message)) for message, lines in _NOT_YET.items() for line in lines),
    *(_route(line, _no_manager) for line in _OF_A_MANAGER),
    Route("GET", "/plugins", _no_plugins),
]
