"""JSON documents to frozen dataclasses and back.

The dataclass *is* the schema: its annotations say what is accepted. A decoder is compiled once per class.

    @document("pascal")                      # or "camel": how field names are spelled in JSON
    @dataclass(frozen=True, slots=True, kw_only=True)
    class PortBinding:
        host_ip: str = key("HostIp", "")      # a spelling the rule does not give
        host_port: str = ""                   # "HostPort"

    decode(PortBinding, {"HostIp": "127.0.0.1", "HostPort": "80"}, "HostConfig.PortBindings")

Rules, which are Go's `encoding/json` as Docker's clients expect it: unknown keys are ignored, case does not count in
keys, of a key twice the last counts, `null` and absent mean the field's default, a wrong type is an error that names
the path. Supported annotations: str, bool, int, float, Any, document classes, `X | None`, tuple[X, ...],
Mapping[str, X].
"""

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from wherry.errors import InvalidArgument

T = TypeVar("T")
_Decoder = Callable[[Any, str], Any]
_KEY = "json"
_CASE = "__json_case__"


def key(name: str, default: Any = dataclasses.MISSING, *, factory: Any = dataclasses.MISSING) -> Any:
    """A dataclass field whose JSON key is `name`."""
    if factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=factory, metadata={_KEY: name})
    return dataclasses.field(default=default, metadata={_KEY: name})


def document(case: str) -> Callable[[type[T]], type[T]]:
    """Mark a dataclass as a JSON document whose keys are spelled in `case`: "pascal" or "camel"."""

    def mark(cls: type[T]) -> type[T]:
        setattr(cls, _CASE, case)
        return cls

    return mark


def decode(cls: type[T], value: object, path: str = "") -> T:
    """`value` (parsed JSON) as a `cls`; raises InvalidArgument naming the path of what does not fit."""
    return cast(T, _decoder(cls)(value, path))


def encode(value: Any) -> Any:
    """The JSON form of a document: every field is present, tuples become lists."""
    if type(value) in _PLAIN:  # most fields: the checks below cost ten times as much
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: encode(getattr(value, attribute)) for attribute, name in _keys(type(value))}
    if isinstance(value, Mapping):
        return {k: encode(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    return value


def json_keys(cls: type) -> dict[str, str]:
    """The JSON key of each field of a document."""
    return dict(_keys(cls))


_PLAIN = frozenset((str, int, bool, float, type(None)))
_decoders: dict[Any, _Decoder] = {}
_key_lists: dict[type, tuple[tuple[str, str], ...]] = {}


def _decoder(annotation: Any) -> _Decoder:
    made = _decoders.get(annotation)
    if made is None:
        made = _decoders[annotation] = _compile(annotation)
    return made


def _compile(annotation: Any) -> _Decoder:
    if annotation is Any or annotation is object:
        return lambda value, path: value
    scalar = _SCALARS.get(annotation)
    if scalar is not None:
        return scalar
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        inner = [argument for argument in arguments if argument is not type(None)]
        if len(inner) != 1:
            raise TypeError(f"only X | None can be decoded, not {annotation}")
        return _decoder(inner[0])
    if origin is tuple:
        return _sequence(_decoder(arguments[0]))
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(_decoder(arguments[1]))
    if dataclasses.is_dataclass(annotation):
        return _record(cast(type, annotation))
    raise TypeError(f"cannot decode into {annotation}")


def _expect(kinds: tuple[type, ...], name: str) -> _Decoder:
    def check(value: Any, path: str) -> Any:
        # bool is an int to Python, never to JSON.
        if isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)):
            return value
        raise _mismatch(path, name, value)

    return check


def _integer(value: Any, path: str) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return cast(int, _expect((int,), "an integer")(value, path))


_SCALARS: dict[Any, _Decoder] = {
    str: _expect((str,), "a string"),
    bool: _expect((bool,), "true or false"),
    int: _integer,
    float: _expect((int, float), "a number"),
}


def _mismatch(path: str, expected: str, value: Any) -> InvalidArgument:
    names = {str: "a string", bool: "a boolean", list: "a list", dict: "an object", type(None): "null"}
    found = names.get(type(value), "a number")
    return InvalidArgument(f"{path or 'the document'} must be {expected}, not {found}", object=path or None)


def _sequence(item: _Decoder) -> _Decoder:
    def check(value: Any, path: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _mismatch(path, "a list", value)
        return tuple(item(element, f"{path}[{index}]") for index, element in enumerate(value))

    return check


def _mapping(item: _Decoder) -> _Decoder:
    def check(value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _mismatch(path, "an object", value)
        # A null value is kept as None: Docker's maps use it (PortBindings, Volumes, NetworkingConfig).
        return {name: None if v is None else item(v, f"{path}.{name}") for name, v in value.items()}

    return check


def _record(cls: type) -> _Decoder:
    fields: dict[str, tuple[str, _Decoder]] = {}
    folded: dict[str, tuple[str, _Decoder]] = {}
    # Registered before its fields are compiled, so that a document may contain itself.
    required: set[str] = set()

    def check(value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise _mismatch(path, "an object", value)
        found: dict[str, Any] = {}
        for name, element in value.items():
            known = fields.get(name) or folded.get(name.casefold())
            if known is not None and element is not None:
                found[known[0]] = known[1](element, f"{path}.{name}" if path else name)
        missing = required - found.keys()
        if missing:
            names = ", ".join(sorted(json_key for json_key, known in fields.items() if known[0] in missing))
            raise InvalidArgument(f"{path or 'the document'} lacks {names}", object=path or None)
        return cls(**found)

    _decoders[cls] = check
    hints = get_type_hints(cls)
    json_keys = dict(_keys(cls))
    for field in dataclasses.fields(cls):
        fields[json_keys[field.name]] = (field.name, _decoder(hints[field.name]))
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.add(field.name)
    folded.update((name.casefold(), known) for name, known in fields.items())
    return check


def _keys(cls: type) -> tuple[tuple[str, str], ...]:
    made = _key_lists.get(cls)
    if made is None:
        case = getattr(cls, _CASE, "pascal")
        made = tuple((f.name, f.metadata.get(_KEY) or _spell(f.name, case)) for f in dataclasses.fields(cls))
        _key_lists[cls] = made
    return made


def _spell(name: str, case: str) -> str:
    words = name.rstrip("_").split("_")
    pascal = "".join(word[:1].upper() + word[1:] for word in words)
    return pascal if case == "pascal" else pascal[:1].lower() + pascal[1:]
