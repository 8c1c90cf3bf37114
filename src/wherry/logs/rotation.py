"""How large a log may grow: docker's options max-size, max-file and compress, and what holds when they are not
given."""

from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "kb": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "g": 1 << 30, "gb": 1 << 30}
_UNITS |= {"t": 1 << 40, "tb": 1 << 40}
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


class Rotation:
    """How large a log file may grow (`max_size` bytes, 0: without bound), how many files there may be, and whether all
    but the newest are compressed."""

    __slots__ = ("compress", "max_file", "max_size")

    def __init__(self, max_size: int, max_file: int, compress: bool = False) -> None:
        self.max_size = max_size
        self.max_file = max_file
        self.compress = compress


DEFAULTS = {
    # A json-file log without options has no bound on dockerd; here none grows for ever unless it is told to.
    "json-file": Rotation(50 << 20, 5, True),
    "local": Rotation(20 << 20, 5, True),
}
# What a log was read for and is kept by, when another driver delivers it (docker's "dual logging").
CACHE = DEFAULTS["local"]
# cache-disabled: kept only until it is delivered.
SPOOL = Rotation(4 << 20, 2)


def rotation(driver: str, options: "Mapping[str, str]") -> Rotation:
    """The rotation of a driver that writes files; InvalidArgument when an option is malformed.

    Without max-size a default bound; max-size=-1: none. With max-size or max-file json-file's others are docker's: one
    file, not compressed.
    """
    default = DEFAULTS[driver]
    if driver == "json-file" and ("max-size" in options or "max-file" in options):
        default = Rotation(default.max_size, 1)
    return _rotation(options, default, "")


def cache_rotation(options: "Mapping[str, str]") -> Rotation:
    """The same from cache-max-size, cache-max-file and cache-compress."""
    return _rotation(options, CACHE, "cache-")


def _rotation(options: "Mapping[str, str]", default: Rotation, prefix: str) -> Rotation:
    size = options.get(prefix + "max-size")
    max_size = default.max_size if size is None else 0 if size == "-1" else parse_size(prefix + "max-size", size)
    text = options.get(prefix + "max-file", str(default.max_file))
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise InvalidArgument(f"{prefix}max-file must be a number of at least 1, not {text!r}", object="max-file")
    if int(text) > 1 and not max_size and (prefix + "max-file") in options:
        hint = f"add {prefix}max-size=10m"
        raise InvalidArgument(f"{prefix}max-file cannot be set without {prefix}max-size", object="max-file", hint=hint)
    max_file = int(text) if max_size else 1
    compress = default.compress and max_file > 1
    if prefix + "compress" in options:
        compress = parse_bool(prefix + "compress", options[prefix + "compress"])
        if compress and max_file == 1:
            raise InvalidArgument(
                f"{prefix}compress cannot be true when {prefix}max-file is less than 2 or unset",
                object=prefix + "compress",
                hint=f"add {prefix}max-size=10m and {prefix}max-file=3",
            )
    return Rotation(max_size, max_file, compress)


def parse_size(name: str, text: str) -> int:
    """Bytes of "10m", "1.5gb", ...; InvalidArgument naming the option."""
    number = text.rstrip("bBkKmMgGtTiI ")
    unit = _UNITS.get(text[len(number) :].strip().lower().replace("i", ""))
    whole, _, fraction = number.partition(".")
    digits = whole.isdecimal() and (fraction.isdecimal() or "." not in number)
    if unit is None or not digits or len(number) > 15 or float(number) * unit < 1:
        raise InvalidArgument(f"invalid {name} {text!r}", object=name, hint="a number with k, m or g: 10m")
    return int(float(number) * unit)


def parse_bool(name: str, text: str) -> bool:
    """As Go's strconv.ParseBool; InvalidArgument naming the option."""
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise InvalidArgument(f"invalid value for {name}: {text!r}", object=name, hint="true or false")
