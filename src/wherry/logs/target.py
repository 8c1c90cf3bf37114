"""Where a container's output is to be written."""

from wherry.errors import InvalidArgument, Unimplemented

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DRIVERS = ("json-file", "none")
_KNOWN_DRIVERS = ("awslogs", "fluentd", "gcplogs", "gelf", "journald", "local", "splunk", "syslog")
_OPTIONS = ("max-size", "max-file")
_KNOWN_OPTIONS = ("compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size")
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "kb": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "g": 1 << 30, "gb": 1 << 30}


class LogTarget:
    """A driver ("json-file" or "none"), its file, its options as docker writes them, and what the streams are.

    `stdin_once`: the first attached client that ends its input ends the container's.
    """

    __slots__ = ("driver", "options", "path", "stdin_once", "tty")

    def __init__(
        self, driver: str, path: str, options: "Mapping[str, str]", tty: bool = False, stdin_once: bool = False
    ) -> None:
        self.driver = driver
        self.path = path
        self.options = dict(options)
        self.tty = tty
        self.stdin_once = stdin_once


class Rotation:
    """How large a log file may grow, and how many there may be. `max_size` 0: it grows without bound."""

    __slots__ = ("max_file", "max_size")

    def __init__(self, max_size: int, max_file: int) -> None:
        self.max_size = max_size
        self.max_file = max_file


def check_options(driver: str, options: "Mapping[str, str]") -> None:
    """Raise what is wrong with a driver's name or its options, before anything is made."""
    if driver in _KNOWN_DRIVERS:
        raise Unimplemented(f"log driver {driver!r} is not supported yet", object=driver, hint="use json-file or none")
    if driver not in DRIVERS:
        raise InvalidArgument(f"logger: no log driver named '{driver}' is registered", object=driver)
    for name in options:
        if driver == "json-file" and name in _OPTIONS:
            continue
        if name in _KNOWN_OPTIONS and driver == "json-file":
            raise Unimplemented(f"log option {name!r} of driver {driver} is not supported yet", object=name)
        raise InvalidArgument(f"unknown log opt '{name}' for {driver} log driver", object=name)
    rotation(options)


def rotation(options: "Mapping[str, str]") -> Rotation:
    """The json-file options max-size ("10m", -1 for no bound) and max-file; InvalidArgument when malformed."""
    max_size = _size(options.get("max-size", "-1"))
    text = options.get("max-file", "1")
    if not text.isdecimal() or int(text) < 1:
        raise InvalidArgument(f"max-file must be a number of at least 1, not {text!r}", object="max-file")
    if int(text) > 1 and not max_size:
        raise InvalidArgument("max-file cannot be set without max-size", object="max-file", hint="add max-size=10m")
    return Rotation(max_size, int(text))


def _size(text: str) -> int:
    if text == "-1":
        return 0
    number = text.rstrip("bBkKmMgG")
    unit = _UNITS.get(text[len(number) :].lower())
    if unit is None or not number.isdecimal() or int(number) < 1:
        raise InvalidArgument(f"invalid max-size {text!r}", object="max-size", hint="a number with k, m or g: 10m")
    return int(number) * unit
