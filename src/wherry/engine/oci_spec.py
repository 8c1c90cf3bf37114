"""A container's definition as an OCI runtime configuration (runtime-spec 1.2).

Pure: what has to be looked up (who the user is, which namespaces to join, where volumes are) comes in as `Inputs`.
The text is made in one json.dumps; the seccomp profile, most of it, is spliced in as text made once.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wherry.engine import cdi, idmaps
from wherry.engine.records import Definition, MountPoint
from wherry.engine.resources import devices, resources
from wherry.engine.security import (
    apparmor_profile,
    capabilities,
    masked_paths,
    parse_security_options,
    readonly_paths,
    seccomp_json,
)
from wherry.engine.userns import Remap, describe
from wherry.engine.users import Identity
from wherry.runtime.init import ANNOTATION as INIT_ANNOTATION
from wherry.runtime.machine.init import ARGUMENTS as INIT_ARGUMENTS
from wherry.runtime.options import BENEATH
from wherry.spec.cdi import Edits
from wherry.spec.docker import HostConfig, Ulimit

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHM_SIZE = 64 << 20
_NODEV = ["nosuid", "noexec", "nodev"]
_RLIMITS_TEXT = """
as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack
"""
_RLIMITS = frozenset(_RLIMITS_TEXT.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a definition does not say by itself.

    `remap`: the container's user namespace, `user_namespace`: the one to join, "" for a new one. `namespaces`: kind
    ("network", "pid", "ipc") to the path to join, "" for a new one; absent: the host's. `files`:
    path in the container to path on the host. `shm`: a directory of the host to be /dev/shm.
    """

    identity: Identity
    hostname: str
    cgroup_path: str
    namespaces: Mapping[str, str]
    files: Mapping[str, str]
    shm: str | None = None
    cgroup_version: int = 1
    edits: Edits | None = None
    remap: Remap | None = None
    user_namespace: str = ""
    default_ulimits: Sequence[Ulimit] = ()
    default_shm_size: int = DEFAULT_SHM_SIZE
    init: bool = False
    further_mounts: Sequence[Mapping[str, Any]] = ()
    """As they stand in the configuration, after all others (a build step's)."""


def write_spec(definition: Definition, inputs: Inputs) -> bytes:
    """config.json."""
    host = definition.host
    options = parse_security_options(host.security_opt)
    bounding = capabilities(host.cap_add or (), host.cap_drop or (), host.privileged)
    made_devices, rules = devices(host)
    linux: dict[str, Any] = {
        "namespaces": _namespaces(definition, inputs),
        "cgroupsPath": inputs.cgroup_path,
        "resources": resources(host, rules),
        "rootfsPropagation": _root_propagation(definition.mounts),
        "maskedPaths": masked_paths(host, options),
        "readonlyPaths": readonly_paths(host, options),
    }
    if inputs.remap is not None:
        linux |= describe(inputs.remap, linux["namespaces"], inputs.user_namespace)
    if made_devices:
        linux["devices"] = made_devices
    if sysctls := _sysctls(host, inputs):
        linux["sysctl"] = sysctls
    document: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "process": process(definition, inputs),
        "root": {"path": "rootfs", "readonly": host.readonly_rootfs},
        "mounts": _mounts(definition, inputs),
    }
    if inputs.hostname and host.uts_mode != "host":
        document["hostname"] = inputs.hostname
        if definition.config.domainname:
            document["domainname"] = definition.config.domainname
    annotations = dict(host.annotations or {})
    if inputs.init:
        annotations[INIT_ANNOTATION] = "true"
    if annotations:
        document["annotations"] = annotations
    document["linux"] = linux
    document["mounts"] += inputs.further_mounts
    if inputs.edits is not None:
        cdi.apply(document, inputs.edits, privileged=host.privileged)
        # It must be the last member, see below.
        document["linux"] = document.pop("linux")
    text = json.dumps(document, separators=(",", ":"))
    filter_text = seccomp_json(options, bounding, host.privileged)
    if filter_text is not None:
        # `linux` is the last member: two braces close the text.
        text = f'{text[:-2]},"seccomp":{filter_text}}}}}'
    return text.encode()


