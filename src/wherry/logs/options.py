"""What a log driver may be told: every option by its name and its value, checked before anything is made.

Names and limits are dockerd's (docker.com, "Configure logging drivers", and what dockerd 28.5 answers). A driver that
is none of ours is a plugin's name; what it may be told is its own matter.
"""

import os
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from urllib.parse import urlsplit

from wherry.errors import FailedPrecondition, InvalidArgument, NotFound
from wherry.logs import tag
from wherry.logs.rotation import cache_rotation, parse_bool, parse_size, rotation
from wherry.plugins import discover

Check = Callable[[str, str], object]
FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *("", "", "", ""),
    *(f"local{number}" for number in range(8)),
)
_EXTRAS = {"awslogs": "boto3", "gcplogs": "google.cloud.logging"}
_DURATION = re.compile(r"(?:\d+(?:\.\d*)?(?:ns|us|µs|ms|s|m|h))+|0")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def check_options(driver: str, options: Mapping[str, str]) -> None:
    """Raise what is wrong with a driver's name or its options."""
    _check_general(options)
    own = {name: value for name, value in options.items() if name not in _GENERAL}
    if driver not in _DRIVERS:
        _check_plugin(driver)
        return
    known = _DRIVERS[driver]
    for name, value in own.items():
        if name not in known:
            raise InvalidArgument(f"unknown log opt '{name}' for {driver} log driver", object=name)
        known[name](name, value)
    _check_together(driver, options)
    library = _EXTRAS.get(driver)
    if library is not None and not _installed(library):
        raise FailedPrecondition(
            f"log driver {driver} needs the Python library {library}, which is not installed",
            object=driver,
            hint=f"pip install 'wherry[{driver}]'",
        )


def duration(name: str, text: str) -> float:
    """Seconds of a Go duration ("1m30s"); InvalidArgument naming the option."""
    if not _DURATION.fullmatch(text):
        raise InvalidArgument(f"{name}: {text!r} is no duration", object=name, hint="as in 500ms, 10s or 1m30s")
    return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"([\d.]+)(ns|us|µs|ms|s|m|h)", text))


def address(name: str, text: str, schemes: tuple[str, ...], port: int) -> tuple[str, str, int]:
    """(scheme, host or path, port) of an address; InvalidArgument naming the option."""
    parts = urlsplit(text)
    try:
        found = parts.port or port
    except ValueError:
        raise InvalidArgument(f"{name}: {text!r} has no usable port", object=name) from None
    if parts.scheme not in schemes:
        raise InvalidArgument(
            f"{name} should be in form proto://address, got {text}",
            object=name,
            hint=f"one of {', '.join(scheme + '://' for scheme in schemes)}",
        )
    if parts.scheme.startswith("unix"):
        path = parts.netloc + parts.path
        if not path.startswith("/"):
            raise InvalidArgument(f"{name}: {text!r} names no absolute path", object=name)
        return parts.scheme, path, 0
    if not parts.hostname or not found or parts.path not in ("", "/"):
        raise InvalidArgument(f"{name}: {text!r} must be of the form {parts.scheme}://host:port", object=name)
    return parts.scheme, parts.hostname, found


def _check_general(options: Mapping[str, str]) -> None:
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {mode}", object="mode")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidArgument(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'", object="max-buffer-size"
            )
        parse_size("max-buffer-size", options["max-buffer-size"])
    if "cache-disabled" in options:
        parse_bool("cache-disabled", options["cache-disabled"])
    cache_rotation(options)


def _check_plugin(driver: str) -> None:
    try:
        discover(driver)
    except NotFound as error:
        raise InvalidArgument(f"error looking up logging plugin {driver}: {error.message}", object=driver) from None


def _check_together(driver: str, options: Mapping[str, str]) -> None:
    if driver in ("json-file", "local"):
        rotation(driver, options)
    required = {"gelf": ("gelf-address",), "splunk": ("splunk-url", "splunk-token"), "awslogs": ("awslogs-group",)}
    for name in required.get(driver, ()):
        if not options.get(name):
            raise InvalidArgument(f"{driver}: {name} is expected", object=name, hint=f"add --log-opt {name}=...")
    if driver == "gelf":
        _check_gelf(options)
    elif driver == "awslogs":
        _check_awslogs(options)
    elif driver == "syslog" and not options.get("syslog-address", "").startswith("tcp+tls:"):
        _refuse_any(options, "syslog-tls-", "is only for syslog-address=tcp+tls://")


def _check_gelf(options: Mapping[str, str]) -> None:
    if options["gelf-address"].startswith("tcp:"):
        _refuse_any(options, "gelf-compression-", "compression is only supported on UDP")
    else:
        _refuse_any(options, "gelf-tcp-", "is only for gelf-address=tcp://")


