"""A further process in a running container, as a plan."""

from __future__ import annotations

from wherry.kernel import capabilities, namespaces
from wherry.runtime import document as d
from wherry.runtime import process, process_plan, setup
from wherry.runtime.mount_plan import console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NamedTuple

    from wherry.runtime.scene import Operation
    from wherry.runtime.state import Record
else:
    from wherry.kernel.tuples import NamedTuple

_PTRACE = 1 << capabilities.BIT_OF["CAP_SYS_PTRACE"]


class ExecPlan(NamedTuple):
    """`born_inside`: the child is cloned right into the container's pid namespace."""

    operations: tuple[Operation, ...]
    born_inside: bool


def build(config: Mapping[str, Any], spec: Mapping[str, Any], record: Record, pidfd: int, bounding: int) -> ExecPlan:
    """The plan to run `spec` (an OCI Process object) in the container of `config`.

    CVE-2016-9962: a process of the container's must not lay hands on ours while it still has our privileges. It is not
    dumpable, which keeps out all but those with CAP_SYS_PTRACE. Where the container has that, the whole set-up happens
    outside of its pid namespace, and only a process that has nothing more than the container's own is born in it.
    """
    process_plan.check(spec)
    guarded = bool(process_plan.capability_sets(d.mapping(config, "process")).bounding & _PTRACE)
    flags = record.namespaces
    inside = bool(flags & namespaces.CLONE_NEWPID) and not guarded
    if inside:
        flags &= ~namespaces.CLONE_NEWPID
    operations: list[Operation] = [setup.EnterCgroup()]
    score = spec.get("oomScoreAdj")
    if score is None:
        score = d.mapping(config, "process").get("oomScoreAdj")
    if isinstance(score, int):
        operations.append(setup.OomScore(score))
    operations.append(setup.JoinProcess(pidfd, flags))
    if record.user_namespace:
        operations.append(setup.BecomeRoot(False))
    terminal = d.boolean(spec, "terminal", False, "process.")
    if terminal:
        operations.append(console(spec, join=True))
    identity = process_plan.identity(spec, bounding)
    streams = process.Streams(identity.uid, terminal)
    filter = process_plan.seccomp(d.mapping(d.mapping(config, "linux"), "seccomp", "linux."))
    limits = process_plan.early(spec, record.id)
    finish = process_plan.finish(spec, identity, filter)
    if not guarded:
        return ExecPlan((*operations, streams, *limits, *finish), inside)
    # The fork comes after the identity, when nothing of ours is left, and the session must be the new process's.
    at = finish.index(identity) + 1
    return ExecPlan((*operations, *limits, *finish[:at], setup.Fork(0), streams, *finish[at:]), False)
