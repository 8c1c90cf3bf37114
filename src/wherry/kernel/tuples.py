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


_templates: "dict[int, Any]" = {}


def _constructor(fields: tuple[str, ...]) -> "Any":
    """`__new__` with these parameters. Compiled once per number of fields, then given their names: a compilation for
    each of the runtime's sixty types would be a tenth of a cold start."""
    count = len(fields)
    template = _templates.get(count)
    if template is None:
        names = "".join([f"a{index}," for index in range(count)])
        scope: dict[str, Any] = {"_new": tuple.__new__}
        exec(f"def __new__(_cls, {names}): return _new(_cls, ({names}))", scope)
        template = _templates[count] = scope["__new__"]
    code = template.__code__.replace(co_varnames=("_cls", *fields))
    return type(template)(code, template.__globals__, "__new__")


class _Meta(type):
    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: "dict[str, Any]") -> "Any":
        if not bases:
            return super().__new__(mcs, name, bases, namespace)
        fields = tuple(namespace.pop("__annotations__", {}))
        defaults = tuple([namespace.pop(field) for field in fields if field in namespace])
        make = _constructor(fields)
        make.__defaults__ = defaults
        for index, field in enumerate(fields):
            namespace[field] = _tuplegetter(index, "")
        namespace.update(__slots__=(), _fields=fields, __match_args__=fields, __new__=make, __orig_bases__=bases)
        return type.__new__(type, name, (_Record,), namespace)


class NamedTuple(metaclass=_Meta):
    """Base to subclass; the subclass is a plain tuple type."""
