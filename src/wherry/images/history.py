"""How an image came to be, as `docker history` shows it."""

from collections.abc import Callable, Sequence

from wherry.images.image import HistoryEntry, Image, unix_seconds
from wherry.spec.digest import Digest

_MISSING = "<missing>"


def history(image: Image, sizes: Sequence[int], get: Callable[[Digest], Image | None]) -> list[HistoryEntry]:
    """Newest step first; `sizes` are the layers', bottom first; `get` finds parents, which name the older steps."""
    layers = iter(sizes)
    steps = [
        HistoryEntry(
            id=_MISSING,
            created=unix_seconds(step.created),
            created_by=step.created_by,
            tags=None,
            size=0 if step.empty_layer else next(layers, 0),
            comment=step.comment,
        )
        for step in image.config.history
    ]
    steps.reverse()
    current: Image | None = image
    for number, step in enumerate(steps):
        if current is None:
            break
        steps[number] = step._replace(id=current.id, tags=current.references or None)
        current = get(current.parent) if current.parent else None
    return steps
