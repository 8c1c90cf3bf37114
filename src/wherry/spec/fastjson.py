"""JSON for processes whose start-up is paid for on every command.

`import json` costs 7 ms, nearly all of it for `re` and `enum`, which only its pure-Python half needs. The C scanner and
encoder underneath need neither. CPython keeps them in `_json`; where they are missing, `json` itself is used.

    loads('{"a": 1}') ; dumps({"a": 1}) == '{"a":1}'
"""

TYPE_CHECKING = False  # `typing` itself imports `re`; mypy knows this name
if TYPE_CHECKING:
    from typing import Any

try:
    from _json import make_encoder, make_scanner, scanstring
except ImportError:  # not CPython
    import json

    def loads(text: str | bytes) -> "Any":
        """The value of a JSON document; ValueError when it is not one."""
        return json.loads(text)

    def dumps(value: "Any") -> str:
        """`value` as compact JSON, not escaped to ASCII."""
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)

else:
    from _json import encode_basestring

    class _Context:
        strict = True
        object_hook = None
        object_pairs_hook = None
        parse_float = float
        parse_int = int
        parse_string = scanstring

        @staticmethod
        def parse_constant(name: str) -> float:
            raise ValueError(f"{name} is not JSON")

    # The scanner reports "no value here" as StopIteration(index), and malformed text through json.JSONDecodeError,
    # which is a ValueError and imported only then.
    _scan = make_scanner(_Context)  # type: ignore[arg-type]
    _SPACE = " \t\n\r"

    def loads(text: str | bytes) -> "Any":
        """The value of a JSON document; ValueError when it is not one."""
        if isinstance(text, bytes | bytearray):
            text = str(text, "utf-8")
        start = 0 if text[:1] not in _SPACE else len(text) - len(text.lstrip(_SPACE))
        try:
            value, end = _scan(text, start)
        except StopIteration as stop:
            raise ValueError(f"no JSON value at character {stop.value}") from None
        if end != len(text) and text[end:].strip(_SPACE):
            raise ValueError(f"text after the JSON value at character {end}")
        return value

    def _refuse(value: object) -> "Any":
        raise TypeError(f"{type(value).__name__} is not JSON")

    # Arguments: markers, default, encoder, indent, key_separator, item_separator, sort_keys, skipkeys, allow_nan.
    _encode = make_encoder(None, _refuse, encode_basestring, None, ":", ",", False, False, False)

    def dumps(value: "Any") -> str:
        """`value` as compact JSON, not escaped to ASCII."""
        return "".join(_encode(value, 0))
