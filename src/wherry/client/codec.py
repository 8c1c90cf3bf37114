"""JSON through the interpreter's C accelerators alone.

The `json` package imports `re`, which imports `enum`: 8 ms, as much as the whole start of the interpreter. The
scanner and the encoder in C that `json` itself uses need none of it. They are not a public interface: where
their shape differs, `json` is used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


class _ScannerOptions:
    strict = False
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _codec() -> tuple[Callable[[str, int], tuple[Any, int]], Callable[..., Any]]:
    try:
        from _json import encode_basestring, make_encoder, make_scanner

        scan: Callable[[str, int], tuple[Any, int]] = make_scanner(_ScannerOptions)  # type: ignore[arg-type]
        encode = make_encoder(None, _refuse, encode_basestring, None, ":", ",", False, False, True)
        if "".join(encode({"a": ["\u20ac", 1]}, 0)) == '{"a":["\u20ac",1]}' and scan("[1]", 0) == ([1], 3):
            return scan, encode
    except (ImportError, TypeError):
        pass
    import json

    decoder = json.JSONDecoder(strict=False)
    encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
    return decoder.raw_decode, lambda value, _level: (encoder.encode(value),)


_scan, _encode = _codec()
_SPACE = " \t\r\n"


def loads(data: bytes | str) -> Any:
    """The value of one JSON text. Raises ValueError."""
    text = data.decode("utf-8", "replace") if isinstance(data, bytes | bytearray) else data
    text = text.strip(_SPACE)
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        raise ValueError("not a JSON text") from None
    if end != len(text):
        raise ValueError(f"text after the JSON value, at character {end}")
    return value


def dumps(value: object) -> str:
    """Compact JSON, characters beyond ASCII as they are."""
    return "".join(_encode(value, 0))


def go_dumps(value: object) -> str:
    """As Go's json.Marshal writes it: <, > and & escaped, the keys of maps as given."""
    return escape(dumps(value))


def escape(text: str) -> str:
    """Go's escapes, over a finished JSON text."""
    if "<" in text or ">" in text or "&" in text:
        # These three can only stand inside strings.
        text = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return text


def indented(value: object, step: str = "    ", margin: str = "") -> str:
    """Over several lines, as Go's json.Indent: empty objects and lists stay on one line."""
    inner = margin + step
    if isinstance(value, dict) and value:
        rows = (f"{inner}{dumps(key)}: {indented(item, step, inner)}" for key, item in value.items())
        return "{\n" + ",\n".join(rows) + f"\n{margin}}}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(inner + indented(item, step, inner) for item in value) + f"\n{margin}]"
    return dumps(value)


def stream(chunks: Iterator[bytes]) -> Iterator[Any]:
    """The values of a stream of JSON texts separated by line ends, as they arrive."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield loads(line)
    if rest.strip():
        yield loads(rest)
