"""daemon.json: read, checked for what it may hold, and made the same values that flags give."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wherry.daemon.options import Fixed, Option
from wherry.errors import InvalidArgument, Unimplemented

_KINDS = {
    "bool": "true or false",
    "int": "a whole number",
    "list": "a list of strings",
    "map": "an object of strings",
    "ulimit": "an object of ulimits",
    "bytes": "a size",
    "features": "an object of true and false",
    "runtimes": "an object of objects",
}
_COLLECTING = ("list", "map", "ulimit")
_PROXIES = ("http-proxy", "https-proxy", "no-proxy")
Setter = Callable[[dict[str, Any], Option | Fixed, str, str], None]


def read_file(
    path: Path, by_key: Mapping[str, Option | Fixed], set_value: Setter, *, explicit: bool
) -> dict[str, Any] | None:
    """The options of a file by their flags; None when there is no file and nobody said that there is."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        if explicit:
            raise InvalidArgument(f"open {path}: no such file or directory") from None
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"cannot read it: {error}") from None
    if not text.strip():
        return {}
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"invalid JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidArgument("invalid JSON: an object is needed")
    document = _unfold(document)
    unknown = sorted(key for key in document if key not in by_key)
    if unknown:
        raise InvalidArgument(f"the following directives don't match any configuration option: {', '.join(unknown)}")
    found: dict[str, Any] = {}
    for key, value in document.items():
        # As in Go, null is the same as nothing.
        if value is not None:
            _set_from_file(found, by_key[key], key, value, set_value)
    return found


def _unfold(document: dict[str, Any]) -> dict[str, Any]:
    """What flags have one by one: `proxies`, and the objects of networks' defaults."""
    document = document | _networks(document)
    if isinstance(document.get("host-gateway-ip"), str):
        document = document | {"host-gateway-ip": [document["host-gateway-ip"]]}
    proxies = document.get("proxies")
    if proxies is None:
        return {key: value for key, value in document.items() if key != "proxies"}
    if not isinstance(proxies, dict):
        raise InvalidArgument("invalid JSON: proxies must be an object")
    unknown = sorted(f"proxies.{key}" for key in proxies if key not in _PROXIES)
    if unknown:
        raise InvalidArgument(f"the following directives don't match any configuration option: {', '.join(unknown)}")
    return {key: value for key, value in document.items() if key != "proxies"} | proxies


def _networks(document: Mapping[str, Any]) -> dict[str, list[str]]:
    """`default-address-pools` and `default-network-opts` as the texts of their flags."""
    found: dict[str, list[str]] = {}
    pools, options = document.get("default-address-pools"), document.get("default-network-opts")
    if pools is not None:
        if not isinstance(pools, list) or not all(isinstance(pool, dict) for pool in pools):
            raise InvalidArgument("invalid JSON: default-address-pools must be a list of objects")
        found["default-address-pools"] = [f"base={pool.get('base', '')},size={pool.get('size', '')}" for pool in pools]
    if options is not None:
        if not isinstance(options, dict) or not all(isinstance(item, dict) for item in options.values()):
            raise InvalidArgument("invalid JSON: default-network-opts must be an object of objects")
        found["default-network-opts"] = [
            f"{driver}={name}={_text(value, name)}"
            for driver, given in options.items()
            for name, value in given.items()
        ]
    return found


def _set_from_file(found: dict[str, Any], option: Option | Fixed, key: str, value: Any, set_value: Setter) -> None:
    if option.kind in ("features", "runtimes") and isinstance(option, Option):
        found[option.flag] = _objects(option, key, value)
        return
    if isinstance(option, Fixed) and value in ({}, []):
        return
    if option.kind == "ulimit" and isinstance(value, dict):
        value = [_ulimit_text(name, limit) for name, limit in value.items()]
    elif option.kind == "map" and isinstance(value, dict):
        value = [f"{name}={_text(item, f'{key}.{name}')}" for name, item in value.items()]
    if option.kind in _COLLECTING and isinstance(option, Option):
        found.setdefault(option.flag, {} if option.kind == "map" else [])
    values = value if isinstance(value, list) and (option.kind in _COLLECTING) else [value]
    if option.kind in _COLLECTING and not isinstance(value, list):
        raise InvalidArgument(f"invalid JSON: {key} must be {_KINDS[option.kind]}", object=key)
    for item in values:
        fits = {"bool": bool, "int": int}.get(option.kind, str)
        if option.kind == "bytes" and isinstance(item, int) and not isinstance(item, bool):
            item = str(item)
        if not isinstance(item, fits) or (fits is int and isinstance(item, bool)):
            if isinstance(option, Fixed):
                raise Unimplemented(f"{key} is not possible: {option.reason}", object=key)
            raise InvalidArgument(f"invalid JSON: {key} must be {_KINDS.get(option.kind, 'a string')}", object=key)
        set_value(found, option, str(item).lower() if isinstance(item, bool) else str(item), key)


def _objects(option: Option, key: str, value: Any) -> dict[str, Any]:
    wanted = bool if option.kind == "features" else dict
    if not isinstance(value, dict) or not all(isinstance(item, wanted) for item in value.values()):
        raise InvalidArgument(f"invalid JSON: {key} must be {_KINDS[option.kind]}", object=key)
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InvalidArgument(f"invalid JSON: {where} must be a string", object=where)
    return value


def _ulimit_text(name: str, limit: Any) -> str:
    if not isinstance(limit, dict):
        raise InvalidArgument(f"invalid JSON: default-ulimits.{name} must be an object")
    return f"{limit.get('Name', name)}={limit.get('Soft', 0)}:{limit.get('Hard', 0)}"
