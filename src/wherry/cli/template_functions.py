"""The functions of docker's templates, and how Go prints values."""

from __future__ import annotations

from wherry.client.codec import go_dumps
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class TemplateError(WherryError):
    """The template is wrong, or does not fit the data."""


def truth(value: Any) -> bool:
    return bool(value) if isinstance(value, bool | int | float | str | list | tuple | dict) else value is not None


def show(value: Any) -> str:
    """Go's %v."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{show(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(show(item) for item in value) + "]"
    return str(value)


def _float(value: float) -> str:
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    return repr(value)


def _quote(value: Any) -> str:
    import json

    return json.dumps(show(value), ensure_ascii=False)


def printf(pattern: str, *arguments: Any) -> str:
    """Go's verbs %v %s %q %d %t %x %f %g %e %%, with flags, width and precision."""
    out: list[str] = []
    rest = list(arguments)
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char != "%":
            out.append(char)
            continue
        start = at
        while at < len(pattern) and pattern[at] in "+-# 0123456789.":
            at += 1
        options, verb = pattern[start:at], pattern[at : at + 1]
        at += 1
        if verb == "%":
            out.append("%")
        elif not rest:
            out.append(f"%!{verb}(MISSING)")
        else:
            out.append(_verb(verb, options, rest.pop(0)))
    if rest:
        out.append("%!(EXTRA " + ", ".join(f"{_type(item)}={show(item)}" for item in rest) + ")")
    return "".join(out)


def _verb(verb: str, options: str, value: Any) -> str:
    if verb in "vs":
        return f"%{options.replace('+', '').replace('#', '')}s" % show(value)
    if verb == "q":
        return f"%{options}s" % _quote(value)
    if verb == "t" and isinstance(value, bool):
        return show(value)
    if verb in "dxXo" and isinstance(value, int) and not isinstance(value, bool):
        return f"%{options}{verb}" % value
    if verb in "xX" and isinstance(value, str):
        return value.encode().hex() if verb == "x" else value.encode().hex().upper()
    if verb in "feEgG" and isinstance(value, int | float):
        return f"%{options}{verb}" % value
    return f"%!{verb}({_type(value)}={show(value)})"


def _type(value: Any) -> str:
    names = {"str": "string", "int": "int", "bool": "bool", "float": "float64"}
    return names.get(type(value).__name__, "interface {}")


def index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list | tuple | str) and isinstance(key, int):
            if not 0 <= key < len(value):
                raise TemplateError(f"error calling index: index out of range: {key}")
            value = ord(value[key]) if isinstance(value, str) else value[key]
        elif value is None:
            raise TemplateError("error calling index: index of untyped nil")
        else:
            raise TemplateError(f"error calling index: cannot index item of type {_type(value)}")
    return value


def _slice(value: Any, *ends: int) -> Any:
    return value[slice(ends[0] if ends else 0, ends[1] if len(ends) > 1 else None)]


def _length(value: Any) -> int:
    if value is None:
        raise TemplateError("error calling len: len of nil pointer")
    if not hasattr(value, "__len__"):
        raise TemplateError(f"error calling len: len of type {_type(value)}")
    return len(value.encode()) if isinstance(value, str) else len(value)


def _equal(first: Any, *others: Any) -> bool:
    for other in others:
        if first is not None and other is not None and _type(first) != _type(other):
            raise TemplateError("error calling eq: incompatible types for comparison")
    return any(first == other for other in others)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def call(left: Any, right: Any) -> bool:
        if _type(left) != _type(right):
            raise TemplateError("incompatible types for comparison")
        return compare(left, right)

    return call


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else text


def _truncate(text: str, length: int) -> str:
    return text[:length]


def _print(*values: Any) -> str:
    out = ""
    for position, value in enumerate(values):
        both = position and not isinstance(value, str) and not isinstance(values[position - 1], str)
        out += (" " if both else "") + show(value)
    return out


def _json(value: Any) -> str:
    document = getattr(value, "document", None)
    return go_dumps(document() if document else value)


def _join(items: Any, separator: str) -> str:
    return separator.join(show(item) for item in items or ())


def title(text: str) -> str:
    return "".join(
        char.upper() if not at or not (text[at - 1].isalnum() or text[at - 1] in "_'") else char
        for at, char in enumerate(text)
    )


def _html(*values: Any) -> str:
    text = _print(*values)
    for char, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
        text = text.replace(char, name)
    return text


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": _json,
    "join": _join,
    "split": lambda text, separator: text.split(separator) if separator else list(text),
    "title": title,
    "lower": lambda text: text.lower(),
    "upper": lambda text: text.upper(),
    "pad": _pad,
    "truncate": _truncate,
    "println": lambda *values: " ".join(show(value) for value in values) + "\n",
    "print": _print,
    "printf": printf,
    "len": _length,
    "index": index,
    "slice": _slice,
    "html": _html,
    "eq": _equal,
    "ne": lambda left, right: not _equal(left, right),
    "lt": _ordered(lambda left, right: left < right),
    "le": _ordered(lambda left, right: left <= right),
    "gt": _ordered(lambda left, right: left > right),
    "ge": _ordered(lambda left, right: left >= right),
    "not": lambda value: not truth(value),
    "and": None,  # type: ignore[dict-item]  # evaluated by the template, which stops early
    "or": None,  # type: ignore[dict-item]
}


def _same(value: Any, *_rest: Any) -> Any:
    return value


# Over the titles of a table's columns, functions do nothing: `{{truncate .ID 5}}` still heads its column in full.
HEADER_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("json", "title", "lower", "upper", "truncate", "split", "pad"), _same),
    "join": _same,
}
