"""The `filters` parameter of the API: {"name": {"value": true}} as JSON."""

from __future__ import annotations

from wherry.client.codec import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def encode(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The query parameters for --filter flags: none, or one."""
    merged: dict[str, dict[str, bool]] = {}
    for name, value in pairs:
        merged.setdefault(name, {})[value] = True
    return [("filters", dumps(merged))] if merged else []
