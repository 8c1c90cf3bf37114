"""The filters of volume listing and pruning."""

import re
from collections.abc import Callable, Mapping, Sequence

from wherry.errors import InvalidArgument
from wherry.volumes._volume import Volume

Filters = Mapping[str, Sequence[str]]
# Which containers use a volume.
Users = Callable[[str], Sequence[str]]

_TRUE, _FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")


def listing(filters: Filters, users: Users) -> Callable[[Volume], bool]:
    """Whether a volume is to be listed."""
    _check_known(filters, ("dangling", "driver", "label", "name"))
    dangling = _boolean(filters, "dangling")

    def wanted(volume: Volume) -> bool:
        return (
            (dangling is None or dangling == (not users(volume.name)))
            and _any(filters, "driver", lambda value: value == volume.driver)
            and _any(filters, "name", lambda value: _matches(value, volume.name))
            and all(has_label(volume.labels, label) for label in filters.get("label", ()))
        )

    return wanted


def pruning(filters: Filters) -> Callable[[Volume], bool]:
    """Whether an unused volume is to go: anonymous ones, or all with all=true, as the labels have it."""
    _check_known(filters, ("all", "label", "label!"))
    every = _boolean(filters, "all")

    def wanted(volume: Volume) -> bool:
        return (
            (every or volume.anonymous)
            and all(has_label(volume.labels, label) for label in filters.get("label", ()))
            and not any(has_label(volume.labels, label) for label in filters.get("label!", ()))
        )

    return wanted


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """`wanted` is "key" or "key=value"."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _check_known(filters: Filters, known: Sequence[str]) -> None:
    for name in filters:
        if name not in known:
            raise InvalidArgument(f"invalid filter '{name}'", object=name)


def _boolean(filters: Filters, name: str) -> bool | None:
    values = filters.get(name)
    if not values:
        return None
    if len(values) > 1 or values[0] not in _TRUE + _FALSE:
        raise InvalidArgument(f"invalid filter '{name}=[{' '.join(values)}]'", object=name)
    return values[0] in _TRUE


def _any(filters: Filters, name: str, test: Callable[[str], bool]) -> bool:
    values = filters.get(name)
    return not values or any(map(test, values))


def _matches(pattern: str, name: str) -> bool:
    """A part of the name, or a regular expression that matches in it."""
    try:
        return pattern in name or re.search(pattern, name) is not None
    except re.error:
        return False
