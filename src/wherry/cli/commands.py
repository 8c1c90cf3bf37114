"""Every command: where it lives, its arguments, what it does. Plain data, so that start-up costs nothing.

A command's module has a dictionary COMMANDS from its name here to a `flags.Command`.
"""

from __future__ import annotations

_C = "CONTAINER [CONTAINER...]"
# name: (module, usage, description)
TABLE: dict[str, tuple[str, str, str]] = {
    "run": ("run", "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create and run a new container from an image"),
    "create": ("create", "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create a new container"),
    "exec": ("exec", "[OPTIONS] CONTAINER COMMAND [ARG...]", "Execute a command in a running container"),
    "ps": ("ps", "[OPTIONS]", "List containers"),
    "attach": ("attach", "[OPTIONS] CONTAINER", "Attach this terminal to a running container's streams"),
    "start": ("start", f"[OPTIONS] {_C}", "Start one or more stopped containers"),
    "stop": ("lifecycle", f"[OPTIONS] {_C}", "Stop one or more running containers"),
    "kill": ("lifecycle", f"[OPTIONS] {_C}", "Kill one or more running containers"),
    "restart": ("lifecycle", f"[OPTIONS] {_C}", "Restart one or more containers"),
    "pause": ("lifecycle", _C, "Pause all processes within one or more containers"),
    "unpause": ("lifecycle", _C, "Unpause all processes within one or more containers"),
    "wait": ("lifecycle", _C, "Wait until one or more containers stop, then print their exit codes"),
    "rename": ("lifecycle", "CONTAINER NEW_NAME", "Rename a container"),
    "update": ("update", f"[OPTIONS] {_C}", "Change limits, ports, environment, mounts and more of containers"),
    "rm": ("lifecycle", f"[OPTIONS] {_C}", "Remove one or more containers"),
    "inspect": ("inspect", "[OPTIONS] NAME|ID [NAME|ID...]", "Show everything known about objects of any kind"),
    "logs": ("logs", "[OPTIONS] CONTAINER", "Fetch the logs of a container"),
    "top": ("processes", "CONTAINER [ps OPTIONS]", "Show the processes of a container"),
    "stats": ("stats", "[OPTIONS] [CONTAINER...]", "Show what containers use, as it changes"),
    "diff": ("processes", "CONTAINER", "Show what changed in a container's file system"),
    "port": ("processes", "CONTAINER [PRIVATE_PORT[/PROTO]]", "List a container's published ports, or look one up"),
    "cp": (
        "cp",
        "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\twherry cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
        "Copy files between a container and this machine; `-` stands for a tar stream",
    ),
    "export": ("export", "[OPTIONS] CONTAINER", "Write a container's file system as a tar archive"),
    "commit": ("commit", "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]", "Make an image from a container's changes"),
    "images": ("images", "[OPTIONS] [REPOSITORY[:TAG]]", "List images"),
    "build": ("build", "[OPTIONS] PATH | URL | -", "Build an image from a Dockerfile"),
    "pull": ("pull", "[OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry"),
    "push": ("push", "[OPTIONS] NAME[:TAG]", "Upload an image to a registry"),
    "save": ("export", "[OPTIONS] IMAGE [IMAGE...]", "Write images to a tar archive"),
    "load": ("load", "[OPTIONS]", "Load images from a tar archive or standard input"),
    "import": ("load", "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]", "Make an image from a tar archive of a file system"),
    "tag": ("image", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Give an image another name"),
    "rmi": ("image", "[OPTIONS] IMAGE [IMAGE...]", "Remove one or more images"),
    "history": ("history", "[OPTIONS] IMAGE", "Show the history of an image"),
    "events": ("events", "[OPTIONS]", "Follow events of the engine"),
    "info": ("info", "[OPTIONS]", "Show facts about the engine and its machine"),
    "version": ("version", "[OPTIONS]", "Show the versions of client and engine"),
    "login": ("login", "[OPTIONS] [SERVER]", "Sign in to a registry"),
    "logout": ("login", "[SERVER]", "Sign out of a registry"),
    "completion": ("completion", "bash|zsh|fish", "Write a script that completes commands in a shell"),
    "daemon": ("daemon", "[OPTIONS]", "Run the engine"),
    "registry": ("registry", "serve|collect [OPTIONS]", "Run a registry of images"),
    "builder du": ("builder", "", "Show what builds keep on disk"),
    "builder prune": ("builder", "[OPTIONS]", "Remove what builds keep"),
    "container inspect": ("inspect", f"[OPTIONS] {_C}", "Show everything known about containers"),
    "container prune": ("prune", "[OPTIONS]", "Remove all stopped containers"),
    "image inspect": ("inspect", "[OPTIONS] IMAGE [IMAGE...]", "Show everything known about images"),
    "image prune": ("prune", "[OPTIONS]", "Remove unused images"),
    "image bootstrap": ("bootstrap", "[OPTIONS] NAME[:TAG]", "Make a base image from a distribution's own packages"),
    "system df": ("df", "[OPTIONS]", "Show how much disk space is used"),
    "system fsck": ("fsck", "[OPTIONS]", "Check state, disk and kernel against each other, and mend what differs"),
    "system prune": ("prune", "[OPTIONS]", "Remove unused data"),
    "system dial-stdio": ("dialstdio", "", "Join standard input and output to the engine's socket; ssh:// uses it"),
    "volume clone": ("volume", "VOLUME NEW_NAME", "Copy a volume under another name"),
    "volume du": ("volume", "[OPTIONS] [VOLUME...]", "Show how much volumes hold"),
    "volume export": ("volume", "[OPTIONS] VOLUME", "Write what a volume holds as a tar archive"),
    "volume import": ("volume", "[OPTIONS] VOLUME", "Make a volume from a tar archive"),
    "volume rename": ("volume", "VOLUME NEW_NAME", "Rename a volume that nothing uses"),
    "volume create": ("volume", "[OPTIONS] [VOLUME]", "Create a volume"),
    "volume inspect": ("inspect", "[OPTIONS] VOLUME [VOLUME...]", "Show everything known about volumes"),
    "volume ls": ("volume", "[OPTIONS]", "List volumes"),
    "volume prune": ("prune", "[OPTIONS]", "Remove unused local volumes"),
    "volume rm": ("volume", "[OPTIONS] VOLUME [VOLUME...]", "Remove one or more volumes"),
    "network connect": ("network", "[OPTIONS] NETWORK CONTAINER", "Connect a container to a network"),
    "network create": ("network", "[OPTIONS] NETWORK", "Create a network"),
    "network disconnect": ("network", "[OPTIONS] NETWORK CONTAINER", "Disconnect a container from a network"),
    "network explain": (
        "network",
        "HOST:PORT[/PROTO]",
        "Say what becomes of a packet to an address of the engine's host",
    ),
    "network inspect": ("inspect", "[OPTIONS] NETWORK [NETWORK...]", "Show everything known about networks"),
    "network ls": ("network", "[OPTIONS]", "List networks"),
    "network prune": ("prune", "[OPTIONS]", "Remove all unused networks"),
    "network rm": ("network", "[OPTIONS] NETWORK [NETWORK...]", "Remove one or more networks"),
    "socket create": ("socket", "[OPTIONS] NAME", "Open a further socket of the engine that may do less"),
    "socket inspect": ("socket", "[OPTIONS] NAME [NAME...]", "Show everything known about sockets"),
    "socket ls": ("socket", "[OPTIONS]", "List the sockets that may do less"),
    "socket operations": ("socket", "", "List what sockets can be allowed to do"),
    "socket rm": ("socket", "NAME [NAME...]", "Close and remove sockets"),
    "context create": ("context", "[OPTIONS] CONTEXT", "Create a context"),
    "context export": ("context_archive", "[OPTIONS] CONTEXT [FILE|-]", "Write a context to a tar archive"),
    "context import": ("context_archive", "CONTEXT FILE|-", "Make a context from a tar or zip archive"),
    "context inspect": ("context", "[OPTIONS] [CONTEXT] [CONTEXT...]", "Show everything known about contexts"),
    "context ls": ("context", "[OPTIONS]", "List contexts"),
    "context rm": ("context", "CONTEXT [CONTEXT...]", "Remove one or more contexts"),
    "context show": ("context", "", "Print the name of the current context"),
    "context update": ("context", "[OPTIONS] CONTEXT", "Change a context"),
    "context use": ("context", "CONTEXT", "Choose the context for the commands to come"),
}
GROUPS = {
    "builder": "Manage builds",
    "container": "Manage containers",
    "context": "Manage contexts",
    "image": "Manage images",
    "network": "Manage networks",
    "socket": "Manage the engine's further sockets",
    "system": "Manage the engine",
    "volume": "Manage volumes",
}
COMMON = ("run", "exec", "ps", "build", "pull", "images", "login", "logout", "version", "info")
# The same command under a group, and docker's other names for it.
_BOTH = (
    "attach commit cp create diff exec export kill logs pause port rename restart rm run start stats stop top unpause "
    "update wait"
)
_IN_CONTAINER = _BOTH.split()
ALIASES: dict[str, str] = {f"container {name}": name for name in _IN_CONTAINER} | {
    "container ls": "ps",
    "container list": "ps",
    "container ps": "ps",
    "container remove": "rm",
    "image build": "build",
    "builder build": "build",
    "image ls": "images",
    "image list": "images",
    "image rm": "rmi",
    "image remove": "rmi",
    "image history": "history",
    "image import": "import",
    "image load": "load",
    "image pull": "pull",
    "image push": "push",
    "image save": "save",
    "image tag": "tag",
    "system events": "events",
    "system info": "info",
    "volume list": "volume ls",
    "volume remove": "volume rm",
    "network list": "network ls",
    "network remove": "network rm",
    "context list": "context ls",
    "context remove": "context rm",
}
_SECONDARY = ("list", "remove", "container ps")
# What docker has and Wherry does not: refused by name, so that nobody takes it for a misspelling.
_LATER = "buildx bake checkpoint compose config manifest node plugin search secret service stack swarm trust"
NOT_YET = frozenset(_LATER.split()) | {
    f"{group} {name}"
    for group, rest in {
        "volume": "update",
    }.items()
    for name in rest.split()
}


def resolve(name: str) -> str:
    """The name in TABLE, or "" when there is no such command."""
    name = ALIASES.get(name, name)
    return name if name in TABLE else ""


def summary(name: str) -> tuple[str, str, str]:
    return TABLE[resolve(name)]


def names() -> list[str]:
    """Every name that help and completion show, sorted."""
    return sorted(name for name in [*TABLE, *ALIASES] if not name.endswith(_SECONDARY) and name != "system dial-stdio")


def other_names(name: str) -> list[str]:
    """All names of a command, those in groups first."""
    target = resolve(name)
    found = [alias for alias, meant in ALIASES.items() if meant == target]
    return (
        [*sorted(found, key=lambda alias: alias.endswith(_SECONDARY)), target]
        if " " not in target
        else [target, *found]
    )
