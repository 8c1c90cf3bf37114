"""--mount, --volume and --tmpfs as docker reads them."""

from __future__ import annotations

from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FLAGS = ("readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src", "idmap")
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")
_RECURSIVE = {
    "enabled": {},
    "disabled": {"NonRecursive": True},
    "writable": {"ReadOnlyNonRecursive": True},
    "readonly": {"ReadOnlyForceRecursive": True},
}
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def csv_fields(text: str) -> list[str]:
    """One record of comma-separated values, with "quoted, fields"."""
    fields: list[str] = []
    at = 0
    while True:
        if text[at : at + 1] == '"':
            value = ""
            at += 1
            while True:
                end = text.find('"', at)
                if end < 0:
                    raise InvalidArgument('parse error on line 1, column 1: extraneous or missing " in quoted-field')
                value += text[at:end]
                at = end + 1
                if text[at : at + 1] != '"':
                    break
                value += '"'
                at += 1
        else:
            end = text.find(",", at)
            end = len(text) if end < 0 else end
            value, at = text[at:end], end
            if '"' in value:
                raise InvalidArgument(f'parse error on line 1, column {at + 1}: bare " in non-quoted-field')
        fields.append(value)
        if at >= len(text):
            return fields
        at += 1


def absolute(path: str) -> str:
    """A path that begins with `.`, from the root."""
    import posix
    import posixpath

    return posixpath.normpath(posixpath.join(posix.getcwd(), path))


def mount(text: str) -> dict[str, Any]:
    """The value of --mount. Raises InvalidArgument in docker's words."""
    if not text.strip():
        raise InvalidArgument("EOF")
    result: dict[str, Any] = {"Type": "volume"}
    groups: dict[str, dict[str, Any]] = {"bind": {}, "volume": {}, "image": {}, "tmpfs": {}}
    driver: dict[str, Any] = {}
    for field in csv_fields(text):
        name, equals, value = field.partition("=")
        key = name.lower()
        if not equals:
            if key not in _FLAGS:
                raise InvalidArgument(f"invalid field '{field}' must be a key=value pair")
            value = "true"
        _set(result, groups, driver, _ALIASES.get(key, key), value, (name, field))
    if driver:
        groups["volume"]["DriverConfig"] = driver
    if groups["volume"]:
        groups["volume"].setdefault("DriverConfig", {})
    if not result.get("ReadOnly", True):
        del result["ReadOnly"]
    _finish(result, groups)
    return result


def _set(
    result: dict[str, Any],
    groups: dict[str, dict[str, Any]],
    driver: dict[str, Any],
    key: str,
    value: str,
    said: tuple[str, str],
) -> None:
    bind, volume, tmpfs = groups["bind"], groups["volume"], groups["tmpfs"]
    if key == "type":
        result["Type"] = value.lower()
    elif key == "source":
        result["Source"] = absolute(value) if value == "." or value.startswith("./") else value
    elif key == "target":
        result["Target"] = value
    elif key == "consistency":
        result["Consistency"] = value.lower()
    elif key == "readonly":
        result["ReadOnly"] = _boolean(said[0], value)
    elif key == "bind-propagation":
        bind["Propagation"] = value.lower()
    elif key == "bind-nonrecursive":
        bind["NonRecursive"] = _boolean(said[0], value)
    elif key == "bind-create-src":
        bind["CreateMountpoint"] = _boolean(said[0], value)
    elif key == "idmap":
        bind["IDMap"] = "auto" if value == "true" else value
    elif key == "bind-recursive":
        if value not in _RECURSIVE:
            raise InvalidArgument(
                f'invalid value for {said[0]}: {value} (must be "enabled", "disabled", "writable", or "readonly")'
            )
        bind.update(_RECURSIVE[value])
    elif key == "volume-subpath":
        volume["Subpath"] = value
    elif key == "volume-nocopy":
        volume["NoCopy"] = _boolean(said[0], value)
    elif key == "volume-label":
        _pair(volume.setdefault("Labels", {}), value)
    elif key == "volume-driver":
        driver["Name"] = value
    elif key == "volume-opt":
        _pair(driver.setdefault("Options", {}), value)
    elif key == "image-subpath":
        groups["image"]["Subpath"] = value
    elif key == "tmpfs-size":
        tmpfs["SizeBytes"] = _size(said[0], value)
    elif key == "tmpfs-mode":
        try:
            tmpfs["Mode"] = int(value, 8)
        except ValueError:
            raise InvalidArgument(f"invalid value for {said[0]}: {value}") from None
    else:
        raise InvalidArgument(f"unexpected key '{said[0]}' in '{said[1]}'")


def _finish(result: dict[str, Any], groups: dict[str, dict[str, Any]]) -> None:
    kind = result["Type"]
    if not kind:
        raise InvalidArgument("type is required")
    if not result.get("Target"):
        raise InvalidArgument("target is required")
    for group, name in (
        ("volume", "VolumeOptions"),
        ("image", "ImageOptions"),
        ("bind", "BindOptions"),
        ("tmpfs", "TmpfsOptions"),
    ):
        options = groups[group]
        if options and kind != group:
            raise InvalidArgument(f"cannot mix '{group}-*' options with mount type '{kind}'")
        if options:
            result[name] = {key: value for key, value in options.items() if value or key == "DriverConfig"}
    bind = groups["bind"]
    if bind.get("ReadOnlyNonRecursive") and not result.get("ReadOnly"):
        raise InvalidArgument("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
    if bind.get("ReadOnlyForceRecursive"):
        if not result.get("ReadOnly"):
            raise InvalidArgument("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
        if bind.get("Propagation") != "rprivate":
            raise InvalidArgument(
                "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction"
            )


def _boolean(name: str, value: str) -> bool:
    if value.lower() in _TRUE and value in (value.lower(), value.upper(), value.title()):
        return True
    if value.lower() in _FALSE and value in (value.lower(), value.upper(), value.title()):
        return False
    raise InvalidArgument(f"invalid value for {name}: {value}")


def _pair(target: dict[str, str], text: str) -> None:
    name, _, value = text.partition("=")
    target[name] = value


def _size(name: str, value: str) -> int:
    from wherry.cli.units import ram_bytes

    try:
        return ram_bytes(value)
    except InvalidArgument:
        raise InvalidArgument(f"invalid value for {name}: {value}") from None


def volumes(specs: list[str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """--volume flags as (HostConfig.Binds, Config.Volumes)."""
    binds: list[str] = []
    anonymous: dict[str, dict[str, Any]] = {}
    for spec in specs:
        source = _source(spec)
        if not source:
            anonymous[spec] = {}
        elif source.startswith("."):
            binds.append(f"{absolute(source)}:{spec.partition(':')[2]}")
        else:
            binds.append(spec)
    return binds, anonymous


def _source(spec: str) -> str:
    if not spec:
        raise InvalidArgument("invalid empty volume spec")
    parts = spec.split(":")
    if len(spec) <= 2 or len(parts) == 1:
        return ""
    if not parts[0] or not parts[-1]:
        raise InvalidArgument(f"invalid spec: {spec}: empty section between colons")
    if len(parts) > 3:
        raise InvalidArgument(f"invalid spec: {spec}: too many colons")
    return parts[0]
