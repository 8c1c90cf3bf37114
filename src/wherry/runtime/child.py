"""The forked child, from its birth to exec: it carries the operations out."""

from __future__ import annotations

import gc
import os

from wherry.kernel import namespaces, processes
from wherry.runtime.scene import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.runtime.scene import Operation, Scene


def run(operations: Sequence[Operation], scene: Scene) -> None:
    """The child's whole life; never returns."""
    stage = "prepare"
    try:
        gc.disable()
        close_others(_kept(scene))
        os.umask(0)
        if scene.network >= 0:
            namespaces.setns(scene.network, namespaces.CLONE_NEWNET)
        for operation in operations:
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
    else:
        number = error.errno if isinstance(error, OSError) else 0
        scene.tell({"error": {"stage": stage, "errno": number or 0, "text": str(error) or repr(error)}})


def _kept(scene: Scene) -> set[int]:
    keep = {scene.channel.fileno(), scene.null, scene.start_socket, scene.pidfd, scene.network, *scene.stdio}
    keep.update(scene.trees.values(), range(3 + scene.preserve))
    return keep


def close_others(keep: set[int]) -> None:
    """Close all but these and 0 to 2.

    A child may wait long for its start: what it holds of others (their pipes, clients) would never see an end.
    """
    first = 3
    for fd in sorted(keep):
        if fd >= first:
            if fd > first:
                processes.close_range(first, fd - 1)
            first = fd + 1
    processes.close_range(first)
