"""A further process in a running container, as a plan."""

from __future__ import annotations

from wherry.kernel import capabilities, namespaces
from wherry.runtime import document as d
from wherry.runtime import process, process_plan, setup
from wherry.runtime.mount_plan import console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wherry.runtime.scene import Operation
    from wherry.runtime.state import Record

_PTRACE = 1 << capabilities.BIT_OF["CAP_SYS_PTRACE"]


def is_guarded(config: Mapping[str, Any]) -> bool:
    """Whether the container could lay hands on a process of ours: see `operations`."""
    return bool(process_plan.capability_sets(d.mapping(config, "process")).bounding & _PTRACE)


def _has_own_mounts(config: Mapping[str, Any]) -> bool:
    entries = d.items(d.mapping(config, "linux"), "namespaces", "linux.")
    return any(entry.get("type") == "mount" and not entry.get("path") for entry in entries)


def operations(
    config: Mapping[str, Any],
    spec: Mapping[str, Any],
    record: Record,
    bounding: int,
    filter: process.Seccomp | None,
) -> list[Operation]:
    """Run `spec` (an OCI Process object) in the container of `config`.

    CVE-2016-9962: a process of the container's must not lay hands on ours while it still has our privileges. It is not
    dumpable, which keeps out all but those with CAP_SYS_PTRACE. Where the container has that, the whole set-up happens
    outside of its pid namespace, and only a process that has nothing more than the container's own is born in it.
    Where it has not, the process is born in it right away (launch.Launch.join_pid).
    """
    process_plan.check(spec)
    guarded = is_guarded(config)
    flags = record.namespaces if guarded else record.namespaces & ~namespaces.CLONE_NEWPID
    steps: list[Operation] = [setup.EnterCgroup()]
    score = spec.get("oomScoreAdj")
    if score is None:
        score = d.mapping(config, "process").get("oomScoreAdj")
    if isinstance(score, int):
        steps.append(setup.OomScore(score))
    if process_plan.profile(spec):
        steps.append(setup.OpenConfinement())
    steps.append(setup.JoinProcess(flags, not _has_own_mounts(config)))
    if record.user_namespace:
        steps.append(setup.BecomeRoot(False))
    terminal = d.boolean(spec, "terminal", False, "process.")
    if terminal:
        steps.append(console(spec, join=True))
    identity = process_plan.identity(spec, capabilities.every() if record.user_namespace else bounding)
    streams = process.Streams(identity.uid, terminal)
    limits = process_plan.early(spec, record.id)
    finish = process_plan.finish(spec, identity, filter)
    if not guarded:
        return [*steps, streams, *limits, *finish]
    # The fork comes after the identity, when nothing of ours is left, and the session must be the new process's.
    at = finish.index(identity) + 1
    return [*steps, *limits, *finish[:at], setup.Fork(0), streams, *finish[at:]]
