"""An OCI configuration (runtime-spec 1.2 config.json) to a plan: what to clone, and what the child does in order."""

from __future__ import annotations

from wherry.errors import InvalidArgument, Unimplemented
from wherry.kernel import capabilities, mounts, namespaces
from wherry.runtime import document as d
from wherry.runtime import init, process, process_plan, rootfs, setup
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
    seccomp_cache: str | None = None  # a directory


class Plan(NamedTuple):
    """Everything that is known before the clone."""

    clone_flags: int
    uid_map: str
    gid_map: str
    hooks: dict[str, tuple[Hook, ...]]
    resources: Mapping[str, Any]
    oom_score: int | None  # to be written by the parent, when there is a user namespace
    refork: bool  # the container's process is forked by the first one
    terminal: bool
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
    """The plan for a container. `wait`: stop before the program until `start`. InvalidArgument, Unimplemented."""
    linux = d.mapping(config, "linux")
    spec = d.mapping(config, "process")
    process_plan.check(spec)
    for key in _UNSUPPORTED:
        if linux.get(key):
            raise Unimplemented(f"linux.{key} is not supported", object=key, hint="leave it out")
    names = _namespaces(linux)
    user = "user" in names.new
    joins_user = any(kind == "user" for kind, _ in names.joined)
    prepared = user or joins_user
    refork = any(kind in ("pid", "user", "time") for kind, _ in names.joined)
    hooks: dict[str, tuple[Hook, ...]] = dict.fromkeys(_HOOKS, ())
    if config.get("hooks"):
        hooks = {point: hooks_of(config, point) for point in _HOOKS}
    borrowed = "mount" not in names.new
    if borrowed and prepared:
        raise Unimplemented("a user namespace needs a mount namespace of its own", hint="add {'type': 'mount'}")
    inside, preparations = mount_operations(config, bundle, layers, prepared, host, names.new)
    score = spec.get("oomScoreAdj")
    # Late, so that the parent sets the limits while the child makes mounts; but a cgroup namespace's root is what its
    # maker is in, and hooks count as the container's.
    early = "cgroup" in names.new or bool(config.get("hooks"))
    steps: list[Operation] = [setup.EnterCgroup()] if early else []
    if isinstance(score, int) and not prepared:
        steps.append(setup.OomScore(score))
    joined = tuple([(kind, path) for kind, path in names.joined if kind != "mount"])
    if joined:
        steps.append(setup.Join(joined))
    if refork:
        steps += [setup.BecomeRoot(False)] if joins_user else []
        steps.append(setup.Fork(_clone_flags(names)))
    if user:
        steps.append(setup.BecomeRoot(True))
    steps += _namespace_settings(config, linux, names)
    if process_plan.profile(spec):
        steps.append(setup.OpenConfinement())
    if borrowed:
        steps.append(setup.BorrowMounts(dict(names.joined).get("mount", "")))
    steps += inside
    if hooks["prestart"] or hooks["createRuntime"]:
        steps.append(setup.AwaitHooks("createRuntime"))
    if hooks["createContainer"]:
        steps.append(RunHooks("createContainer", hooks["createContainer"]))
    steps += _enter_root(config, linux, choices.pivot)
    if borrowed:
        steps.append(setup.ReturnMounts())
    if prepared:
        host = host._replace(bounding=capabilities.every())
    steps += _process(
        spec,
        linux,
        identifier,
        host,
        hooks,
        wait,
        keyring=choices.keyring,
        enter=not early,
        with_init=init.is_wanted(config),
    )
    return Plan(
        clone_flags=0 if refork else _clone_flags(names),
        uid_map=_id_map(linux, "uidMappings", user),
        gid_map=_id_map(linux, "gidMappings", user),
        hooks=hooks,
        resources=d.mapping(linux, "resources", "linux."),
        oom_score=score if isinstance(score, int) and prepared else None,
        refork=refork,
        terminal=d.boolean(spec, "terminal", False, "process."),
        operations=tuple(steps),
        preparations=tuple(preparations),
    )


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
    *,
    keyring: bool,
    enter: bool,
    with_init: bool,
) -> list[Operation]:
    args = process_plan.check(spec)
    terminal = d.boolean(spec, "terminal", False, "process.")
    identity = process_plan.identity(spec, host.bounding)
    operations: list[Operation] = [process.Streams(identity.uid, terminal)]
    operations += process_plan.early(spec, identifier, keyring)
    domain = process_plan.personality(linux)
    if domain is not None:
        operations.append(domain)
    filter = process_plan.seccomp(d.mapping(linux, "seccomp", "linux."), host.seccomp_cache)
    waiting: list[Operation] = [setup.EnterCgroup()] if enter else []
    waiting.append(setup.AwaitGo())
    if wait:
        path = process_plan.environment(spec).get("PATH", "")
        # Our init is in no directory to be looked for: a path of no fixed place is not.
        program = f"./{args[0]}" if with_init else args[0]
        waiting.append(process.AwaitStart(program, path))
    if hooks["startContainer"]:
        waiting.append(RunHooks("startContainer", hooks["startContainer"]))
    operations += waiting
    last = process_plan.finish(spec, identity, filter)
    return operations + (init.wrap(last, args, process_plan.environment(spec)) if with_init else last)
