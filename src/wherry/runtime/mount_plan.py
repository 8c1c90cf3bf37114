"""The part of a plan that makes the root file system: root, mounts, devices, terminal, hidden paths."""

from __future__ import annotations

import os
import posixpath
import stat

from wherry.errors import InvalidArgument, Unimplemented
from wherry.kernel import mounts
from wherry.runtime import devices, mounting, options, rootfs
from wherry.runtime import document as d
from wherry.runtime.idmap import map_tree, with_mounter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NamedTuple

    from wherry.runtime.plan import Host
    from wherry.runtime.scene import Operation
    from wherry.spec.mount import Mount
else:
    from wherry.kernel.tuples import NamedTuple


class Preparation(NamedTuple):
    """Detached mounts the parent makes before the clone, since a user namespace of its own could not."""

    key: str
    operation: mounting.Bind | rootfs.Root
    uid_map: str = ""
    gid_map: str = ""

    def describe(self) -> str:
        return f"prepare: {self.operation.describe()}"

    def make(self, fds: list[int]) -> dict[str, int]:
        """Descriptors of the trees by the key under which the operation looks for them; all are put into `fds` too."""
        if isinstance(self.operation, rootfs.Root):
            trees = self.operation.open_trees((self.uid_map, self.gid_map))
            fds += trees
            return {f"root{index}": tree for index, tree in enumerate(trees)}
        tree = self.operation.open_tree()
        fds.append(tree)
        if self.uid_map:
            map_tree(tree, self.uid_map, self.gid_map, recursive=self.operation.options.idmap == "ridmap")
        # Out of the host's peer group: what is mounted inside must not come out.
        mounts.mount_setattr(tree, propagation=mounts.MS_SLAVE, recursive=True)
        return {self.key: tree}


def mount_operations(
    config: Mapping[str, Any],
    bundle: str,
    layers: Sequence[Mount],
    prepared: bool,
    host: Host,
    new: frozenset[str],
) -> tuple[list[Operation], list[Preparation]]:
    """Operations up to, not including, the change of root; and what the parent must prepare."""
    linux = d.mapping(config, "linux")
    process = d.mapping(config, "process")
    root = rootfs.Root(_root_path(config, bundle), tuple(layers), prepared)
    preparations = [Preparation("", root, *_own_maps(linux, layers))] if prepared else []
    shared = "shared" in d.string(linux, "rootfsPropagation")
    operations: list[Operation] = [rootfs.Isolate(shared and not prepared), root]
    frozen: list[Operation] = []
    for entry in d.items(config, "mounts"):
        operation, preparation = _mount(entry, bundle, prepared, host, new, linux)
        if preparation is not None:
            preparations.append(preparation)
        if isinstance(operation, mounting.Filesystem) and operation.target == "/dev":
            parsed = operation.options
            if parsed.flags & mounts.MS_RDONLY:
                # Filled first, closed after.
                operation = operation._replace(options=parsed._replace(flags=parsed.flags & ~mounts.MS_RDONLY))
                frozen.append(rootfs.Freeze("/dev"))
        operations.append(operation)
    operations += _devices(config, linux, process, prepared)
    operations += frozen
    for kind, key in ((rootfs.ReadOnly, "readonlyPaths"), (rootfs.Mask, "maskedPaths")):
        paths = d.strings(linux, key, "linux.")
        if paths:
            operations.append(kind(tuple([_absolute(path, f"linux.{key}") for path in paths])))
    return operations, preparations


def _own_maps(linux: Mapping[str, Any], layers: Sequence[Mount]) -> tuple[str, str]:
    """The container's own mappings, for layers that are to be mapped."""
    from wherry.runtime.plan import id_map

    if not any("idmap" in layer.options for layer in layers):
        return "", ""
    maps = [id_map(d.items(linux, key, "linux."), key) for key in ("uidMappings", "gidMappings")]
    if not all(maps):
        raise InvalidArgument("layers to be mapped need linux.uidMappings and linux.gidMappings")
    return maps[0], maps[1]


def _root_path(config: Mapping[str, Any], bundle: str) -> str:
    path = d.string(d.mapping(config, "root"), "path", "", "root.")
    if not path:
        raise InvalidArgument("config.json: root.path is missing")
    return path if path.startswith("/") else f"{bundle}/{path}"


def _absolute(path: str, where: str) -> str:
    if not path.startswith("/"):
        raise InvalidArgument(f"config.json: {where} must be absolute, not {path!r}")
    return posixpath.normpath("/" + path.lstrip("/"))


