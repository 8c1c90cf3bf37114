"""`wherry context`: docker's own contexts, in docker's own files."""

from __future__ import annotations

import posix
import sys

from wherry.cli import context_store, describe, listing
from wherry.cli.flags import Command, StatusError
from wherry.cli.listing import Row
from wherry.client.context import DEFAULT_HOST, config, current_name, environment, read, read_document
from wherry.errors import Conflict, InvalidArgument, NotFound, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

_ABOUT_DEFAULT = "Current DOCKER_HOST based configuration"
_OVERRIDDEN = (
    "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the global"
    " --context flag, or unset DOCKER_HOST environment variable.\n"
)


class Context(Row):
    headers = {"DockerEndpoint": "DOCKER ENDPOINT"}
    type_name = "*formatter.clientContextContext"

    def __init__(self, name: str, description: str, host: str, current: bool, error: str = "") -> None:
        self._name, self._description, self._host, self._current, self._error = name, description, host, current, error

    def Name(self) -> str:
        return self._name

    def Current(self) -> Any:
        return self._current

    def Description(self) -> str:
        return self._description

    def DockerEndpoint(self) -> str:
        return self._host

    def Error(self) -> str:
        return self._error


class _Marked(Context):
    """In the table a star stands at the current one."""

    headers = Context.headers

    def Name(self) -> str:
        return self._name + (" *" if self._current else "")


def _all(directory: str) -> list[dict[str, Any]]:
    try:
        entries = posix.listdir(context_store.meta_root(directory))
    except FileNotFoundError:
        return []
    found = [read_document(f"{context_store.meta_root(directory)}/{entry}/meta.json") for entry in entries]
    return sorted((item for item in found if isinstance(item, dict)), key=lambda item: str(item.get("Name")))


def ls(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    directory = cli.config_directory
    current, source = current_name(directory, cli.flags["context"])
    format = flags["format"]
    kind = _Marked if format in ("", "table") else Context
    rows: list[Context] = [
        kind("default", _ABOUT_DEFAULT, environment("DOCKER_HOST") or DEFAULT_HOST, current == "default")
    ]
    for item in _all(directory):
        docker = (item.get("Endpoints") or {}).get("docker") or {}
        text = (item.get("Metadata") or {}).get("Description", "")
        rows.append(kind(item["Name"], text, docker.get("Host", ""), current == item["Name"]))
    if flags["quiet"]:
        listing.write("".join(f"{row._name}\n" for row in rows))
        return 0
    listing.show(rows, kind, format, ("Name", "Description", "DockerEndpoint", "Error"))
    if source == "DOCKER_HOST":
        sys.stdout.flush()
        sys.stderr.write(_OVERRIDDEN)
    return 0


def show(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    print(current_name(cli.config_directory, cli.flags["context"])[0])
    return 0


def use(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    from wherry.cli.login import save

    directory, name = cli.config_directory, arguments[0]
    if name != "default":
        read(directory, name)
    document = config(directory)
    document["currentContext"] = name
    if name == "default":
        del document["currentContext"]
    save(directory, document)
    print(name)
    sys.stdout.flush()
    sys.stderr.write(f'Current context is now "{name}"\n')
    if environment("DOCKER_HOST") and name != "default":
        sys.stderr.write(_OVERRIDDEN)
    return 0


def inspect(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    from wherry.cli.inspect import show as show_found

    directory = cli.config_directory
    names = arguments or [current_name(directory, cli.flags["context"])[0]]
    return show_found(names, lambda name: context_store.document(directory, name), flags["format"], True)


def create(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    directory, name = cli.config_directory, arguments[0]
    context_store.check_new(directory, name)
    about = ""
    if flags["docker"]:
        if flags["from"]:
            raise InvalidArgument("cannot use --docker flag when --from is set")
        endpoint, files = context_store.endpoint(directory, flags["docker"])
    else:
        endpoint, files, about = context_store.copy(directory, flags["from"])
    about = flags["description"] or about
    metadata = {"Description": about} if about else {}
    context_store.save(directory, name, {"Name": name, "Metadata": metadata, "Endpoints": {"docker": endpoint}}, files)
    return _done("created", name)


def update(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    directory, name = cli.config_directory, arguments[0]
    context_store.check_not_default(name)
    content = dict(read(directory, name))
    files = None
    if flags["description"]:
        content["Metadata"] = {**(content.get("Metadata") or {}), "Description": flags["description"]}
    if flags["docker"]:
        endpoint, files = context_store.endpoint(directory, flags["docker"])
        content["Endpoints"] = {**(content.get("Endpoints") or {}), "docker": endpoint}
    context_store.save(directory, name, content, files)
    return _done("updated", name)


def _done(verb: str, name: str) -> int:
    print(name)
    sys.stdout.flush()
    sys.stderr.write(f'Successfully {verb} context "{name}"\n')
    return 0


def rm(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    directory = cli.config_directory
    current = current_name(directory, cli.flags["context"])[0]
    errors = []
    for name in arguments:
        try:
            if name == "default":
                raise WherryError('context "default" cannot be removed')
            if not flags["force"] and not context_store.exists(directory, name):
                raise NotFound(f'context "{name}" does not exist')
            if name == current and not flags["force"]:
                raise Conflict(f'context "{name}" is in use, set -f flag to force remove')
        except WherryError as error:
            errors.append(str(error))
            continue
        if name == current:
            _forget_current(directory)
        context_store.remove(directory, name)
        print(name)
    if errors:
        raise StatusError("\n".join(errors), 1)
    return 0


def _forget_current(directory: str) -> None:
    from wherry.cli.login import save

    save(directory, {key: value for key, value in config(directory).items() if key != "currentContext"})


_DOCKER = (
    "docker",
    "",
    "stringToString",
    None,
    "Where the engine is: host=...,ca=...,cert=...,key=...,skip-tls-verify=...",
)


def _pairs(text: str) -> str:
    for field in text.split(","):
        if "=" not in field:
            raise InvalidArgument(f"{field} must be formatted as key=value")
    return text


COMMANDS = {
    "context ls": Command(
        ls,
        (("format", "", "string", "", describe.FORMAT_LIST), ("quiet", "q", "bool", False, "Only show names")),
    ),
    "context show": Command(show),
    "context use": Command(use, (), (1, 1)),
    "context inspect": Command(inspect, (("format", "f", "string", "", describe.FORMAT),), (0, None)),
    "context create": Command(
        create,
        (
            ("description", "", "string", "", "Description of the context"),
            _DOCKER,
            ("from", "", "string", "", "Copy another context"),
        ),
        (1, 1),
        convert={"docker": _pairs},
    ),
    "context update": Command(
        update,
        (("description", "", "string", "", "Description of the context"), _DOCKER),
        (1, 1),
        convert={"docker": _pairs},
    ),
    "context rm": Command(rm, (("force", "f", "bool", False, "Remove a context that is in use"),), (1, None)),
}
