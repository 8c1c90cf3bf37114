"""Where a plugin is: the files that announce it."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wherry.errors import InvalidArgument, NotFound

# A name becomes part of a path: nothing in it may leave the directory. Managed plugins' names ("vendor/x:tag") differ.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_MAX_FILE = 64 * 1024
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Places:
    """Directories that are searched, in this order: those of sockets, then those of .spec and .json files."""

    sockets: tuple[Path, ...] = (Path("/run/docker/plugins"),)
    files: tuple[Path, ...] = (Path("/etc/docker/plugins"), Path("/usr/lib/docker/plugins"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One plugin's end: a unix socket (`path`), or `host` and `port`. `prefix`: before every method's path.

    `tls` without `insecure` verifies the other side, by `ca` or the system's authorities; `cert` and `key` are ours.
    """

    name: str
    path: str = ""
    host: str = ""
    port: int = 0
    prefix: str = ""
    tls: bool = False
    insecure: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""


def discover(name: str, places: Places | None = None) -> Address:
    """The plugin called `name`; NotFound in docker's words, InvalidArgument for a file that makes no sense."""
    if not _NAME.fullmatch(name):
        raise NotFound(f'plugin "{name}" not found', object=name)
    where = places or Places()
    for directory in where.sockets:
        for path in (directory / f"{name}.sock", directory / name / f"{name}.sock"):
            if path.is_socket():
                return Address(name=name, path=str(path))
    for directory in where.files:
        for parent in (directory, directory / name):
            for ending, parse in ((".spec", _parse_spec), (".json", _parse_json)):
                text = _text(parent / f"{name}{ending}")
                if text is not None:
                    return parse(name, text)
    raise NotFound(f'plugin "{name}" not found', object=name)


def announced(places: Places | None = None) -> list[str]:
    """The names of all plugins that files announce, in order."""
    where = places or Places()
    found = set()
    for directories, endings in ((where.sockets, (".sock",)), (where.files, (".spec", ".json"))):
        for directory in directories:
            for path in _listed(directory):
                if path.suffix in endings:
                    found.add(path.stem)
                elif not path.suffix and any((path / f"{path.name}{ending}").exists() for ending in endings):
                    found.add(path.name)
    return sorted(name for name in found if _NAME.fullmatch(name))


def _listed(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _text(path: Path) -> str | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with open(fd, "rb") as file:
        return file.read(_MAX_FILE).decode("utf-8", "replace").strip()


def _parse_spec(name: str, text: str) -> Address:
    return _address(name, text, {})


def _parse_json(name: str, text: str) -> Address:
    try:
        document = json.loads(text)
        tls = document.get("TLSConfig") or {}
        url = document["Addr"]
        if not isinstance(url, str) or not isinstance(tls, dict):
            raise TypeError("Addr is no text, or TLSConfig no object")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArgument(f"plugin {name}: its json file is not usable: {error}", object=name) from None
    return _address(name, url, tls)


def _address(name: str, url: str, tls: Mapping[str, Any]) -> Address:
    parts = urlsplit(url if "://" in url else f"tcp://{url}")
    if parts.scheme == "unix" and parts.path:
        return Address(name=name, path=(parts.netloc + parts.path))
    try:
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        port = None
    if parts.scheme not in ("tcp", "http", "https") or not parts.hostname or not port:
        hint = "unix:///path.sock, tcp://host:port, http:// or https://"
        raise InvalidArgument(f"plugin {name}: {url!r} is no address", object=name, hint=hint)
    return Address(
        name=name,
        host=parts.hostname,
        port=port,
        prefix=parts.path.rstrip("/"),
        # As docker: the address says where, a TLSConfig that it is TLS.
        tls=bool(tls) or parts.scheme == "https",
        insecure=bool(tls.get("InsecureSkipVerify", False)),
        ca=str(tls.get("CAFile") or ""),
        cert=str(tls.get("CertFile") or ""),
        key=str(tls.get("KeyFile") or ""),
    )
