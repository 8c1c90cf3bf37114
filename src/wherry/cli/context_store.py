"""Contexts as docker stores them: checked, written, removed."""

from __future__ import annotations

import posix

from wherry.client import codec
from wherry.client.context import DEFAULT_HOST, current_name, environment, identity, read, read_document
from wherry.errors import Conflict, InvalidArgument, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

PARTS = ("ca", "cert", "key")
_KEYS = (*PARTS, "from", "host", "skip-tls-verify")
_PREFIX = "unable to create docker endpoint config: "
_TRUE, _FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("", "0", "f", "F", "false", "FALSE", "False")


def meta_root(directory: str) -> str:
    return f"{directory}/contexts/meta"


def exists(directory: str, name: str) -> bool:
    return bool(read_document(f"{meta_root(directory)}/{identity(name)}/meta.json"))


def check_new(directory: str, name: str) -> None:
    """InvalidArgument or Conflict when there can be no new context of this name."""
    good = name[:1].isalnum() and len(name) > 1 and all(char.isalnum() or char in "_.+-" for char in name)
    if not good or not name.isascii():
        raise InvalidArgument(
            f'context name "{name}" is invalid, names are validated against regexp "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"'
        )
    check_not_default(name)
    if exists(directory, name):
        raise Conflict(f'context "{name}" already exists')


def check_not_default(name: str) -> None:
    if name == "default":
        raise InvalidArgument('"default" is a reserved context name')


def document(directory: str, name: str) -> dict[str, Any]:
    """What `inspect` shows."""
    if name == "default":
        memory = "<IN MEMORY>"
        host = {"Host": environment("DOCKER_HOST") or DEFAULT_HOST, "SkipTLSVerify": False}
        storage = {"MetadataPath": memory, "TLSPath": memory}
        return {"Name": name, "Metadata": {}, "Endpoints": {"docker": host}, "TLSMaterial": {}, "Storage": storage}
    found = read(directory, name)
    files = tls_files(directory, name)
    tls = f"{directory}/contexts/tls/{identity(name)}"
    return {
        "Name": name,
        "Metadata": found.get("Metadata") or {},
        "Endpoints": found.get("Endpoints") or {},
        "TLSMaterial": {"docker": sorted(files)} if files else {},
        "Storage": {"MetadataPath": f"{meta_root(directory)}/{identity(name)}", "TLSPath": tls},
    }


def tls_files(directory: str, name: str) -> dict[str, bytes]:
    """The TLS files of a context by their names."""
    base = f"{directory}/contexts/tls/{identity(name)}/docker"
    try:
        entries = posix.listdir(base)
    except FileNotFoundError:
        return {}
    return {entry: _contents(f"{base}/{entry}") for entry in entries}


def endpoint(directory: str, given: list[str]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """(the endpoint's document, its TLS files) that --docker asks for."""
    settings: dict[str, str] = {}
    for text in given:
        for field in text.split(","):
            key, _, value = field.partition("=")
            settings[key] = value
    for key in settings:
        if key not in _KEYS:
            raise InvalidArgument(f"{_PREFIX}unrecognized config key: {key}")
    try:
        if "from" in settings:
            # docker leaves the TLS files behind here, and takes them along with --from.
            return _copy(directory, settings["from"])[0], {}
        return _endpoint(settings)
    except WherryError as error:
        raise InvalidArgument(f"{_PREFIX}{error}") from None


def copy(directory: str, source: str) -> tuple[dict[str, Any], dict[str, bytes], str]:
    """(endpoint, TLS files, description) of another context, "" for the current one."""
    if not source:
        source = current_name(directory)[0]
    about = "Current DOCKER_HOST based configuration"
    if source != "default":
        about = str((read(directory, source).get("Metadata") or {}).get("Description", ""))
    return (*_copy(directory, source), about)


def _copy(directory: str, source: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    found = dict(document(directory, source)["Endpoints"].get("docker") or {})
    return found, {} if source == "default" else tls_files(directory, source)


def _endpoint(settings: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, bytes]]:
    from wherry.client.dial import normalize

    skip = settings.get("skip-tls-verify", "")
    if skip not in (*_TRUE, *_FALSE):
        raise InvalidArgument(f'skip-tls-verify: parsing "{skip}": invalid syntax')
    files = {f"{part}.pem": _contents(settings[part]) for part in PARTS if settings.get(part)}
    if "ca.pem" in files and b"-----BEGIN CERTIFICATE-----" not in files["ca.pem"]:
        raise InvalidArgument(
            "invalid docker endpoint options: failed to retrieve context tls info: ca.pem seems invalid"
        )
    host = settings.get("host", "")
    if host and "://" not in host:
        raise InvalidArgument(f"unable to apply docker endpoint options: unable to parse docker host `{host}`")
    try:
        shown = normalize(host) if host else DEFAULT_HOST
    except WherryError as error:
        raise InvalidArgument(f"unable to apply docker endpoint options: {error}") from None
    return {"Host": shown, "SkipTLSVerify": skip in _TRUE}, files


def _contents(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InvalidArgument(f"open {path}: {(error.strerror or '').lower()}") from None


def save(directory: str, name: str, content: Mapping[str, Any], files: Mapping[str, bytes] | None) -> None:
    """Write a context; `files` None leaves its TLS files as they are."""
    import os
    import shutil

    tls = f"{directory}/contexts/tls/{identity(name)}"
    if files is not None:
        shutil.rmtree(tls, ignore_errors=True)
    if files:
        os.makedirs(f"{tls}/docker", 0o700)
        for target, data in files.items():
            path = f"{tls}/docker/{target}"
            with open(posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
    meta = f"{meta_root(directory)}/{identity(name)}"
    os.makedirs(meta, 0o755, exist_ok=True)
    with open(f"{meta}/meta.json", "w", encoding="utf-8") as text:
        text.write(codec.dumps(dict(content)))


def remove(directory: str, name: str) -> None:
    import shutil

    for kind in ("meta", "tls"):
        shutil.rmtree(f"{directory}/contexts/{kind}/{identity(name)}", ignore_errors=True)