def _check_awslogs(options: Mapping[str, str]) -> None:
    region = options.get("awslogs-region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region:
        raise InvalidArgument("awslogs: awslogs-region is expected", object="awslogs-region")
    if "awslogs-datetime-format" in options and "awslogs-multiline-pattern" in options:
        raise InvalidArgument(
            "you cannot configure log opt 'awslogs-datetime-format' and 'awslogs-multiline-pattern' at the same time"
        )
    if options.get("awslogs-format") and (
        "awslogs-datetime-format" in options or "awslogs-multiline-pattern" in options
    ):
        raise InvalidArgument("awslogs-format cannot be used with awslogs-datetime-format or awslogs-multiline-pattern")


def _refuse_any(options: Mapping[str, str], prefix: str, why: str) -> None:
    for name in options:
        if name.startswith(prefix):
            raise InvalidArgument(f"{name}: {why}", object=name)


def _installed(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:
        return False


# Checks of one value


def _any(name: str, text: str) -> None:
    """Every text will do."""


def _regex(name: str, text: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise InvalidArgument(f"{name}: {text!r} is no regular expression: {error}", object=name) from None


def _tag(name: str, text: str) -> None:
    tag.check(text)


def _whole(low: int, high: int) -> Check:
    def check(name: str, text: str) -> None:
        if not re.fullmatch(r"-?\d{1,18}", text) or not low <= int(text) <= high:
            raise InvalidArgument(f"{name}: {text!r} must be a number from {low} to {high}", object=name)

    return check


def _one_of(*words: str) -> Check:
    def check(name: str, text: str) -> None:
        if text not in words:
            raise InvalidArgument(f"{name}: {text!r} is unknown", object=name, hint=f"one of {', '.join(words)}")

    return check


def _address(schemes: tuple[str, ...], port: int, plain: bool = False) -> Check:
    def check(name: str, text: str) -> None:
        address(name, f"tcp://{text}" if plain and "://" not in text else text, schemes, port)

    return check


def _between(low: float, high: float) -> Check:
    def check(name: str, text: str) -> None:
        if not low <= duration(name, text) <= high:
            raise InvalidArgument(f"{name}: {text!r} must be between {low:g}s and {high:g}s", object=name)

    return check


def _facility(name: str, text: str) -> None:
    if not (text in FACILITIES and text) and not (text.isdecimal() and int(text) < 24):
        raise InvalidArgument("invalid syslog facility", object=text, hint="a name (daemon, local0...) or 0 to 23")


def _file(name: str, text: str) -> None:
    if not os.path.isfile(text):
        raise InvalidArgument(f"{name}: there is no file {text}", object=name)


def _url(name: str, text: str) -> None:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise InvalidArgument(f"splunk: expected format scheme://dns_name_or_ip:port for {name}", object=name)


_NUMBER = _whole(1, 1 << 62)
_GENERAL = ("mode", "max-buffer-size", "cache-disabled", "cache-max-file", "cache-max-size", "cache-compress")
_CHOICE: dict[str, Check] = {"env": _any, "env-regex": _regex, "labels": _any, "labels-regex": _regex}
_TAGGED: dict[str, Check] = {**_CHOICE, "tag": _tag}
_ROTATION: dict[str, Check] = {"max-size": _any, "max-file": _any, "compress": _any}
_DRIVERS: dict[str, dict[str, Check]] = {
    "none": {},
    "json-file": {**_ROTATION, **_TAGGED},
    "local": {**_ROTATION},
    "journald": _TAGGED,
    "syslog": {
        **_TAGGED,
        "syslog-address": _address(("tcp", "udp", "tcp+tls", "unix", "unixgram"), 514),
        "syslog-facility": _facility,
        "syslog-format": _one_of("rfc3164", "rfc5424", "rfc5424micro"),
        "syslog-tls-ca-cert": _file,
        "syslog-tls-cert": _file,
        "syslog-tls-key": _file,
        "syslog-tls-skip-verify": _any,
    },
    "fluentd": {
        **_TAGGED,
        "fluentd-address": _address(("tcp", "tls", "unix"), 24224, plain=True),
        "fluentd-async": parse_bool,
        "fluentd-async-reconnect-interval": _between(0.1, 10),
        "fluentd-buffer-limit": parse_size,
        "fluentd-max-retries": _whole(0, 1 << 32),
        "fluentd-request-ack": parse_bool,
        "fluentd-retry-wait": _between(0, 3600),
        "fluentd-sub-second-precision": parse_bool,
        "fluentd-write-timeout": _between(0, 3600),
    },
    "gelf": {
        **_TAGGED,
        "gelf-address": _address(("udp", "tcp"), 0),
        "gelf-compression-level": _whole(-1, 9),
        "gelf-compression-type": _one_of("gzip", "zlib", "none"),
        "gelf-tcp-max-reconnect": _whole(0, 1 << 31),
        "gelf-tcp-reconnect-delay": _whole(0, 1 << 31),
    },
    "splunk": {
        **_TAGGED,
        "splunk-url": _url,
        "splunk-token": _any,
        "splunk-source": _any,
        "splunk-sourcetype": _any,
        "splunk-index": _any,
        "splunk-capath": _file,
        "splunk-caname": _any,
        "splunk-insecureskipverify": parse_bool,
        "splunk-format": _one_of("inline", "json", "raw"),
        "splunk-verify-connection": parse_bool,
        "splunk-gzip": parse_bool,
        "splunk-gzip-level": _whole(-1, 9),
        "splunk-index-acknowledgment": parse_bool,
    },
    "awslogs": {
        "tag": _tag,
        "awslogs-group": _any,
        "awslogs-stream": _any,
        "awslogs-region": _any,
        "awslogs-endpoint": _any,
        "awslogs-create-group": parse_bool,
        "awslogs-credentials-endpoint": _any,
        "awslogs-datetime-format": _any,
        "awslogs-multiline-pattern": _regex,
        "awslogs-force-flush-interval-seconds": _NUMBER,
        "awslogs-max-buffered-events": _NUMBER,
        "awslogs-format": _one_of("json/emf"),
    },
    "gcplogs": {
        **_CHOICE,
        "gcp-project": _any,
        "gcp-log-cmd": parse_bool,
        "gcp-meta-zone": _any,
        "gcp-meta-name": _any,
        "gcp-meta-id": _any,
    },
}
DRIVERS = tuple(sorted(_DRIVERS))
"""The names of those that are built in."""
