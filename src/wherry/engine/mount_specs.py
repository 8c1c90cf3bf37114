"""What users write about mounts, as MountPoints: -v, --mount, --tmpfs, --volumes-from and the image's volumes.

Pure parsing: nothing is made. A volume without a name keeps `name` empty and `anonymous` set; the creator names it.
"""

import os
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from wherry.engine.idmaps import AUTO, check_idmap
from wherry.engine.records import MountPoint
from wherry.errors import InvalidArgument
from wherry.spec.docker import ContainerConfig, HostConfig, MountSpec

PROPAGATIONS = frozenset(("private", "rprivate", "shared", "rshared", "slave", "rslave"))
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_TMPFS_FLAGS_TEXT = """
exec noexec suid nosuid dev nodev ro rw sync async dirsync atime noatime diratime nodiratime relatime norelatime
strictatime nostrictatime mand nomand nosymfollow private rprivate shared rshared slave rslave unbindable runbindable
bind rbind remount acl inode64 inode32
"""
_TMPFS_FLAGS = frozenset(_TMPFS_FLAGS_TEXT.split())
_TMPFS_VALUES = frozenset(["size", "nr_blocks", "nr_inodes", "mode", "uid", "gid", "huge", "mpol"])

Lookup = Callable[[str], Sequence[MountPoint]]
"""The mounts of another container by its name; NotFound."""


def parse_mounts(
    config: ContainerConfig, host: HostConfig, image_volumes: Iterable[str], mounts_of: Lookup
) -> tuple[MountPoint, ...]:
    """All mounts of a container, each destination once, in docker's order of precedence."""
    points: dict[str, MountPoint] = {}
    for item in host.volumes_from or ():
        for point in _volumes_from(item, mounts_of):
            points[point.destination] = point
    explicit: set[str] = set()
    for point in (
        *(parse_bind(text, host.volume_driver) for text in host.binds or ()),
        *(_parse_mount(spec) for spec in host.mounts or ()),
    ):
        if point.destination in explicit or point.destination in _tmpfs_destinations(host):
            raise InvalidArgument(f"Duplicate mount point: {point.destination}", object=point.destination)
        explicit.add(point.destination)
        points[point.destination] = point
    for destination, options in (host.tmpfs or {}).items():
        point = _parse_tmpfs(destination, options or "")
        points[point.destination] = point
    for destination in (*(config.volumes or ()), *image_volumes):
        clean = clean_path(destination)
        if clean not in points:
            _check_destination(clean, "volume")
            points[clean] = _anonymous(clean, host.volume_driver)
    return tuple(points.values())


def _tmpfs_destinations(host: HostConfig) -> set[str]:
    return {clean_path(destination) for destination in host.tmpfs or ()}


def _anonymous(destination: str, driver: str) -> MountPoint:
    return MountPoint(type="volume", destination=destination, driver=driver, copy_up=True, anonymous=True)


def _volumes_from(item: str, mounts_of: Lookup) -> list[MountPoint]:
    name, _, mode = item.partition(":")
    if not name:
        raise InvalidArgument("volumes-from specification cannot be an empty string", object=item)
    words = _parse_modes(mode)
    if words.keys() - {"access", "ro", "label"}:
        raise InvalidArgument(f"invalid mode: {mode}", object=item)
    return [
        _but(point, rw=point.rw and "ro" not in words, mode="", anonymous=False, copy_up=False)
        for point in mounts_of(name)
        if point.type in ("bind", "volume")
    ]


def _but(point: MountPoint, **changes: object) -> MountPoint:
    from dataclasses import replace

    return replace(point, **changes)  # type: ignore[arg-type]


