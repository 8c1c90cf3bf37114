"""Operations as bytes, for a child that was forked elsewhere.

`marshal` is the quickest there is and needs no module loaded; both ends are the same interpreter, and nothing but the
monitor writes to that channel. Records travel as lists [index of class, field...]; a list never occurs in an operation.
"""

from __future__ import annotations

import marshal

from wherry.runtime import devices, hooks, init, mounting, options, process, rootfs, setup
from wherry.spec.mount import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wherry.runtime.scene import Operation

_MODULES = (devices, hooks, init, mounting, options, process, rootfs, setup)
_CLASSES: list[Any] = [
    found
    for module in _MODULES
    for found in vars(module).values()
    if isinstance(found, type) and issubclass(found, tuple) and found.__module__ == module.__name__
]
_INDEX = {found: index for index, found in enumerate(_CLASSES)}
_MOUNT = len(_CLASSES)


def dump(header: dict[str, Any], operations: Sequence[Operation]) -> bytes:
    """A launch message."""
    return marshal.dumps((header, tuple([_encode(operation) for operation in operations])))


def load(data: bytes) -> tuple[dict[str, Any], list[Operation]]:
    """The header and the operations of a launch message."""
    header, operations = marshal.loads(data)
    return header, [_decode(operation) for operation in operations]


def _encode(value: Any) -> Any:
    index = _INDEX.get(type(value))
    if index is not None:
        return [index, *[_encode(field) for field in value]]
    if type(value) is tuple:
        return tuple([_encode(item) for item in value])
    if type(value) is Mount:
        return [_MOUNT, value.type, value.source, value.options, value.lowerdirs]
    return value


def _decode(value: list[Any]) -> Any:
    made = Mount if value[0] == _MOUNT else _CLASSES[value[0]]
    fields = []
    for field in value[1:]:
        if type(field) is list:
            field = _decode(field)
        elif type(field) is tuple and field and type(field[0]) is list:
            field = tuple([_decode(item) for item in field])
        fields.append(field)
    return made(*fields)
