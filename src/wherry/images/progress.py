"""Docker's progress messages, as its clients draw them.

{"status": "Downloading", "progressDetail": {"current": 1, "total": 2}, "progress": "[==>  ] 1B/2B", "id": "5f29..."}
"""

import time
from collections.abc import Callable
from typing import Any

Progress = Callable[[dict[str, Any]], None]

_BAR = 50
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_INTERVAL_SECONDS = 0.1


def human_size(size: float) -> str:
    """Bytes as docker writes them: four significant digits, powers of 1000 ("1.234MB")."""
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size /= 1000
        unit += 1
    return f"{size:.4g}{_UNITS[unit]}"


def bar(current: int, total: int) -> str:
    """The bar docker's daemon sends beside the numbers."""
    if total <= 0:
        return f"{human_size(current):>8}"
    if current > total:
        return f"{human_size(current):>8}"
    filled = min(current * 100 // total // 2, _BAR)
    return f"[{'=' * filled}>{' ' * (_BAR - filled)}] {human_size(current):>8}/{human_size(total)}"


class Step:
    """One line of progress (a layer): what it does now, and how far it is. Reports ten times a second at most."""

    def __init__(self, progress: Progress, id: str) -> None:
        self._progress = progress
        self._id = id
        self._last = 0.0

    def state(self, status: str) -> None:
        """What it does, without a figure."""
        self._last = 0.0
        self._progress({"status": status, "progressDetail": {}, "id": self._id})

    def advance(self, status: str, current: int, total: int) -> None:
        """How far it is; the end is always reported."""
        now = time.monotonic()
        if current < total and now - self._last < _INTERVAL_SECONDS:
            return
        self._last = now
        detail = {"current": current, "total": total} if total > 0 else {"current": current}
        message = {"status": status, "progressDetail": detail, "progress": bar(current, total), "id": self._id}
        self._progress(message)


def short_id(digest: str) -> str:
    """The first twelve digits, as docker shows ids."""
    return digest.partition(":")[2][:12] or digest[:12]
