"""An OCI configuration (runtime-spec 1.2 config.json) to a plan: what to clone, and what the child does in order."""

from __future__ import annotations

from wherry.errors import InvalidArgument, Unimplemented
from wherry.kernel import capabilities, mounts, namespaces
from wherry.runtime import document as d
from wherry.runtime import process, process_plan, rootfs, setup
from wherry.runtime.hooks import Hook, RunHooks
from wherry.runtime.mount_plan import Preparation, mount_operations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NamedTuple

    from wherry.runtime.scene import Operation
    from wherry.spec.mount import Mount
else:
    from wherry.kernel.tuples import NamedTuple


class Host(NamedTuple):
    """What the plan needs to know of the process that carries it out and of the machine."""

    bounding: int
    cgroup_paths: dict[str, str]  # of the container, by controller; "" is v2's
    cgroup_version: int


class Outline(NamedTuple):
    """What the parent must know before the clone. The rest of the configuration is the child's to read."""

    clone_flags: int
    uid_map: str
    gid_map: str
    hooks: dict[str, tuple[Hook, ...]]
    resources: Mapping[str, Any]
    oom_score: int | None  # to be written by the parent, when there is a user namespace
    prepared: bool  # mounts are made by the parent, as far as a user namespace could not
    idmapped: bool
    refork: bool
    terminal: bool


class Plan(NamedTuple):
    """An outline with the operations."""

    outline: Outline
    operations: tuple[Operation, ...]
    preparations: tuple[Preparation, ...]  # detached mounts to be made by the parent

    def describe(self) -> list[str]:
        """The operations in words."""
        return [operation.describe() for operation in self.operations]


class Choices(NamedTuple):
    """What a caller, not the configuration, decides."""

    pivot: bool = True  # False: move the root instead, for hosts that run from a ramdisk
    keyring: bool = True  # False: keep the caller's session keyring


USUAL = Choices()


class _Names(NamedTuple):
    new: frozenset[str]
    joined: tuple[tuple[str, str], ...]


def outline(config: Mapping[str, Any]) -> Outline:
    """What the parent needs of a container's configuration. InvalidArgument, Unimplemented."""
    linux = d.mapping(config, "linux")
    spec = d.mapping(config, "process")
    process_plan.check(spec)
    for key in _UNSUPPORTED:
        if linux.get(key):
            raise Unimplemented(f"linux.{key} is not supported", object=key, hint="leave it out")
    names = _namespaces(linux)
    user = "user" in names.new
    refork = any(kind in ("pid", "user", "time") for kind, _ in names.joined)
    prepared = user or any(kind == "user" for kind, _ in names.joined)
    score = spec.get("oomScoreAdj")
    return Outline(
        clone_flags=0 if refork else _clone_flags(names),
        uid_map=_id_map(linux, "uidMappings", user),
        gid_map=_id_map(linux, "gidMappings", user),
        hooks={point: hooks_of(config, point) for point in _HOOKS}
        if config.get("hooks")
        else dict.fromkeys(_HOOKS, ()),
        resources=d.mapping(linux, "resources", "linux."),
        oom_score=score if isinstance(score, int) and prepared else None,
        prepared=prepared,
        idmapped=any(_is_idmapped(entry) for entry in d.items(config, "mounts")),
        refork=refork,
        terminal=d.boolean(spec, "terminal", False, "process."),
    )


def _is_idmapped(entry: Mapping[str, Any]) -> bool:
    options = entry.get("options") or ()
    return bool(entry.get("uidMappings") or entry.get("gidMappings") or "idmap" in options or "ridmap" in options)


