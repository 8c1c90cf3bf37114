"""A NamedTuple that costs nothing to import.

`typing.NamedTuple` pulls in `re`, `collections` and more: half of a cold start, and pages that every fork of the
monitor would have to copy. This one has the same declaration syntax and behaviour, without `_asdict` and `_make`.

    TYPE_CHECKING = False
    if TYPE_CHECKING:
        from typing import NamedTuple
    else:
        from wherry.kernel.tuples import NamedTuple

The using module needs `from __future__ import annotations`, so that annotations are never evaluated.
"""

from _collections import _tuplegetter  # type: ignore[import-not-found]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Record(tuple):  # type: ignore[type-arg]
    __slots__ = ()
    _fields: tuple[str, ...] = ()

    def __new__(cls, *values: "Any") -> "_Record":
        return tuple.__new__(cls, values)

    def __repr__(self) -> str:
        inner = ", ".join([f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True)])
        return f"{type(self).__name__}({inner})"

    def __getnewargs__(self) -> tuple[object, ...]:
        return tuple(self)

    def _replace(self, **changes: object) -> "_Record":
        unknown = changes.keys() - set(self._fields)
        if unknown:
            raise TypeError(f"{type(self).__name__} has no field {sorted(unknown)}")
        merged = [changes.get(name, value) for name, value in zip(self._fields, self, strict=True)]
        return type(self)(*merged)


class _Meta(type):
    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: "dict[str, Any]") -> "Any":
        if not bases:
            return super().__new__(mcs, name, bases, namespace)
        fields = tuple(namespace.pop("__annotations__", {}))
        defaults = tuple([namespace.pop(field) for field in fields if field in namespace])
        arguments = ", ".join(fields)
        tail = arguments + "," if arguments else ""
        scope: dict[str, Any] = {"_new": tuple.__new__}
        exec(f"def __new__(_cls, {arguments}): return _new(_cls, ({tail}))", scope)
        scope["__new__"].__defaults__ = defaults
        for index, field in enumerate(fields):
            namespace[field] = _tuplegetter(index, "")
        namespace.update(
            __slots__=(), _fields=fields, __match_args__=fields, __new__=scope["__new__"], __orig_bases__=bases
        )
        return type.__new__(type, name, (_Record,), namespace)


class NamedTuple(metaclass=_Meta):
    """Base to subclass; the subclass is a plain tuple type."""
