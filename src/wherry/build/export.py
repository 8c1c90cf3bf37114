"""A solved plan as an image configuration: layers, history and times, as BuildKit writes them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from wherry.build.cache import CacheRecord
from wherry.build.graph import Node, Plan
from wherry.build.history import COMMENT
from wherry.images.image import now_rfc3339
from wherry.spec.oci_image import History, ImageConfig, RootFS


def describe(
    plan: Plan,
    below: Sequence[str],
    record_of: Callable[[Node], CacheRecord | None],
    now_ns: int,
    *,
    fixed: bool = False,
) -> ImageConfig:
    """The configuration of the result. A step's time is when its layer was made, so that what comes whole from the
    cache is the same image as before; with `fixed` every time is `now_ns` (SOURCE_DATE_EPOCH).
    """
    diff_ids = list(below)
    steps: list[History] = []
    times: list[int | None] = []
    for step in plan.steps:
        record = record_of(step.node) if step.node is not None else None
        if record is not None:
            diff_ids.append(record.diff_id)
        times.append(now_ns if fixed else record.created_ns if record is not None else None)
        steps.append(History(created_by=step.created_by, comment=COMMENT, empty_layer=record is None))
    filled = _filled(times, now_ns)
    dated = [replace(step, created=now_rfc3339(time)) for step, time in zip(steps, filled, strict=True)]
    history = (*plan.config.history, *dated)
    created = history[-1].created if dated else (now_rfc3339(now_ns) if fixed else _last(plan.config.history))
    return replace(
        plan.config,
        created=created or now_rfc3339(now_ns),
        rootfs=RootFS(diff_ids=tuple(diff_ids)),
        history=history,
    )


def _filled(times: Sequence[int | None], now_ns: int) -> list[int]:
    """Steps without a layer take the time of the layer before them, those at the start that of the first layer."""
    known = next((time for time in times if time is not None), None)
    current = known if known is not None else now_ns
    filled = []
    for time in times:
        current = time if time is not None else current
        filled.append(current)
    return filled


def _last(history: Sequence[History]) -> str | None:
    return next((step.created for step in reversed(history) if step.created), None)