def operations(
    config: Mapping[str, Any],
    made: Outline,
    identifier: str,
    bundle: str,
    layers: Sequence[Mount],
    host: Host,
    filter: process.Seccomp | None,
    *,
    wait: bool,
    choices: Choices = USUAL,
) -> tuple[list[Operation], list[Preparation]]:
    """What the child does in order, and what the parent prepares. `wait`: stop before the program until `start`."""
    linux = d.mapping(config, "linux")
    spec = d.mapping(config, "process")
    names = _namespaces(linux)
    hooks = made.hooks
    inside, preparations = mount_operations(config, bundle, layers, made.prepared, host, names.new)
    steps: list[Operation] = [setup.EnterCgroup()]
    score = spec.get("oomScoreAdj")
    if isinstance(score, int) and not made.prepared:
        steps.append(setup.OomScore(score))
    if names.joined:
        steps.append(setup.Join(names.joined))
    if made.refork:
        if any(kind == "user" for kind, _ in names.joined):
            steps.append(setup.BecomeRoot(False))
        steps.append(setup.Fork(_clone_flags(names)))
    if "user" in names.new:
        steps.append(setup.BecomeRoot(True))
    steps += _namespace_settings(config, linux, names)
    steps += inside
    if hooks["prestart"] or hooks["createRuntime"]:
        steps.append(setup.AwaitHooks("createRuntime"))
    if hooks["createContainer"]:
        steps.append(RunHooks("createContainer", hooks["createContainer"]))
    steps += _enter_root(config, linux, choices.pivot)
    if made.prepared:
        host = host._replace(bounding=capabilities.every())
    steps += _process(spec, linux, identifier, host, hooks, wait, filter, keyring=choices.keyring)
    return steps, preparations


def build(
    config: Mapping[str, Any],
    identifier: str,
    bundle: str,
    layers: Sequence[Mount],
    host: Host,
    *,
    wait: bool,
    choices: Choices = USUAL,
) -> Plan:
    """The whole plan for a container."""
    made = outline(config)
    filter = process_plan.seccomp(d.mapping(d.mapping(config, "linux"), "seccomp", "linux."))
    steps, preparations = operations(config, made, identifier, bundle, layers, host, filter, wait=wait, choices=choices)
    return Plan(made, tuple(steps), tuple(preparations))


_UNSUPPORTED = ("intelRdt", "mountLabel", "memoryPolicy", "netDevices")
_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def _namespaces(linux: Mapping[str, Any]) -> _Names:
    new: set[str] = set()
    joined: list[tuple[str, str]] = []
    for entry in d.items(linux, "namespaces", "linux."):
        kind, path = d.string(entry, "type"), d.string(entry, "path")
        if kind not in namespaces.FLAG_OF:
            raise InvalidArgument(f"unknown namespace {kind!r}", hint=", ".join(namespaces.FLAG_OF))
        if kind in new or any(kind == other for other, _ in joined):
            raise InvalidArgument(f"namespace {kind} is named twice")
        if path:
            if not path.startswith("/"):
                raise InvalidArgument(f"the path of namespace {kind} must be absolute, not {path!r}")
            joined.append((kind, path))
        else:
            new.add(kind)
    if "mount" not in new:
        raise Unimplemented("a container needs a mount namespace of its own", hint="add {'type': 'mount'}")
    if linux.get("uidMappings") and "user" not in new and not any(kind == "user" for kind, _ in joined):
        raise InvalidArgument("linux.uidMappings needs a user namespace")
    # The user namespace owns the others: it comes first.
    joined.sort(key=lambda pair: pair[0] != "user")
    return _Names(frozenset(new), tuple(joined))


def _clone_flags(names: _Names) -> int:
    flags = 0
    for kind in names.new - {"cgroup", "time"}:
        flags |= namespaces.FLAG_OF[kind]
    return flags


def _id_map(linux: Mapping[str, Any], key: str, wanted: bool) -> str:
    entries = d.items(linux, key, "linux.")
    if wanted and not entries:
        raise InvalidArgument(f"a user namespace needs linux.{key}")
    if not wanted:
        return ""
    return id_map(entries, key)


def id_map(entries: Sequence[Mapping[str, Any]], key: str) -> str:
    """Lines of /proc/PID/uid_map (user_namespaces(7)) from the specification's mappings."""
    names = ("containerID", "hostID", "size")
    return "".join(
        [" ".join([str(d.integer(entry, name, 0, f"{key}.")) for name in names]) + "\n" for entry in entries]
    )


def hooks_of(config: Mapping[str, Any], point: str) -> tuple[Hook, ...]:
    """The hooks of one point, such as "poststart"."""
    found = []
    for entry in d.items(d.mapping(config, "hooks"), point, "hooks."):
        path = d.string(entry, "path", "", f"hooks.{point}.")
        if not path.startswith("/"):
            raise InvalidArgument(f"hooks.{point}: the path must be absolute, not {path!r}")
        timeout = d.integer(entry, "timeout", 0, f"hooks.{point}.")
        found.append(Hook(path, d.strings(entry, "args") or (path,), d.strings(entry, "env"), timeout))
    return tuple(found)