def _sysctls(host: HostConfig, inputs: Inputs) -> dict[str, str]:
    """docker's: whoever a container runs as may serve low ports and send pings, which harms nobody else there."""
    if host.network_mode == "host" or "network" not in inputs.namespaces:
        return dict(host.sysctls or {})
    # Groups of a user namespace that do not exist cannot be named.
    defaults = _LOW_PORTS if inputs.remap is not None else {**_LOW_PORTS, **_PINGS}
    return {**defaults, **(host.sysctls or {})}


_LOW_PORTS = {"net.ipv4.ip_unprivileged_port_start": "0"}
_PINGS = {"net.ipv4.ping_group_range": "0 2147483647"}


def process(definition: Definition, inputs: Inputs) -> dict[str, Any]:
    """The OCI process of the container itself."""
    config, host = definition.config, definition.host
    options = parse_security_options(host.security_opt)
    bounding = capabilities(host.cap_add or (), host.cap_drop or (), host.privileged)
    document: dict[str, Any] = {
        "terminal": config.tty,
        "user": user_document(inputs.identity),
        "args": [*(INIT_ARGUMENTS if inputs.init else ()), definition.path, *definition.args],
        "env": environment(definition, inputs.hostname, inputs.identity.home),
        "cwd": config.working_dir or "/",
        "capabilities": capability_sets(bounding, inputs.identity.uid),
        "noNewPrivileges": options.no_new_privileges,
        "oomScoreAdj": host.oom_score_adj,
    }
    if config.tty and host.console_size and all(host.console_size[:2]) and len(host.console_size) == 2:
        document["consoleSize"] = {"height": host.console_size[0], "width": host.console_size[1]}
    profile = apparmor_profile(options, host.privileged)
    if profile:
        document["apparmorProfile"] = profile
    limits = rlimits(host.ulimits or (), inputs.default_ulimits)
    if limits:
        document["rlimits"] = limits
    return document


def user_document(identity: Identity) -> dict[str, Any]:
    """process.user."""
    return {"uid": identity.uid, "gid": identity.gid, "additionalGids": list(identity.groups)}


def capability_sets(bounding: Sequence[str], uid: int) -> dict[str, list[str]]:
    """For root what it is bounded by; others hold none until they run a file that gives them some."""
    names = list(bounding)
    if uid:
        return {"bounding": names, "effective": [], "permitted": [], "inheritable": [], "ambient": []}
    return {"bounding": names, "effective": names, "permitted": names, "inheritable": [], "ambient": []}


def environment(definition: Definition, hostname: str, home: str, extra: Sequence[str] = ()) -> list[str]:
    """docker's: PATH, HOSTNAME, TERM, HOME unless given; the last of a name wins, "NAME" alone takes it away."""
    found = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if definition.config.tty:
        found["TERM"] = "xterm"
    for item in (*(definition.config.env or ()), *extra):
        name, equals, value = item.partition("=")
        if equals:
            found[name] = value
        else:
            found.pop(name, None)
    if not found.get("HOME"):
        found["HOME"] = home
    return [f"{name}={value}" for name, value in found.items()]


def rlimits(own: Sequence[Ulimit], defaults: Sequence[Ulimit]) -> list[dict[str, Any]]:
    """process.rlimits: the container's own over the daemon's defaults."""
    merged = {limit.name: limit for limit in (*defaults, *own)}
    return [
        {"type": f"RLIMIT_{name.upper()}", "hard": _limit(limit.hard), "soft": _limit(limit.soft)}
        for name, limit in merged.items()
    ]


def is_ulimit(name: str) -> bool:
    """Whether a limit of that name exists (getrlimit(2), without RLIMIT_)."""
    return name in _RLIMITS


def _limit(value: int) -> int:
    return 2**64 - 1 if value < 0 else value


