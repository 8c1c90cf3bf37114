"""Container Device Interface documents (CNCF CDI 1.1): what a vendor says a container needs to use a device.

document = parse(json.loads(text))
document.kind                       # "vendor.com/class"
document.devices["gpu0"]            # Edits for that device; `document.edits` for any of them
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wherry.errors import InvalidArgument

_VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")
_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_VENDOR = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")
_EDITS = {"env", "deviceNodes", "mounts", "hooks", "additionalGids", "intelRdt", "netDevices"}


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A device to be made at `path`; what is None is as `host_path` has it."""

    path: str
    host_path: str
    kind: str = ""
    major: int | None = None
    minor: int | None = None
    mode: int | None = None
    permissions: str = "rwm"
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class Hook:
    """An OCI hook and the point at which it runs."""

    name: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Edits:
    """What is added to a container's configuration; `mounts` as the runtime specification has them."""

    env: tuple[str, ...] = ()
    devices: tuple[DeviceNode, ...] = ()
    mounts: tuple[Mapping[str, Any], ...] = ()
    hooks: tuple[Hook, ...] = ()
    gids: tuple[int, ...] = ()

    def plus(self, other: "Edits") -> "Edits":
        """Both, in order."""
        return Edits(
            self.env + other.env,
            self.devices + other.devices,
            self.mounts + other.mounts,
            self.hooks + other.hooks,
            self.gids + other.gids,
        )


@dataclass(frozen=True, slots=True)
class Document:
    """One CDI file."""

    kind: str
    edits: Edits
    devices: Mapping[str, Edits]


def split_name(text: str) -> tuple[str, str] | None:
    """("vendor.com/class", "device") of a qualified device name, None when it is none."""
    kind, equals, name = text.partition("=")
    return (kind, name) if equals and _is_kind(kind) and _NAME.fullmatch(name) else None


def _is_kind(kind: str) -> bool:
    vendor, slash, family = kind.partition("/")
    fits = len(vendor) <= 253 and len(family) <= 63 and _VENDOR.fullmatch(vendor) and _VENDOR.fullmatch(family)
    return bool(slash and fits)


def parse(value: object) -> Document:
    """InvalidArgument, naming the place, for what is not a CDI document or needs what Wherry cannot do."""
    top = _object(value, "the document", {"cdiVersion", "kind", "annotations", "devices", "containerEdits"})
    version = _text(top, "cdiVersion", "").removeprefix("v")
    if version not in _VERSIONS:
        raise InvalidArgument(f"CDI version {version!r} is not known", hint=f"up to {_VERSIONS[-1]}")
    kind = _text(top, "kind", "")
    if not _is_kind(kind):
        raise InvalidArgument(f"CDI kind {kind!r} is not vendor/class", object=kind)
    devices: dict[str, Edits] = {}
    for index, entry in enumerate(_list(top, "devices", "")):
        path = f"devices[{index}]"
        device = _object(entry, path, {"name", "annotations", "containerEdits"})
        name = _text(device, "name", f"{path}.")
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f"CDI {path}: {name!r} is no device name", object=name)
        if name in devices:
            raise InvalidArgument(f"CDI {path}: {name!r} is there twice", object=name)
        devices[name] = _edits(device.get("containerEdits"), f"{path}.containerEdits")
    if not devices:
        raise InvalidArgument(f"CDI {kind}: no devices", object=kind)
    return Document(kind, _edits(top.get("containerEdits"), "containerEdits"), devices)


def _edits(value: object, path: str) -> Edits:
    if value is None:
        return Edits()
    found = _object(value, path, _EDITS)
    for name in ("intelRdt", "netDevices"):
        if found.get(name):
            raise InvalidArgument(f"CDI {path}.{name} is not supported", object=name)
    prefix = f"{path}."
    env = _texts(found, "env", prefix)
    if any("=" not in item or item.startswith("=") for item in env):
        raise InvalidArgument(f"CDI {path}.env: NAME=VALUE is needed", object=path)
    gids = tuple(_number(gid, f"{prefix}additionalGids") for gid in _list(found, "additionalGids", prefix))
    return Edits(
        env=env,
        devices=tuple(_node(entry, f"{prefix}deviceNodes") for entry in _list(found, "deviceNodes", prefix)),
        mounts=tuple(_mount(entry, f"{prefix}mounts") for entry in _list(found, "mounts", prefix)),
        hooks=tuple(_hook(entry, f"{prefix}hooks") for entry in _list(found, "hooks", prefix)),
        gids=tuple(gid for gid in gids if gid),
    )