def _namespace_settings(config: Mapping[str, Any], linux: Mapping[str, Any], names: _Names) -> list[Operation]:
    operations: list[Operation] = []
    late = sum([namespaces.FLAG_OF[kind] for kind in names.new & {"cgroup", "time"}])
    if late:
        operations.append(setup.Unshare(late))
    offsets = d.mapping(linux, "timeOffsets", "linux.")
    if offsets:
        if "time" not in names.new:
            raise InvalidArgument("linux.timeOffsets needs a new time namespace")
        lines = [f"{clock} {d.integer(o, 'secs')} {d.integer(o, 'nanosecs')}\n" for clock, o in offsets.items()]
        operations.append(setup.TimeOffsets("".join(lines)))
    if "network" in names.new:
        operations.append(setup.LoopbackUp())
    host, domain = d.string(config, "hostname"), d.string(config, "domainname")
    if host or domain:
        if "uts" not in names.new and not any(kind == "uts" for kind, _ in names.joined):
            raise InvalidArgument("hostname and domainname need a uts namespace")
        operations.append(setup.Names(host, domain))
    sysctls = d.mapping(linux, "sysctl", "linux.")
    if sysctls:
        owned = names.new | {kind for kind, path in names.joined}
        for name in sysctls:
            _check_sysctl(name.replace("/", "."), owned)
        operations.append(setup.Sysctls(tuple((name, str(value)) for name, value in sysctls.items())))
    return operations


_IPC_SYSCTLS = ("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax")


def _check_sysctl(name: str, owned: frozenset[str] | set[str]) -> None:
    """Refuse what would change the host."""
    if name in (*_IPC_SYSCTLS, "kernel.shmmni", "kernel.shm_rmid_forced") or name.startswith("fs.mqueue."):
        needs = "ipc"
    elif name.startswith("net."):
        needs = "network"
    elif name in ("kernel.domainname", "kernel.hostname"):
        needs = "uts"
    else:
        raise InvalidArgument(f"sysctl {name} is not separate in a container", object=name)
    if needs not in owned:
        raise InvalidArgument(f"sysctl {name} would change the host: the container has no {needs} namespace of its own")
    if ".." in name:
        raise InvalidArgument(f"sysctl {name!r} is not a name")


def _enter_root(config: Mapping[str, Any], linux: Mapping[str, Any], pivot: bool) -> list[Operation]:
    propagation = d.string(linux, "rootfsPropagation", "", "linux.")
    flags = _PROPAGATION.get(propagation, -1)
    if flags < 0:
        raise InvalidArgument(f"unknown rootfsPropagation {propagation!r}")
    readonly = d.boolean(d.mapping(config, "root"), "readonly", False, "root.")
    operations: list[Operation] = [rootfs.Pivot(move=not pivot)]
    if flags or readonly:
        operations.append(rootfs.SetRoot(flags, readonly))
    return operations


_PROPAGATION = {
    "": 0,
    "private": mounts.MS_PRIVATE,
    "rprivate": mounts.MS_PRIVATE | mounts.MS_REC,
    "slave": mounts.MS_SLAVE,
    "rslave": mounts.MS_SLAVE | mounts.MS_REC,
    "shared": mounts.MS_SHARED,
    "rshared": mounts.MS_SHARED | mounts.MS_REC,
    "unbindable": mounts.MS_UNBINDABLE,
    "runbindable": mounts.MS_UNBINDABLE | mounts.MS_REC,
}


def _process(
    spec: Mapping[str, Any],
    linux: Mapping[str, Any],
    identifier: str,
    host: Host,
    hooks: Mapping[str, tuple[Hook, ...]],
    wait: bool,
    filter: process.Seccomp | None,
    *,
    keyring: bool,
) -> list[Operation]:
    terminal = d.boolean(spec, "terminal", False, "process.")
    identity = process_plan.identity(spec, host.bounding)
    operations: list[Operation] = [process.Streams(identity.uid, terminal)]
    operations += process_plan.early(spec, identifier, keyring)
    domain = process_plan.personality(linux)
    if domain is not None:
        operations.append(domain)
    waiting: list[Operation] = [setup.AwaitGo()]
    if wait:
        path = process_plan.environment(spec).get("PATH", "")
        waiting.append(process.AwaitStart(process_plan.check(spec)[0], path))
    if hooks["startContainer"]:
        waiting.append(RunHooks("startContainer", hooks["startContainer"]))
    operations += waiting
    return operations + process_plan.finish(spec, identity, filter)
