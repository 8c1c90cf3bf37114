"""What the API can do, by name: `containers.restart` is POST /containers/{id}/restart. Scoped sockets name these.

A name is derived from a route, so that every route has one. The groups below are lists of names: what is added to
the API later belongs to none until somebody puts it there.
"""

from wherry.api.router import Route

_NAMED = {
    "/_ping": "ping",
    "/version": "version",
    "/info": "info",
    "/events": "events",
    "/auth": "auth",
    "/system/df": "df",
    "/commit": "containers.commit",
    "/containers/{id}/attach/ws": "containers.attach",
    "/images/get": "images.save",
    "/images/{name:.*}/get": "images.save",
    "/images/create": "images.pull",
    "/session": "build",
    "/grpc": "build",
}
_BY_METHOD = {"GET": "inspect", "HEAD": "inspect", "DELETE": "remove", "POST": "change", "PUT": "change"}
_ARCHIVE = {"GET": "copy-from", "HEAD": "copy-from", "PUT": "copy-to"}

ALWAYS = frozenset(("ping", "version"))
"""What every socket answers: clients cannot begin without."""
READ_CONTAINERS = frozenset(f"containers.{word}" for word in ("list", "inspect", "logs", "stats", "top", "changes")) | {
    "events"
}
READ = READ_CONTAINERS | {
    *("info", "df", "images.list", "images.inspect", "images.history", "images.search", "volumes.list"),
    *(
        "wherry.containers.stats",
        "volumes.inspect",
        "networks.list",
        "networks.inspect",
        "plugins.list",
        "plugins.inspect",
    ),
}
LIFECYCLE = frozenset(f"containers.{word}" for word in ("start", "stop", "restart", "kill", "pause", "unpause", "wait"))
GROUPS = {"read": READ, "lifecycle": LIFECYCLE}
_BEYOND = ("build", "plugins", "swarm", "nodes", "services", "tasks", "secrets", "configs", "wherry")
# Mounts anything into a container that is there already.
_ALTER = "containers.alter"
SOCKETS = "wherry.sockets"
"""Begins what makes sockets, which no scoped socket may: it could make itself a wider one."""


def reaches_beyond(name: str) -> bool:
    """Whether an operation can be used to take hold of the machine in ways that are not checked one by one."""
    return name == _ALTER or (name not in READ and name.partition(".")[0] in _BEYOND)


def operation(route: Route) -> str:
    """The name of what a route does; "" for no route."""
    pattern = route.pattern
    if pattern in _NAMED:
        return _NAMED[pattern]
    prefix = ""
    if pattern.startswith("/wherry/"):
        prefix, pattern = "wherry.", pattern.removeprefix("/wherry")
    kind, *rest = pattern[1:].split("/")
    if kind == "exec":
        return "containers.exec"
    words = [word for word in rest if not word.startswith("{")]
    if words == ["archive"]:
        return f"{prefix}{kind}.{_ARCHIVE[route.method]}"
    if words and words != ["json"]:
        return f"{prefix}{kind}.{words[-1]}"
    if len(rest) == len(words):
        # No name in the path: all of a kind, or the kind itself (POST /build).
        return f"{prefix}{kind}.list" if route.method in ("GET", "HEAD") else prefix + kind
    return f"{prefix}{kind}.{_BY_METHOD[route.method]}"