_NODE_KEYS = {"path", "hostPath", "type", "major", "minor", "fileMode", "permissions", "uid", "gid"}


def _node(value: object, path: str) -> DeviceNode:
    found = _object(value, path, _NODE_KEYS)
    target = _absolute(found, "path", path)
    permissions = found.get("permissions") or "rwm"
    if permissions == "none":
        permissions = ""
    if not isinstance(permissions, str) or set(permissions) - set("rwm"):
        raise InvalidArgument(f"CDI {path}.permissions: {permissions!r} are not out of rwm", object=target)
    kind = found.get("type") or ""
    if kind not in ("", "b", "c", "u", "p"):
        raise InvalidArgument(f"CDI {path}.type: {kind!r} is no type of device", object=target)
    numbers = [None if found.get(key) is None else _number(found[key], f"{path}.{key}") for key in _NUMBERS]
    host = _absolute(found, "hostPath", path) if found.get("hostPath") else target
    return DeviceNode(target, host, kind, numbers[0], numbers[1], numbers[2], permissions, numbers[3], numbers[4])


_NUMBERS = ("major", "minor", "fileMode", "uid", "gid")


def _mount(value: object, path: str) -> dict[str, Any]:
    found = _object(value, path, {"hostPath", "containerPath", "type", "options"})
    options = list(_texts(found, "options", f"{path}."))
    kind = found.get("type") or ""
    if not isinstance(kind, str):
        raise InvalidArgument(f"CDI {path}.type must be a string")
    if kind in ("", "bind", "none") and not {"bind", "rbind"} & set(options):
        options.insert(0, "rbind")
    source = _text(found, "hostPath", f"{path}.")
    target = _absolute(found, "containerPath", path)
    return {"destination": target, "source": source, "type": kind or "bind", "options": options}


def _hook(value: object, path: str) -> Hook:
    found = _object(value, path, {"hookName", "path", "args", "env", "timeout"})
    name = _text(found, "hookName", f"{path}.")
    if name not in _HOOKS:
        raise InvalidArgument(f"CDI {path}: {name!r} is no hook", object=name, hint=", ".join(_HOOKS))
    document: dict[str, Any] = {"path": _absolute(found, "path", path)}
    for key in ("args", "env"):
        if found.get(key):
            document[key] = list(_texts(found, key, f"{path}."))
    if found.get("timeout") is not None:
        document["timeout"] = _number(found["timeout"], f"{path}.timeout")
    return Hook(name, document)


def _object(value: object, path: str, known: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"CDI: {path} must be an object")
    unknown = sorted(str(key) for key in value if key not in known)
    if unknown:
        raise InvalidArgument(f"CDI: {path} holds what is not known: {', '.join(unknown)}")
    return value


def _list(holder: Mapping[str, Any], key: str, path: str) -> list[Any]:
    found = holder.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise InvalidArgument(f"CDI: {path}{key} must be a list")
    return found


def _text(holder: Mapping[str, Any], key: str, path: str) -> str:
    found = holder.get(key)
    if not isinstance(found, str) or not found or "\0" in found:
        raise InvalidArgument(f"CDI: {path}{key} must be a string")
    return found


def _texts(holder: Mapping[str, Any], key: str, path: str) -> tuple[str, ...]:
    found = _list(holder, key, path)
    if any(not isinstance(item, str) or "\0" in item for item in found):
        raise InvalidArgument(f"CDI: {path}{key} must be a list of strings")
    return tuple(found)


def _absolute(holder: Mapping[str, Any], key: str, path: str) -> str:
    found = _text(holder, key, f"{path}.")
    if not found.startswith("/"):
        raise InvalidArgument(f"CDI: {path}.{key} must be absolute, not {found!r}", object=found)
    return found


def _number(value: object, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise InvalidArgument(f"CDI: {path} must be a number")
    return value
