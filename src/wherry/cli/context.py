"""`wherry context`: docker's own contexts, in docker's own files."""

from __future__ import annotations

import posix
import sys

from wherry.cli import describe, listing
from wherry.cli.flags import Command, StatusError
from wherry.cli.listing import Row
from wherry.client import codec
from wherry.client.context import DEFAULT_HOST, config, current_name, environment, identity, read, read_document
from wherry.errors import Conflict, InvalidArgument, WherryError

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
_KEYS = ("host", "ca", "cert", "key", "skip-tls-verify", "from")


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


def _meta_root(directory: str) -> str:
    return f"{directory}/contexts/meta"


def _all(directory: str) -> list[dict[str, Any]]:
    try:
        entries = posix.listdir(_meta_root(directory))
    except FileNotFoundError:
        return []
    found = [read_document(f"{_meta_root(directory)}/{entry}/meta.json") for entry in entries]
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
    return show_found(names, lambda name: _document(directory, name), flags["format"], True)


def _document(directory: str, name: str) -> dict[str, Any]:
    memory = "<IN MEMORY>"
    if name == "default":
        host = {"Host": environment("DOCKER_HOST") or DEFAULT_HOST, "SkipTLSVerify": False}
        storage = {"MetadataPath": memory, "TLSPath": memory}
        return {"Name": name, "Metadata": {}, "Endpoints": {"docker": host}, "TLSMaterial": {}, "Storage": storage}
    found = read(directory, name)
    tls = f"{directory}/contexts/tls/{identity(name)}"
    try:
        material = {"docker": sorted(posix.listdir(f"{tls}/docker"))}
    except FileNotFoundError:
        material = {}
    storage = {"MetadataPath": f"{_meta_root(directory)}/{identity(name)}", "TLSPath": tls}
    return {
        "Name": name,
        "Metadata": found.get("Metadata") or {},
        "Endpoints": found.get("Endpoints") or {},
        "TLSMaterial": material,
        "Storage": storage,
    }


def create(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    directory, name = cli.config_directory, arguments[0]
    good = name[:1].isalnum() and len(name) > 1 and all(char.isalnum() or char in "_.+-" for char in name)
    if not good or not name.isascii():
        raise InvalidArgument(
            f'context name "{name}" is invalid, names are validated against regexp "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"'
        )
    if name == "default":
        raise InvalidArgument('"default" is a reserved context name')
    if read_document(f"{_meta_root(directory)}/{identity(name)}/meta.json"):
        raise Conflict(f'context "{name}" already exists')
    endpoint, files = _endpoint(directory, flags)
    metadata = {"Description": flags["description"]} if flags["description"] else {}
    _store(directory, name, {"Name": name, "Metadata": metadata, "Endpoints": {"docker": endpoint}}, files)
    print(name)
    sys.stdout.flush()
    sys.stderr.write(f'Successfully created context "{name}"\n')
    return 0


def _endpoint(directory: str, flags: Flags) -> tuple[dict[str, Any], dict[str, str]]:
    """(the endpoint's document, TLS files to copy by their names)."""
    settings: dict[str, str] = {}
    for text in flags["docker"]:
        for field in text.split(","):
            key, equals, value = field.partition("=")
            if not equals or key not in _KEYS:
                raise InvalidArgument(f"unrecognized config key: {key}: use {', '.join(_KEYS)}")
            settings[key] = value
    source = flags["from"] or settings.get("from", "")
    if source or not settings:
        source = source or current_name(directory)[0]
        document = dict(_document(directory, source)["Endpoints"].get("docker") or {})
        base = f"{directory}/contexts/tls/{identity(source)}/docker"
        copies = {f"{part}.pem": f"{base}/{part}.pem" for part in ("ca", "cert", "key")}
        return document, {name: path for name, path in copies.items() if posix.access(path, 4)}
    from wherry.client.dial import normalize

    host = settings.get("host", "")
    skip = settings.get("skip-tls-verify", "false").lower() in ("1", "t", "true")
    document = {"Host": normalize(host) if host else DEFAULT_HOST, "SkipTLSVerify": skip}
    return document, {f"{part}.pem": settings[part] for part in ("ca", "cert", "key") if part in settings}


def _store(directory: str, name: str, document: dict[str, Any], files: dict[str, str]) -> None:
    import os

    contents = {}
    for target, path in files.items():
        try:
            with open(path, "rb") as file:
                contents[target] = file.read()
        except OSError as error:
            raise InvalidArgument(f"unable to create docker endpoint config: open {path}: {error.strerror}") from None
    tls = f"{directory}/contexts/tls/{identity(name)}/docker"
    if contents:
        os.makedirs(tls, 0o700, exist_ok=True)
    for target, data in contents.items():
        with open(posix.open(f"{tls}/{target}", posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
    meta = f"{_meta_root(directory)}/{identity(name)}"
    os.makedirs(meta, 0o755, exist_ok=True)
    with open(f"{meta}/meta.json", "w", encoding="utf-8") as text:
        text.write(codec.dumps(document))


def rm(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    import shutil

    directory = cli.config_directory
    current = current_name(directory, cli.flags["context"])[0]
    errors = []
    for name in arguments:
        try:
            if name == "default":
                raise WherryError('context "default" cannot be removed')
            if not flags["force"]:
                read(directory, name)
            if name == current and not flags["force"]:
                raise Conflict(f'context "{name}" is in use, set -f flag to force remove')
        except WherryError as error:
            errors.append(str(error))
            continue
        shutil.rmtree(f"{_meta_root(directory)}/{identity(name)}", ignore_errors=True)
        shutil.rmtree(f"{directory}/contexts/tls/{identity(name)}", ignore_errors=True)
        print(name)
    if errors:
        raise StatusError("\n".join(errors), 1)
    return 0


_DOCKER = (
    "docker",
    "",
    "stringToString",
    None,
    "Where the engine is: host=...,ca=...,cert=...,key=...,skip-tls-verify=...",
)
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
    ),
    "context rm": Command(rm, (("force", "f", "bool", False, "Remove a context that is in use"),), (1, None)),
}
