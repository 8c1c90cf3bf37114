"""Values of single flags of `create` and `run`, checked as docker checks them while it parses the command line."""

from __future__ import annotations

import posix

from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_SYSCTL_NAMES = (
    "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni "
    "kernel.shm_rmid_forced"
)
_SYSCTLS = frozenset(_SYSCTL_NAMES.split())
_SYSCTL_PREFIXES = ("net.", "fs.mqueue.")
_ULIMIT_NAMES = "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
ULIMITS = frozenset(_ULIMIT_NAMES.split())


def attach(text: str) -> str:
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise InvalidArgument("valid streams are STDIN, STDOUT and STDERR")
    return text.lower()


def env(text: str) -> str:
    """NAME=value; NAME alone takes the value it has here, or, unset here, is left to the engine, which removes it."""
    name, equals, _ = text.partition("=")
    if not name:
        raise InvalidArgument(f"invalid environment variable: {text}")
    if equals:
        return text
    value = posix.environ.get(name.encode())
    return text if value is None else f"{name}={value.decode('utf-8', 'surrogateescape')}"


def label(text: str) -> str:
    if not text.partition("=")[0]:
        raise InvalidArgument(f"invalid label '{text}': empty name")
    return text


def link(text: str) -> str:
    if not text:
        raise InvalidArgument("empty string specified for links")
    if text.count(":") > 1:
        raise InvalidArgument(f"bad format for links: {text}")
    return text


def is_ip(text: str) -> bool:
    import _socket

    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, text)
        except OSError:
            continue
        return True
    return False


def ip_address(text: str) -> str:
    text = text.strip()
    if not is_ip(text):
        raise InvalidArgument(f"IP address is not correctly formatted: {text}")
    return text


def extra_host(text: str) -> str:
    name, found, address = text.partition("=")
    if not found:
        name, found, address = text.partition(":")
    if not found or not name:
        raise InvalidArgument(f'bad format for add-host: "{text}"')
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address != "host-gateway" and not is_ip(address):
        raise InvalidArgument(f'invalid IP address in add-host: "{address}"')
    return f"{name}:{address}"


def dns_search(text: str) -> str:
    text = text.strip()
    if text == ".":
        return text
    parts = text.removesuffix(".").split(".")
    good = all(
        part
        and len(part) < 64
        and part[0] not in "-_"
        and part[-1] not in "-_"
        and part.replace("-", "").replace("_", "").isalnum()
        for part in parts
    )
    if not good or not any(char.isalpha() for char in text):
        raise InvalidArgument(f"{text} is not a valid domain")
    return text


def sysctl(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or (name not in _SYSCTLS and not name.startswith(_SYSCTL_PREFIXES)):
        raise InvalidArgument(f"sysctl '{text}' is not allowed")
    return name, value


def ulimit(text: str) -> dict[str, Any]:
    """name=soft[:hard]; -1 is unlimited."""
    name, equals, values = text.partition("=")
    if not equals or not values:
        raise InvalidArgument(f"invalid ulimit argument: {text}")
    if name not in ULIMITS:
        raise InvalidArgument(f"invalid ulimit type: {name}")
    soft, colon, hard = values.partition(":")
    numbers = []
    for number in (soft, hard) if colon else (soft,):
        try:
            numbers.append(int(number))
        except ValueError:
            raise InvalidArgument(f'strconv.ParseInt: parsing "{number}": invalid syntax') from None
    first, last = numbers[0], numbers[-1]
    if last != -1 and (first == -1 or first > last):
        raise InvalidArgument(
            f"ulimit soft limit must be less than or equal to hard limit: {'-1' if first == -1 else first} > {last}"
        )
    return {"Name": name, "Hard": last, "Soft": first}


def weight_device(text: str) -> dict[str, Any]:
    path, number = _device_value(text)
    if not number.isdigit():
        raise InvalidArgument(f"invalid weight for device: {text}")
    if number != "0" and not 10 <= int(number) <= 1000:
        raise InvalidArgument(f"invalid weight for device: {text}")
    return {"Path": path, "Weight": int(number)}


def rate_bps(text: str) -> dict[str, Any]:
    from wherry.cli.units import ram_bytes

    path, number = _device_value(text)
    try:
        rate = ram_bytes(number)
    except InvalidArgument:
        raise InvalidArgument(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]."
            " Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        ) from None
    return {"Path": path, "Rate": rate}


def rate_iops(text: str) -> dict[str, Any]:
    path, number = _device_value(text)
    if not number.isdigit():
        raise InvalidArgument(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>."
            " Number must be a positive integer"
        )
    return {"Path": path, "Rate": int(number)}


def _device_value(text: str) -> tuple[str, str]:
    path, colon, value = text.partition(":")
    if not colon or not path:
        raise InvalidArgument(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise InvalidArgument(f"bad format for device path: {text}")
    return path, value


def device(text: str) -> dict[str, str]:
    """source[:target][:permissions] of --device."""
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise InvalidArgument(f"bad format for path: {text}")
    source, target, permissions = parts[0], "", "rwm"
    if len(parts) == 2 and _device_mode(parts[1]):
        permissions = parts[1]
    elif len(parts) > 1:
        target = parts[1]
    if len(parts) == 3:
        permissions = parts[2]
        if not _device_mode(permissions):
            raise InvalidArgument(f"bad mode specified: {permissions}")
    if not (target or source).startswith("/"):
        raise InvalidArgument(f"{target or source} is not an absolute path")
    return {"PathOnHost": source, "PathInContainer": target or source, "CgroupPermissions": permissions}


def _device_mode(text: str) -> bool:
    return bool(text) and len(set(text)) == len(text) and set(text) <= set("rwm")


def device_cgroup_rule(text: str) -> str:
    parts = text.split(" ")
    numbers = parts[1].split(":") if len(parts) == 3 else []
    good = (
        len(numbers) == 2
        and parts[0] in ("a", "b", "c")
        and all(number == "*" or number.isdigit() for number in numbers)
        and 1 <= len(parts[2]) <= 3
        and set(parts[2]) <= set("rwm")
    )
    if not good:
        raise InvalidArgument(f"invalid device cgroup format '{text}'")
    return text


def expand_files(files: Iterable[str], values: Iterable[str], use_environment: bool) -> list[str]:
    """The lines of env or label files, then the values of the flags themselves."""
    lines: list[str] = []
    for path in files:
        try:
            lines += _file_lines(path, use_environment)
        except OSError as error:
            raise InvalidArgument(f"open {path}: {(error.strerror or '').lower()}") from None
    return [*lines, *values]


def _file_lines(path: str, use_environment: bool) -> list[str]:
    lines = []
    with open(path, "rb") as file:
        data = file.read().removeprefix(b"\xef\xbb\xbf")
    for number, raw in enumerate(data.split(b"\n"), 1):
        try:
            line = raw.removesuffix(b"\r").decode().lstrip()
        except UnicodeDecodeError:
            raise InvalidArgument(f"invalid env file ({path}): invalid utf8 bytes at line {number}: {raw!r}") from None
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if any(char.isspace() for char in name):
            raise InvalidArgument(f"invalid env file ({path}): variable '{name}' contains whitespaces")
        if not name:
            raise InvalidArgument(f"invalid env file ({path}): no variable name on line '{line}'")
        if equals:
            lines.append(f"{name}={value}")
        elif use_environment and (here := posix.environ.get(name.encode())) is not None:
            lines.append(f"{name}={here.decode('utf-8', 'surrogateescape')}")
    return lines


def as_map(pairs: Iterable[str]) -> dict[str, str]:
    """NAME[=value] texts as a map."""
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}
