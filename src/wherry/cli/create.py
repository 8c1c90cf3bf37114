"""`wherry create`, and what `run` shares with it."""

from __future__ import annotations

import posix
import sys

from wherry.cli.create_flags import ALIASES, CREATE_FLAGS, REFUSE
from wherry.cli.flags import Command, StatusError
from wherry.errors import InvalidArgument, NotFound, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

_OPTS = "wherry.cli.opts_values"
# flag: (module, function) that checks its value; imported when the flag is used
_CHECKS = {
    "add-host": (_OPTS, "extra_host"),
    "attach": (_OPTS, "attach"),
    "blkio-weight-device": (_OPTS, "weight_device"),
    "cpus": ("wherry.cli.units", "nano_cpus"),
    "device-cgroup-rule": (_OPTS, "device_cgroup_rule"),
    "device-read-bps": (_OPTS, "rate_bps"),
    "device-read-iops": (_OPTS, "rate_iops"),
    "device-write-bps": (_OPTS, "rate_bps"),
    "device-write-iops": (_OPTS, "rate_iops"),
    "dns": (_OPTS, "ip_address"),
    "dns-search": (_OPTS, "dns_search"),
    "env": (_OPTS, "env"),
    "label": (_OPTS, "label"),
    "link": (_OPTS, "link"),
    "memory-swap": ("wherry.cli.units", "swap_bytes"),
    "gpus": ("wherry.cli.opts_gpus", "gpus"),
    "mount": ("wherry.cli.opts_mounts", "mount"),
    "network": ("wherry.cli.opts_network", "network"),
    "sysctl": (_OPTS, "sysctl"),
    "ulimit": (_OPTS, "ulimit"),
}


def _later(module: str, function: str) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        return getattr(__import__(module, fromlist=[function]), function)(text)

    return convert


CONVERT = {flag: _later(*where) for flag, where in _CHECKS.items()}


def failed(cli: Cli, error: Exception, code: int = 125) -> StatusError:
    """An error of `run` and `create` as docker shows it."""
    return StatusError(f"wherry: {error}\n\nRun 'wherry {cli.name} --help' for more information", code)


def document(flags: Flags, arguments: list[str]) -> dict[str, Any]:
    from wherry.cli.create_body import body

    if flags["pull"] not in ("always", "missing", "never"):
        raise InvalidArgument(
            f'invalid pull option: \'{flags["pull"]}\': must be one of "always", "missing" or "never"'
        )
    return body(flags, arguments[0], arguments[1:])


def create_container(
    cli: Cli, flags: Flags, config: dict[str, Any], meanwhile: Callable[[], object] | None = None
) -> str:
    """Creates the container, pulling its image when it is missing; writes --cidfile. The ID.

    `meanwhile` is called while the engine is at work.
    """
    cidfile = flags["cidfile"]
    if cidfile and _exists(cidfile):
        raise WherryError(f"container ID file found, make sure the other container isn't running or delete {cidfile}")
    _check_reference(config["Image"])
    query = [("name", flags["name"])] if flags["name"] else []
    if flags["platform"]:
        query.append(("platform", flags["platform"]))
    if flags["pull"] == "always":
        _pull(cli, flags, config["Image"])
    try:
        pending = cli.engine.send("POST", "/containers/create", query, (), config)
        if meanwhile:
            meanwhile()
        created = pending.value()
    except NotFound as error:
        if flags["pull"] != "missing" or "No such image" not in str(error):
            raise
        if not flags["quiet"]:
            sys.stderr.write(f"Unable to find image '{_familiar(config['Image'])}' locally\n")
        _pull(cli, flags, config["Image"])
        created = cli.engine.post("/containers/create", query, config)
    for warning in created.get("Warnings") or ():
        sys.stderr.write(f"WARNING: {warning}\n")
    if cidfile:
        with open(cidfile, "w", encoding="ascii") as file:
            file.write(created["Id"])
    return str(created["Id"])


def _exists(path: str) -> bool:
    try:
        posix.stat(path)
    except FileNotFoundError:
        return False
    return True


def _check_reference(image: str) -> None:
    if not image:
        raise InvalidArgument("invalid reference format")
    if image != image.lower() and not image.lower().startswith("sha256:"):
        from wherry.cli.reference import check

        check(image)


def _familiar(image: str) -> str:
    from wherry.cli.reference import familiar

    return familiar(image)


def _pull(cli: Cli, flags: Flags, image: str) -> None:
    from wherry.cli.pull import pull_image

    pull_image(cli, image, flags["platform"], flags["quiet"], sys.stderr)


def create(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    try:
        config = document(flags, arguments)
        print(create_container(cli, flags, config))
    except WherryError as error:
        raise failed(cli, error) from None
    return 0


COMMANDS = {
    "create": Command(create, CREATE_FLAGS, (1, None), False, CONVERT, ALIASES, REFUSE),
}
