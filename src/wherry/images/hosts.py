"""Per-registry configuration in containerd's layout: `<directory>/<host>/hosts.toml`.

    server = "https://registry.lan"                # where the registry itself is; default: https://<host>

    [host."https://mirror.lan:5000"]               # tried before it, in this order
      capabilities = ["pull", "resolve", "push"]   # default: all
      ca = "mirror.crt"                            # a path or several; relative to this file
      client = [["mirror.cert", "mirror.key"]]     # a path, or pairs of certificate and key
      skip_verify = false
      override_path = false                        # the address has the API's root in its path
      [host."https://mirror.lan:5000".header]
        x-custom = "value"

The same keys beside `server` speak of the server. `<host>` is the name in references, `host_port_` stands for
`host:port`, `_default` for every registry that has no directory. Source: containerd, docs/hosts.md.
"""

import ssl
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wherry.errors import InvalidArgument
from wherry.images.endpoint import ALL, Endpoint

_SETTINGS = {"capabilities", "ca", "client", "skip_verify", "override_path", "header"}


def read_hosts(domain: str, server: str, directories: Sequence[Path]) -> list[Endpoint] | None:
    """The endpoints the first hosts.toml for a registry names, mirrors first; None when there is none.

    `server` is the registry's own address where the file names no other.

    InvalidArgument, naming the file, when it cannot be read or says what is not understood.
    """
    for name in dict.fromkeys((domain, _escaped(domain), "_default")):
        for directory in directories:
            file = directory / name / "hosts.toml"
            if file.is_file():
                return _parse(file, server)
    return None


def _escaped(domain: str) -> str:
    host, colon, port = domain.rpartition(":")
    return f"{host}_{port}_" if colon and port.isdigit() else domain


def _parse(file: Path, server: str) -> list[Endpoint]:
    try:
        document = tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{file}: {error}", object=str(file)) from None
    hosts = document.get("host", {})
    if not isinstance(hosts, dict) or not all(isinstance(host, dict) for host in hosts.values()):
        raise InvalidArgument(f'{file}: host must be tables named by addresses, [host."https://..."]', object=str(file))
    if unknown := document.keys() - _SETTINGS - {"server", "host"}:
        raise InvalidArgument(f"{file}: unknown key {min(unknown)!r}", object=str(file))
    found = [_endpoint(file, address, settings, mirror=True) for address, settings in hosts.items()]
    own = {key: value for key, value in document.items() if key in _SETTINGS}
    return [*found, _endpoint(file, _text(file, document, "server", server), own, mirror=False)]


def _endpoint(file: Path, address: str, settings: Mapping[str, Any], *, mirror: bool) -> Endpoint:
    if unknown := settings.keys() - _SETTINGS:
        raise InvalidArgument(f"{file}: unknown key {min(unknown)!r} for {address}", object=str(file))
    address = address if "://" in address else f"https://{address}"
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise InvalidArgument(f"{file}: {address!r} is not an http(s) address", object=str(file))
    capabilities = settings.get("capabilities", sorted(ALL))
    if not isinstance(capabilities, list) or not ALL.issuperset(capabilities):
        raise InvalidArgument(f"{file}: capabilities are among {', '.join(sorted(ALL))}", object=str(file))
    headers = settings.get("header", {})
    if not isinstance(headers, dict):
        raise InvalidArgument(f"{file}: header must be a table", object=str(file))
    verbatim = _flag(file, settings, "override_path")
    address = address.rstrip("/")
    # containerd takes the API's root with or without its name.
    if not verbatim:
        address = address.removesuffix("/v2")
    return Endpoint(
        address,
        _tls(file, settings),
        mirror,
        verbatim=verbatim,
        capabilities=frozenset(capabilities),
        headers=tuple((name, value) for name, given in headers.items() for value in _strings(file, given, name)),
    )


def _tls(file: Path, settings: Mapping[str, Any]) -> ssl.SSLContext | bool:
    client = settings.get("client")
    pairs = client if isinstance(client, list) and any(isinstance(pair, list) for pair in client) else None
    certificates = pairs or [[each] for each in _strings(file, client, "client")]
    authorities = _strings(file, settings.get("ca"), "ca")
    skip = _flag(file, settings, "skip_verify")
    if not certificates and not authorities:
        return not skip
    context = ssl.create_default_context()
    if skip:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        for authority in authorities:
            context.load_verify_locations(file.parent / authority)
        for pair in certificates:
            paths = [file.parent / each for each in _strings(file, pair, "client")]
            context.load_cert_chain(paths[0], paths[1] if len(paths) > 1 else None)
    except (OSError, ssl.SSLError, IndexError) as error:
        raise InvalidArgument(f"{file}: cannot use ca or client: {error}", object=str(file)) from None
    return context


def _strings(file: Path, value: Any, key: str) -> list[str]:
    found = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise InvalidArgument(f"{file}: {key} must be a string or a list of strings", object=str(file))
    return found


def _text(file: Path, settings: Mapping[str, Any], key: str, default: str) -> str:
    value = settings.get(key, default)
    if not isinstance(value, str):
        raise InvalidArgument(f"{file}: {key} must be a string", object=str(file))
    return value


def _flag(file: Path, settings: Mapping[str, Any], key: str) -> bool:
    value = settings.get(key, False)
    if not isinstance(value, bool):
        raise InvalidArgument(f"{file}: {key} must be true or false", object=str(file))
    return value
