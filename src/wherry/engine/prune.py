"""Removing every container that does not run."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from wherry.engine import removal
from wherry.engine.container import Container
from wherry.engine.core import Core
from wherry.errors import InvalidArgument

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


async def prune(core: Core, filters: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Docker's prune document."""
    for name in filters:
        if name not in ("label", "label!", "until"):
            raise InvalidArgument(f"invalid filter '{name}'", object=name)
    limit = parse_until(filters["until"][0]) if filters.get("until") else None
    candidates = [container for container in core.index if _matches(container, filters, limit)]
    deleted: list[str] = []
    reclaimed = 0
    for container in candidates:
        async with container.lock:
            if container.id not in core.index or container.state.running or container.state.status == "starting":
                continue
            reclaimed += await asyncio.to_thread(core.parts.snapshots.usage, container.id)
            removal.remove_locked(core, container, volumes=False)
            deleted.append(container.id)
    core.events.emit("container", "prune", "", {"reclaimed": str(reclaimed)})
    return {"ContainersDeleted": deleted or None, "SpaceReclaimed": reclaimed}


def _matches(container: Container, filters: Mapping[str, Sequence[str]], limit: float | None) -> bool:
    if container.state.running or container.state.status == "starting":
        return False
    if limit is not None and container.definition.created_ns > limit * 1e9:
        return False
    labels = container.definition.config.labels or {}
    return all(_has(labels, text) for text in filters.get("label", ())) and not any(
        _has(labels, text) for text in filters.get("label!", ())
    )


def _has(labels: Mapping[str, str], text: str) -> bool:
    name, equals, value = text.partition("=")
    return name in labels and (not equals or labels[name] == value)


def parse_until(text: str) -> float:
    """A Unix time, or a duration before now ("24h", "10m", "1h30m")."""
    try:
        return float(text)
    except ValueError:
        pass
    total, number = 0.0, ""
    for character in text:
        if character.isdigit() or character == ".":
            number += character
        elif character in _UNITS and number:
            total, number = total + float(number) * _UNITS[character], ""
        else:
            raise InvalidArgument(f'failed to parse value as time or duration: "{text}"', object="until")
    return time.time() - total
