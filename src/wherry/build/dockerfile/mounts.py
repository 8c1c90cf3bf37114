"""RUN --mount (reference.md, "RUN --mount")."""

import csv
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from wherry.build.dockerfile.source import suggestion

_TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = ("shared", "private", "locked")
_COMMON = ("type", "target", "dst", "destination")
_KEYS: Mapping[str, tuple[str, ...]] = {
    "bind": (*_COMMON, "source", "src", "from", "rw", "readwrite", "ro", "readonly"),
    "cache": (
        *_COMMON,
        "source",
        "src",
        "from",
        "rw",
        "readwrite",
        "ro",
        "readonly",
        "id",
        "sharing",
        "mode",
        "uid",
        "gid",
    ),
    "tmpfs": (*_COMMON, "size"),
    "secret": (*_COMMON, "source", "src", "id", "env", "required", "mode", "uid", "gid"),
    "ssh": (*_COMMON, "source", "src", "id", "required", "mode", "uid", "gid"),
}
_ALIASES = {
    "dst": "target",
    "destination": "target",
    "src": "source",
    "readwrite": "rw",
    "readonly": "ro",
}
_FLAGS = ("rw", "ro", "required")
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
Expand = Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mount of a RUN step. `origin` is `from=`: a stage, a named context or an image; None: the build context.

    `mode` None: the type's default. `size` in bytes, 0: no limit.
    """

    type: str = "bind"
    target: str = ""
    source: str = ""
    origin: str | None = None
    read_only: bool = True
    id: str = ""
    sharing: str = "shared"
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int = 0
    required: bool = False
    env: str | None = None


def parse_mount(text: str, expand: Expand | None = None) -> Mount:
    """ValueError says what is wrong. Without `expand`, values with variables are taken unchecked."""
    fields = _fields(text)
    values: dict[str, str] = {}
    kind = next((value for name, value in fields if name == "type"), "bind").lower()
    if expand is not None:
        kind = expand(kind).lower()
    if "$" not in kind and kind not in _TYPES:
        raise ValueError(f'unsupported mount type "{kind}"{suggestion(kind, _TYPES)}')
    for name, value in fields:
        known = _KEYS.get(kind, tuple(_ALIASES))
        if name not in known and kind in _KEYS:
            raise ValueError(_unexpected(name, f"{name}={value}", kind))
        name = _ALIASES.get(name, name)
        if name == "from" and "$" in value:
            raise ValueError("'from' doesn't support variable expansion, define alias stage instead")
        values[name] = value if expand is None else expand(value)
    if expand is None and any("$" in value for value in values.values()):
        # Only its shape can be checked before the values are known.
        return Mount(type=kind, target=values.get("target", ""), origin=values.get("from"))
    return _complete(_mount(kind, values))


def _fields(text: str) -> list[tuple[str, str]]:
    if "\n" in text or "\r" in text:
        raise ValueError(f"invalid mount {text!r}: line breaks are not allowed")
    try:
        (row,) = list(csv.reader([text], strict=True)) or [[]]
    except csv.Error as error:
        raise ValueError(f"failed to parse csv mounts: {error}") from None
    fields = []
    for field in row:
        name, equals, value = field.partition("=")
        name = name.lower()
        if not equals and _ALIASES.get(name, name) not in _FLAGS:
            everything = [key for keys in _KEYS.values() for key in keys]
            raise ValueError(f"invalid field '{field}' must be a key=value pair{suggestion(name, everything)}")
        fields.append((name, value if equals else "true"))
    return fields


def _mount(kind: str, values: Mapping[str, str]) -> Mount:
    mount = Mount(type=kind, read_only=kind == "bind")
    if "rw" in values:
        mount = replace(mount, read_only=not _boolean("rw", values["rw"]))
    if "ro" in values:
        mount = replace(mount, read_only=_boolean("ro", values["ro"]))
    sharing = values.get("sharing", "shared").lower()
    if sharing not in _SHARING:
        raise ValueError(f'unsupported sharing value "{sharing}"{suggestion(sharing, _SHARING)}')
    return replace(
        mount,
        target=values.get("target", ""),
        source=values.get("source", ""),
        origin=values.get("from") or None,
        id=values.get("id", ""),
        sharing=sharing,
        mode=_number("mode", values["mode"], 8) if "mode" in values else None,
        uid=_number("uid", values["uid"]) if "uid" in values else None,
        gid=_number("gid", values["gid"]) if "gid" in values else None,
        size=_size(values["size"]) if "size" in values else 0,
        required=_boolean("required", values.get("required", "false")),
        env=values.get("env"),
    )


def _complete(mount: Mount) -> Mount:
    """Checks, and the defaults that depend on other fields."""
    if mount.type == "secret":
        if mount.target == "/":
            raise ValueError('invalid mount target "/"')
        if not mount.id and not mount.source and not mount.target:
            raise ValueError("invalid secret mount. one of source, target required")
        key = mount.id or mount.source or posixpath.basename(mount.target)
        target = mount.target or ("" if mount.env is not None else f"/run/secrets/{posixpath.basename(key)}")
        return replace(mount, id=key, target=target)
    if mount.type == "ssh":
        return replace(mount, id=mount.id or mount.source or "default")
    if not mount.target:
        raise ValueError("missing target" if mount.type != "bind" else "mount target required")
    return replace(mount, id=mount.id or posixpath.normpath(mount.target)) if mount.type == "cache" else mount


def _unexpected(name: str, shown: str, kind: str) -> str:
    near = suggestion(name, _KEYS[kind])
    owners = [other for other, keys in _KEYS.items() if name in keys]
    where = f", it belongs to type={' or type='.join(owners)}" if owners and not near else ""
    return f"unexpected key '{name}' in '{shown}'{near}{where}"


def _boolean(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false", "1", "0", "t", "f"):
        raise ValueError(f"invalid value for {name}: {value}")
    return value.lower() in ("true", "1", "t")


def _number(name: str, value: str, base: int = 10) -> int:
    digits = "01234567" if base == 8 else "0123456789"
    if not value or len(value) > 12 or any(char not in digits for char in value):
        raise ValueError(f"invalid value {value} for {name}")
    return int(value, base)


def _size(value: str) -> int:
    text = value.lower().removesuffix("ib").removesuffix("b")
    digits = text.rstrip("kmgtp")
    unit = text[len(digits) :]
    try:
        if unit not in _UNITS or len(digits) > 20:
            raise ValueError
        size = float(digits)
        if not 0 <= size < 1 << 63:
            raise ValueError
        return int(size * _UNITS[unit])
    except ValueError:
        raise ValueError(f"invalid value for size: {value}") from None