def _mount(
    entry: Mapping[str, Any],
    bundle: str,
    prepared: bool,
    host: Host,
    new: frozenset[str],
    linux: Mapping[str, Any],
) -> tuple[Operation, Preparation | None]:
    target = d.string(entry, "destination", "", "mounts.")
    if not target:
        raise InvalidArgument("config.json: mounts.destination is missing")
    # Relative destinations were allowed before 1.1 and are taken from the root.
    target = _absolute("/" + target, "mounts.destination")
    kind = d.string(entry, "type", "", "mounts.")
    parsed = options.parse(d.strings(entry, "options", "mounts."))
    source = d.string(entry, "source", "", "mounts.")
    if parsed.bind or kind == "bind":
        if not source:
            raise InvalidArgument(f"the bind mount on {target} has no source")
        source = source if source.startswith("/") else f"{bundle}/{source}"
        return _bind(entry, source, target, parsed, prepared, linux)
    if entry.get("uidMappings") or entry.get("gidMappings"):
        raise Unimplemented(f"ID mappings on {target}: only bind mounts can have them")
    if kind in ("cgroup", "cgroup2"):
        return _cgroup(target, parsed, host, new), None
    if not kind or kind == "none":
        raise InvalidArgument(f"the mount on {target} has no type")
    return mounting.Filesystem(kind, source or kind, target, parsed), None


def _bind(
    entry: Mapping[str, Any],
    source: str,
    target: str,
    parsed: options.Options,
    prepared: bool,
    linux: Mapping[str, Any],
) -> tuple[Operation, Preparation | None]:
    from wherry.runtime.plan import id_map

    uid_maps, gid_maps = d.items(entry, "uidMappings", "mounts."), d.items(entry, "gidMappings", "mounts.")
    own = bool(parsed.idmap and not uid_maps)
    if own:
        # Without mappings of its own the mount takes the container's (runtime-spec config.md#mounts, "idmap").
        uid_maps, gid_maps = d.items(linux, "uidMappings"), d.items(linux, "gidMappings")
        if not uid_maps:
            raise InvalidArgument(f"{target}: idmap needs uidMappings and gidMappings, its own or the container's")
    if bool(uid_maps) != bool(gid_maps):
        raise InvalidArgument(f"{target}: uidMappings and gidMappings go together")
    bind = mounting.Bind(source, target, parsed, prepared or bool(uid_maps))
    if not bind.prepared:
        return bind, None
    maps = id_map(uid_maps, "uidMappings"), id_map(gid_maps, "gidMappings")
    if own:
        # Whoever looks in from outside (docker cp) can make files there, too, and give them away.
        maps = with_mounter(maps[0]), with_mounter(maps[1])
    return bind, Preparation(target, bind, *maps)


def _cgroup(target: str, parsed: options.Options, host: Host, new: frozenset[str]) -> Operation:
    if host.cgroup_version == 2:
        if "cgroup" in new:
            return mounting.Filesystem("cgroup2", "cgroup", target, parsed)
        return mounting.CgroupBinds(target, (("", host.cgroup_paths.get("", "/sys/fs/cgroup")),), parsed)
    by_point: dict[str, list[str]] = {}
    for controller, path in host.cgroup_paths.items():
        if controller:
            by_point.setdefault(path, []).append(controller)
    if "cgroup" not in new:
        pairs = [(",".join([c.removeprefix("name=") for c in names]), path) for path, names in by_point.items()]
        return mounting.CgroupBinds(target, tuple(pairs), parsed)
    hierarchies = []
    for names in by_point.values():
        option = ",".join(["none," + name if name.startswith("name=") else name for name in names])
        hierarchies.append((",".join([name.removeprefix("name=") for name in names]), option))
    return mounting.CgroupV1(target, tuple(hierarchies), parsed)


def _devices(
    config: Mapping[str, Any], linux: Mapping[str, Any], process: Mapping[str, Any], prepared: bool
) -> list[Operation]:
    for entry in d.items(config, "mounts"):
        if entry.get("destination", "").rstrip("/") == "/dev" and entry.get("type") not in ("tmpfs", "devtmpfs"):
            # The host's /dev, or one the caller made: nothing may be added to it.
            return []
    nodes = {node.path: node for node in devices.DEFAULTS}
    for entry in d.items(linux, "devices", "linux."):
        node = _node(entry)
        nodes[node.path] = node
    operations: list[Operation] = [devices.Devices(tuple(nodes.values()), prepared)]
    links = devices.LINKS if os.path.exists("/proc/kcore") else devices.LINKS[:-1]
    operations.append(devices.Links((*links, ("ptmx", "pts/ptmx"))))
    if d.boolean(process, "terminal", False, "process."):
        operations.append(console(process))
    return operations


def console(process: Mapping[str, Any], join: bool = False) -> devices.Console:
    """The terminal a process object asks for."""
    size = d.mapping(process, "consoleSize", "process.")
    user = d.mapping(process, "user", "process.")
    return devices.Console(d.integer(user, "uid"), d.integer(size, "height"), d.integer(size, "width"), join)


_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def _node(entry: Mapping[str, Any]) -> devices.Node:
    path = _absolute(d.string(entry, "path", "", "linux.devices."), "linux.devices.path")
    kind = d.string(entry, "type", "", "linux.devices.")
    if kind not in _TYPES:
        raise InvalidArgument(f"unknown device type {kind!r} of {path}", hint="c, u, b or p")
    major, minor = d.integer(entry, "major"), d.integer(entry, "minor")
    mode = _TYPES[kind] | (d.integer(entry, "fileMode", 0o666) & 0o7777)
    device = os.makedev(major, minor) if kind != "p" else 0
    return devices.Node(path, mode, device, d.integer(entry, "uid"), d.integer(entry, "gid"))
