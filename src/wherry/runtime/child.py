"""The forked child, from its birth to exec: it reads the configuration, makes the operations and carries them out.

Its parent only needs an outline (plan.py). What the child needs comes as a recipe: JSON, so that it can cross to a
child of the forker (forker.py) as well as be passed to one's own.

    ["container", id, bundle, layers, host, wait, choices]     layers: lists of Mount's fields
    ["exec", process, record, bounding]
"""

from __future__ import annotations

import gc
import os

from wherry import errors
from wherry.kernel import namespaces, processes
from wherry.runtime import exec_plan, plan
from wherry.runtime.scene import Refused
from wherry.runtime.state import Record
from wherry.spec.mount import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from wherry.runtime.process import Seccomp
    from wherry.runtime.scene import Operation, Scene

Recipe = list  # of JSON values


def operations(recipe: Sequence[Any], config: Mapping[str, Any], filter: Seccomp | None, pidfd: int) -> list[Operation]:
    """The steps of a recipe; errors of the configuration are of wherry.errors."""
    if recipe[0] == "exec":
        _, process, record, bounding = recipe
        return exec_plan.operations(config, process, Record(*record), pidfd, bounding, filter)
    _, identifier, bundle, layers, host, wait, choices = recipe
    mounts = [Mount(kind, source, tuple(options), tuple(lower)) for kind, source, options, lower in layers]
    made = plan.outline(config)
    return plan.operations(
        config, made, identifier, bundle, mounts, plan.Host(*host), filter, wait=wait, choices=plan.Choices(*choices)
    )[0]


def run(recipe: Sequence[Any], config: Mapping[str, Any], filter: Seccomp | None, scene: Scene) -> None:
    """The child's whole life; never returns."""
    stage = "prepare"
    try:
        gc.disable()
        _close_others(scene)
        os.umask(0)
        if scene.network >= 0:
            namespaces.setns(scene.network, namespaces.CLONE_NEWNET)
        for operation in operations(recipe, config, filter, scene.pidfd):
            stage = ""
            operation.apply(scene)
        raise AssertionError("the plan does not end in exec")
    except BaseException as error:  # noqa: BLE001 - a forked child has no one above it
        try:
            _tell(scene, error, stage or operation.describe())
        finally:
            os._exit(1)


def _tell(scene: Scene, error: BaseException, stage: str) -> None:
    if isinstance(error, Refused):
        scene.tell({"error": {"kind": error.kind, "text": str(error)}})
    elif isinstance(error, errors.WherryError):
        scene.tell({"error": {"kind": type(error).__name__, "text": error.message, "hint": error.hint}})
    else:
        number = error.errno if isinstance(error, OSError) else 0
        scene.tell({"error": {"stage": stage, "errno": number or 0, "text": str(error) or repr(error)}})


def _close_others(scene: Scene) -> None:
    """A child may wait long for its start: what it holds of others (their pipes, clients) would never see an end."""
    keep = {scene.channel.fileno(), scene.null, scene.start_socket, scene.pidfd, scene.network, *scene.stdio}
    keep.update(scene.cgroup_entries, scene.trees.values(), range(3 + scene.preserve))
    first = 3
    for fd in sorted(keep):
        if fd >= first:
            if fd > first:
                processes.close_range(first, fd - 1)
            first = fd + 1
    processes.close_range(first)