def parse_bind(text: str, driver: str) -> MountPoint:
    """One --volume; InvalidArgument with docker's words."""
    parts = text.split(":")
    if len(parts) > 3 or not parts[-1] or not all(parts):
        raise InvalidArgument(f"invalid volume specification: '{text}'", object=text)
    if len(parts) == 1:
        destination = clean_path(parts[0])
        _check_bind(destination, "volume", text)
        return _anonymous(destination, driver)
    source, destination = parts[0], clean_path(parts[1])
    options = _parse_modes(parts[2] if len(parts) == 3 else "")
    is_bind = source.startswith("/")
    _check_bind(destination, "bind" if is_bind else "volume", text)
    shown = parts[2] if len(parts) == 3 else "" if is_bind else "z"
    if is_bind:
        if options.get("nocopy"):
            raise _misplaced(text, "bind", "VolumeOptions")
        return MountPoint(
            type="bind",
            source=posixpath.normpath(source),
            destination=destination,
            mode=shown,
            rw="ro" not in options,
            propagation=options.get("propagation", "rprivate"),
            create_source=True,
            idmap=AUTO if "idmap" in options else "",
        )
    if "propagation" in options or "idmap" in options:
        raise _misplaced(text, "volume", "BindOptions")
    if driver in ("", "local"):
        check_volume_name(source)
    return MountPoint(
        type="volume",
        name=source,
        destination=destination,
        driver=driver,
        mode=shown,
        rw="ro" not in options,
        copy_up="nocopy" not in options,
    )


def _misplaced(text: str, kind: str, field: str) -> InvalidArgument:
    message = f"invalid volume specification: '{text}': invalid mount config for type \"{kind}\": "
    return InvalidArgument(f"{message}field {field} must not be specified", object=text)


