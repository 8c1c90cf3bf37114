"""A bundle and what follows from it: configuration, cgroup, record, the state that `state` and hooks are told."""

from __future__ import annotations

import time

from wherry import errors
from wherry.kernel import cgroups as cgroup_room
from wherry.kernel import namespaces
from wherry.runtime import document as d
from wherry.runtime import plan
from wherry.runtime.state import Exit, Process, Record
from wherry.spec import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NamedTuple

    from wherry.kernel.cgroups import Cgroup
    from wherry.runtime.hooks import Hook
else:
    from wherry.kernel.tuples import NamedTuple


class Status(NamedTuple):
    """A container as it is now."""

    record: Record
    status: str  # "creating" | "created" | "running" | "paused" | "stopped"
    process: Process | None
    exit: Exit | None


def load_config(bundle: str) -> dict[str, Any]:
    """`<bundle>/config.json`; NotFound, InvalidArgument."""
    path = f"{bundle}/config.json"
    try:
        with open(path, "rb", buffering=0) as file:
            config = fastjson.loads(file.readall())
    except FileNotFoundError:
        raise errors.NotFound(f"{path} does not exist", object=bundle, hint="a bundle has a config.json") from None
    except ValueError as error:
        raise errors.InvalidArgument(f"{path}: {error}") from None
    if not isinstance(config, dict):
        raise errors.InvalidArgument(f"{path}: not an object")
    if not d.string(config, "ociVersion").startswith("1."):
        raise errors.InvalidArgument(f"{path}: ociVersion must be 1.x")
    return config


def cgroup_of(config: Mapping[str, Any], identifier: str) -> Cgroup:
    """The cgroup a configuration asks for."""
    return cgroup_room.cgroup(cgroup_path(config, identifier))


def cgroup_path(config: Mapping[str, Any], identifier: str) -> str:
    """Its path below each hierarchy's root."""
    path = d.string(d.mapping(config, "linux"), "cgroupsPath", "", "linux.") or identifier
    if path.count(":") == 2 and "/" not in path:
        # systemd's notation "slice:prefix:name", for hosts without systemd's help: the same place by hand.
        slice_, prefix, name = path.split(":")
        path = f"/{slice_ or 'system.slice'}/{prefix}-{name}.scope"
    return path


def record_of(config: Mapping[str, Any], identifier: str, bundle: str) -> Record:
    """What is written down of a container before it is made."""
    linux = d.mapping(config, "linux")
    kinds = [d.string(entry, "type") for entry in d.items(linux, "namespaces", "linux.")]
    flags = sum([namespaces.FLAG_OF[kind] for kind in set(kinds)])
    now = time.time()
    created = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e9):09d}Z"
    annotations = {key: str(value) for key, value in d.mapping(config, "annotations").items()}
    root = d.string(d.mapping(config, "root"), "path")
    rootfs = root if root.startswith("/") else f"{bundle}/{root}"
    path = cgroup_path(config, identifier)
    version = d.string(config, "ociVersion")
    return Record(identifier, bundle, rootfs, path, flags, "user" in kinds, created, annotations, version)


def state_document(status: Status) -> dict[str, Any]:
    """What `state` prints (runtime-spec runtime.md#state)."""
    record = status.record
    return {
        "ociVersion": record.spec_version,
        "id": record.id,
        "status": status.status,
        "pid": status.process.pid if status.process is not None and status.status != "stopped" else 0,
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "annotations": record.annotations,
    }


def hook_state(record: Record, status: str) -> str:
    """What hooks are told; the pid is filled in later."""
    return fastjson.dumps(state_document(Status(record, status, None, None)))


def hooks_if_bundle(record: Record, point: str) -> Sequence[Hook]:
    """The hooks of one point, while the bundle is still there."""
    try:
        return plan.hooks_of(load_config(record.bundle), point)
    except errors.WherryError:
        return ()  # the bundle is its maker's, who may have removed it


def with_default_devices(resources: Mapping[str, Any]) -> Mapping[str, Any]:
    """`linux.resources` with the rules for the devices every container has."""
    if not resources.get("devices"):
        return resources
    return {**resources, "devices": [*resources["devices"], *cgroup_room.DEFAULT_DEVICES]}
