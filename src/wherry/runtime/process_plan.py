"""An OCI `process` object to operations: what a container's init and an exec'ed process have in common."""

from __future__ import annotations

import errno
import resource

from wherry.errors import FailedPrecondition, InvalidArgument
from wherry.kernel import capabilities
from wherry.runtime import document as d
from wherry.runtime import process as p

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wherry.runtime.scene import Operation

_IO_CLASSES = {"IOPRIO_CLASS_NONE": 0, "IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_PERSONALITIES = {"LINUX": 0, "LINUX32": 8}


def check(process: Mapping[str, Any]) -> tuple[str, ...]:
    """The arguments, after the checks that need no other part; InvalidArgument says what is wrong."""
    args = d.strings(process, "args", "process.")
    if not args or not args[0]:
        raise InvalidArgument("config.json: process.args is empty", hint="name a program to run")
    if not d.string(process, "cwd", "", "process.").startswith("/"):
        raise InvalidArgument("config.json: process.cwd must be an absolute path")
    if d.string(process, "selinuxLabel", "", "process.") not in ("", "unconfined"):
        from wherry.errors import Unimplemented

        raise Unimplemented("process.selinuxLabel is not supported", hint="leave it out, or use 'unconfined'")
    if profile(process):
        _require_apparmor()
    return args


def profile(process: Mapping[str, Any]) -> str:
    """The AppArmor profile asked for, "" for none."""
    found = d.string(process, "apparmorProfile", "", "process.")
    return "" if found == "unconfined" else found


def _require_apparmor() -> None:
    try:
        with open("/sys/module/apparmor/parameters/enabled", "rb") as file:
            if file.read(1) == b"Y":
                return
    except FileNotFoundError:
        pass
    raise FailedPrecondition(
        "process.apparmorProfile: this kernel has no AppArmor", hint="leave it out, or use 'unconfined'"
    )


def early(process: Mapping[str, Any], identifier: str, keyring: bool = True) -> list[Operation]:
    """What needs the runtime's own privileges: limits, keyring, priorities."""
    operations: list[Operation] = []
    limits = _rlimits(process)
    if limits:
        operations.append(p.Rlimits(limits))
    if keyring:
        operations.append(p.Keyring(f"_ses.{identifier}"))
    schedule = _schedule(process)
    if schedule is not None:
        operations.append(schedule)
    return operations


def identity(process: Mapping[str, Any], present: int, set_groups: bool = True) -> p.Identity:
    """User, groups, capabilities. `present`: the runtime's own bounding set."""
    user = d.mapping(process, "user", "process.")
    groups = user.get("additionalGids") or []
    if not isinstance(groups, list) or not all(isinstance(gid, int) for gid in groups):
        raise InvalidArgument("config.json: process.user.additionalGids must be a list of integers")
    sets = capability_sets(process)
    gone = present & ~sets.bounding
    return p.Identity(
        uid=d.integer(user, "uid", 0, "process.user."),
        gid=d.integer(user, "gid", 0, "process.user."),
        groups=tuple(groups),
        umask=d.integer(user, "umask", 0o022, "process.user."),
        cwd=d.string(process, "cwd", "/", "process."),
        sets=sets,
        present=present,
        drops=tuple([bit for bit in range(64) if gone >> bit & 1]),
        no_new_privs=d.boolean(process, "noNewPrivileges", False, "process."),
        set_groups=set_groups,
    )


def capability_sets(process: Mapping[str, Any]) -> p.CapabilitySets:
    """The five sets as masks. Names this kernel or this version does not know are an error."""
    found = d.mapping(process, "capabilities", "process.")
    masks = []
    for name in p.CapabilitySets._fields:
        mask = 0
        for capability in d.strings(found, name, "process.capabilities."):
            bit = capabilities.BIT_OF.get(capability)
            if bit is None:
                raise InvalidArgument(f"unknown capability {capability!r}", hint="as in capabilities(7): CAP_CHOWN")
            mask |= 1 << bit
        masks.append(mask)
    return p.CapabilitySets(*masks)


def environment(process: Mapping[str, Any]) -> dict[str, str]:
    """`env` as a mapping; the last of two values for a name wins, and what has no "=" is left out."""
    pairs = [entry.partition("=") for entry in d.strings(process, "env", "process.")]
    return {name: value for name, equals, value in pairs if name and equals}


def finish(process: Mapping[str, Any], identity: p.Identity, filter: p.Seccomp | None) -> list[Operation]:
    """The last steps. A filter without no_new_privs needs CAP_SYS_ADMIN and must come before the identity is taken on;
    with it, right before exec, so that the filter need not allow what the identity takes."""
    execute = p.Execute(check(process), environment(process))
    name = profile(process)
    first: list[Operation] = [p.Confine(name)] if name else []
    first.append(p.SealDescriptors())
    if filter is None:
        return [*first, identity, execute]
    if identity.no_new_privs:
        return [*first, identity, filter, execute]
    return [*first, p.WorkingDirectory(identity.cwd), filter, identity, execute]


def _rlimits(process: Mapping[str, Any]) -> tuple[tuple[int, str, int, int], ...]:
    found = []
    for entry in d.items(process, "rlimits", "process."):
        name = d.string(entry, "type", "", "process.rlimits.")
        number = getattr(resource, name, None) if name.startswith("RLIMIT_") else None
        if number is None:
            raise InvalidArgument(f"unknown resource limit {name!r}")
        soft, hard = (_limit(d.integer(entry, key, 0, "process.rlimits.")) for key in ("soft", "hard"))
        infinity = resource.RLIM_INFINITY
        if hard != infinity and (soft == infinity or soft > hard):
            raise InvalidArgument(f"{name}: the soft limit {soft} is above the hard limit {hard}")
        found.append((number, name, soft, hard))
    return tuple(found)


def _limit(value: int) -> int:
    # The specification's numbers are unsigned 64 bit, its infinity all ones; Python's is -1.
    return resource.RLIM_INFINITY if value < 0 or value >= (1 << 63) else value


def _schedule(process: Mapping[str, Any]) -> p.Schedule | None:
    if process.get("scheduler") or process.get("execCPUAffinity"):
        from wherry.errors import Unimplemented

        raise Unimplemented("process.scheduler and process.execCPUAffinity are not supported")
    priority = d.mapping(process, "ioPriority", "process.")
    if not priority:
        return None
    name = d.string(priority, "class", "", "process.ioPriority.")
    if name not in _IO_CLASSES:
        raise InvalidArgument(f"unknown I/O priority class {name!r}", hint=", ".join(_IO_CLASSES))
    return p.Schedule((_IO_CLASSES[name], d.integer(priority, "priority", 0, "process.ioPriority.")), -1)


def personality(linux: Mapping[str, Any]) -> p.Schedule | None:
    """`linux.personality`."""
    found = d.mapping(linux, "personality", "linux.")
    if not found:
        return None
    domain = d.string(found, "domain", "", "linux.personality.")
    if domain not in _PERSONALITIES or found.get("flags"):
        raise InvalidArgument(f"unknown execution domain {domain!r}", hint="LINUX or LINUX32, without flags")
    return p.Schedule(None, _PERSONALITIES[domain])


def seccomp(profile: Mapping[str, Any] | None, cache: str | None = None) -> p.Seccomp | None:
    """A filter from a `linux.seccomp` object, compiled or taken from the cache, a directory."""
    if not profile:
        return None
    from wherry.kernel import seccomp as compiler

    if profile.get("listenerPath"):
        from wherry.errors import Unimplemented

        raise Unimplemented("seccomp notification (linux.seccomp.listenerPath) is not supported")
    try:
        return p.Seccomp(compiler.compile(profile, cache), compiler.flags(profile))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        raise InvalidArgument(str(error.strerror)) from None