def _parse_modes(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in text.split(",") if text else ():
        kind = "propagation" if word in PROPAGATIONS else _KINDS.get(word, "")
        if not kind or kind in found:
            raise InvalidArgument(f"invalid mode: {text}", object=text)
        found[kind] = word
        if word == "ro":
            found["ro"] = word
    return found


_CONSISTENCY = ("consistent", "cached", "delegated")
_KINDS = {
    **dict.fromkeys(("ro", "rw"), "access"),
    **dict.fromkeys(("z", "Z"), "label"),
    **dict.fromkeys(_CONSISTENCY, "consistency"),
    "nocopy": "nocopy",
    "idmap": "idmap",
}


def check_volume_name(name: str) -> None:
    """InvalidArgument with docker's words when `name` cannot be a local volume's."""
    if not _VOLUME_NAME.fullmatch(name):
        raise InvalidArgument(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path',
            object=name,
        )


def clean_path(destination: str) -> str:
    """A destination as it is known: normalised, "" when there is none."""
    clean = posixpath.normpath(destination) if destination else ""
    return "/" + clean.lstrip("/") if clean.startswith("/") else clean


def _check_destination(destination: str, kind: str) -> None:
    if not destination:
        raise InvalidArgument(f'invalid mount config for type "{kind}": field Target must not be empty')
    if not destination.startswith("/"):
        raise InvalidArgument(
            f'invalid mount config for type "{kind}": '
            f"invalid mount path: '{destination}' mount path must be absolute",
            object=destination,
        )
    if destination == "/":
        raise InvalidArgument(
            f"invalid mount config for type \"{kind}\": invalid specification: destination can't be '/'", object="/"
        )


def _check_bind(destination: str, kind: str, text: str) -> None:
    try:
        _check_destination(destination, kind)
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid volume specification: '{text}': {error.message}", object=text) from None


def _parse_mount(spec: MountSpec) -> MountPoint:
    kind = spec.type
    makers = {"bind": _mount_bind, "volume": _mount_volume, "tmpfs": _mount_tmpfs, "image": _mount_image}
    if kind not in makers:
        raise InvalidArgument(f'invalid mount config for type "{kind}": mount type unknown', object=kind)
    for own, name, value in (
        ("bind", "BindOptions", spec.bind_options),
        ("volume", "VolumeOptions", spec.volume_options),
        ("tmpfs", "TmpfsOptions", spec.tmpfs_options),
        ("image", "ImageOptions", spec.image_options),
    ):
        if value is not None and own != kind:
            raise InvalidArgument(f'{name} must not be specified on mount type "{kind}"', object=spec.target)
    destination = clean_path(spec.target)
    _check_destination(destination, kind)
    return _but(makers[kind](spec, destination), from_mounts=True)


def _mount_bind(spec: MountSpec, destination: str) -> MountPoint:
    options = spec.bind_options
    prefix = 'invalid mount config for type "bind": '
    if not spec.source:
        raise InvalidArgument(prefix + "field Source must not be empty")
    if not spec.source.startswith("/"):
        raise InvalidArgument(f"{prefix}invalid mount path: '{spec.source}' mount path must be absolute")
    propagation = (options and options.propagation) or "rprivate"
    if propagation not in PROPAGATIONS:
        raise InvalidArgument(f"{prefix}invalid propagation mode: {propagation}", object=propagation)
    create = bool(options and options.create_mountpoint)
    idmap = options.idmap if options else ""
    check_idmap(idmap)
    if not create and not os.path.lexists(spec.source):
        raise InvalidArgument(f"{prefix}bind source path does not exist: {spec.source}", object=spec.source)
    recursive = ""
    if spec.read_only and options:
        recursive = "force" if options.read_only_force_recursive else "no" if options.read_only_non_recursive else ""
        if recursive == "force" and propagation not in ("rprivate", "private"):
            raise InvalidArgument(prefix + "recursively read-only bind-mount needs the propagation rprivate")
    return MountPoint(
        type="bind",
        source=posixpath.normpath(spec.source),
        destination=destination,
        rw=not spec.read_only,
        propagation=propagation,
        recursive=not (options and options.non_recursive),
        read_only_recursive=recursive,
        create_source=create,
        idmap=idmap,
    )


def _mount_image(spec: MountSpec, destination: str) -> MountPoint:
    if not spec.source:
        raise InvalidArgument('invalid mount config for type "image": field Source must not be empty')
    subpath = spec.image_options.subpath if spec.image_options else ""
    _check_subpath(subpath, "image")
    return MountPoint(
        type="image", name=spec.source, destination=destination, rw=False, propagation="rprivate", subpath=subpath
    )


def _check_subpath(subpath: str, kind: str) -> None:
    if subpath and (subpath.startswith("/") or ".." in subpath.split("/")):
        raise InvalidArgument(
            f'invalid mount config for type "{kind}": subpath must be a relative path within the {kind}', object=subpath
        )


def _mount_volume(spec: MountSpec, destination: str) -> MountPoint:
    options = spec.volume_options
    config = options.driver_config if options else None
    driver = (config and config.name) or ""
    subpath = options.subpath if options else ""
    _check_subpath(subpath, "volume")
    if subpath and not spec.source:
        raise InvalidArgument(
            'invalid mount config for type "volume": must not set Subpath when using anonymous volumes'
        )
    if spec.source and driver in ("", "local"):
        check_volume_name(spec.source)
    return MountPoint(
        type="volume",
        name=spec.source,
        destination=destination,
        driver=driver,
        driver_options=(config and config.options) or None,
        labels=(options and options.labels) or None,
        mode="z",
        rw=not spec.read_only,
        subpath=subpath,
        copy_up=not (options and options.no_copy) and not subpath,
        anonymous=not spec.source,
    )


def _mount_tmpfs(spec: MountSpec, destination: str) -> MountPoint:
    if spec.source:
        raise InvalidArgument('invalid mount config for type "tmpfs": field Source must not be specified')
    words = ["ro"] if spec.read_only else []
    options = spec.tmpfs_options
    if options:
        words += [f"size={options.size_bytes}"] if options.size_bytes > 0 else []
        words += [f"mode={options.mode:o}"] if options.mode else []
        for option in options.options or ():
            words.append("=".join(option))
    return _parse_tmpfs(destination, ",".join(words))


def _parse_tmpfs(destination: str, text: str) -> MountPoint:
    clean = clean_path(destination)
    if not clean.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{destination}' mount path must be absolute", object=destination)
    if clean == "/":
        raise InvalidArgument("invalid specification: destination can't be '/'", object=destination)
    for word in text.split(",") if text else ():
        name, equals, _ = word.partition("=")
        if name not in (_TMPFS_VALUES if equals else _TMPFS_FLAGS):
            raise InvalidArgument(f'invalid tmpfs option "{name}"', object=destination)
    words = tuple(text.split(",")) if text else ()
    return MountPoint(type="tmpfs", destination=clean, rw="ro" not in words, options=words)


def shown_mounts(points: Iterable[MountPoint]) -> list[dict[str, object]]:
    """As inspect's Mounts: docker leaves out the tmpfs that --tmpfs made."""
    return [point.shown() for point in points if point.type != "tmpfs" or point.from_mounts]


def image_volumes(volumes: Mapping[str, object] | None) -> tuple[str, ...]:
    """The destinations in an image's Volumes."""
    return tuple(volumes or ())
