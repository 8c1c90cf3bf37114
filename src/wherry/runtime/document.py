"""Typed access to parts of a configuration: a wrong type is an error that names the place."""

from __future__ import annotations

from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def _wrong(path: str, expected: str) -> InvalidArgument:
    return InvalidArgument(f"config.json: {path} must be {expected}", object=path)


def mapping(parent: Mapping[str, Any], key: str, path: str = "") -> dict[str, Any]:
    """The object at `key`; empty when absent or null."""
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(path + key, "an object")
    return value


def items(parent: Mapping[str, Any], key: str, path: str = "") -> list[dict[str, Any]]:
    """The list of objects at `key`; empty when absent or null."""
    value = parent.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _wrong(path + key, "a list of objects")
    return value


def strings(parent: Mapping[str, Any], key: str, path: str = "") -> tuple[str, ...]:
    """The list of strings at `key`; empty when absent or null."""
    value = parent.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) and "\0" not in item for item in value):
        raise _wrong(path + key, "a list of strings without NUL")
    return tuple(value)


def string(parent: Mapping[str, Any], key: str, default: str = "", path: str = "") -> str:
    """The string at `key`."""
    value = parent.get(key)
    if value is None:
        return default
    if not isinstance(value, str) or "\0" in value:
        raise _wrong(path + key, "a string without NUL")
    return value


def integer(parent: Mapping[str, Any], key: str, default: int = 0, path: str = "") -> int:
    """The integer at `key`."""
    value = parent.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(path + key, "an integer")
    return value


def boolean(parent: Mapping[str, Any], key: str, default: bool = False, path: str = "") -> bool:
    """The boolean at `key`."""
    value = parent.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise _wrong(path + key, "true or false")
    return value