def _namespaces(definition: Definition, inputs: Inputs) -> list[dict[str, str]]:
    found = [{"type": "mount"}]
    for kind in ("network", "pid", "ipc"):
        path = inputs.namespaces.get(kind)
        if path is not None:
            found.append({"type": kind, "path": path} if path else {"type": kind})
    if definition.host.uts_mode != "host":
        found.append({"type": "uts"})
    mode = definition.host.cgroupns_mode
    if mode == "private":
        found.append({"type": "cgroup"})
    return found


def _root_propagation(mounts: Sequence[MountPoint]) -> str:
    modes = {mount.propagation for mount in mounts}
    if modes & {"shared", "rshared"}:
        return "rshared"
    return "rslave" if modes & {"slave", "rslave"} else "rprivate"


def _mounts(definition: Definition, inputs: Inputs) -> list[dict[str, Any]]:
    host = definition.host
    writable = "rw" if host.privileged else "ro"
    asked = parse_security_options(host.security_opt).writable_cgroups
    cgroups = writable if asked is None else "rw" if asked else "ro"
    mounts: list[dict[str, Any]] = [
        _mount("/proc", "proc", "proc", _NODEV),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        _mount("/sys", "sysfs", "sysfs", [*_NODEV, writable]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [cgroups, *_NODEV]),
        _mount("/dev/mqueue", "mqueue", "mqueue", _NODEV),
    ]
    # A new mount of mqueue in the host's IPC namespace shows the same queues as the host's own, where it has one.
    if host.ipc_mode == "host" and os.path.ismount("/dev/mqueue"):
        mounts[-1] = _mount("/dev/mqueue", "bind", "/dev/mqueue", ["rbind", *_NODEV])
    mounts += _shm(definition, inputs)
    user = sorted(definition.mounts, key=lambda mount: mount.destination.count("/"))
    covered = {mount.destination for mount in user}
    idmap = ["idmap"] if inputs.remap is not None else []
    mounts = [mount for mount in mounts if mount["destination"] not in covered]
    for path, source in inputs.files.items():
        if path not in covered:
            options = ["rbind", "rprivate", *(["ro"] if host.readonly_rootfs else []), *idmap]
            mounts.append(_mount(path, "bind", source, options))
    return [*mounts, *(_user_mount(mount, idmap, inputs.remap) for mount in user)]


def _shm(definition: Definition, inputs: Inputs) -> list[dict[str, Any]]:
    mode = definition.host.ipc_mode
    if mode == "none":
        return []
    source = "/dev/shm" if mode == "host" else inputs.shm
    if source:
        return [_mount("/dev/shm", "bind", source, ["rbind", "rprivate", *_NODEV])]
    size = definition.host.shm_size or inputs.default_shm_size
    return [_mount("/dev/shm", "tmpfs", "shm", [*_NODEV, "mode=1777", f"size={size}"])]


def _user_mount(mount: MountPoint, idmap: Sequence[str], remap: Remap | None) -> dict[str, Any]:
    if mount.type == "tmpfs":
        # docker's defaults, and what is under the mount point is not copied up.
        return _mount(mount.destination, "tmpfs", "tmpfs", ["noexec", "nosuid", "nodev", *mount.options])
    options = ["rbind" if mount.recursive else "bind", mount.propagation or "rprivate"]
    if not mount.rw:
        # "rro" makes the mounts below read-only too, as docker does wherever the kernel can (5.12).
        options.append("ro" if mount.read_only_recursive == "no" or not mount.recursive else "rro")
    if mount.type in ("volume", "image"):
        # What is stored has the container's owners; a directory of the host's keeps its own.
        options += idmap
    if mount.subpath:
        options.append(BENEATH + mount.subpath)
    made = _mount(mount.destination, "bind", mount.source, options)
    if mount.idmap:
        made["options"].append("idmap")
        made |= idmaps.document(mount.idmap, mount.source, remap)
    return made


def _mount(destination: str, kind: str, source: str, options: Sequence[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}
