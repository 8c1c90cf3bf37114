"""Times as docker's listings write them."""

from __future__ import annotations

import time


def written(seconds: float) -> str:
    """2026-11-21 22:55:29 +0000 UTC, in local time."""
    local = time.localtime(seconds)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S %z', local)} {local.tm_zone}"


def rfc3339(seconds: float) -> str:
    """2026-11-21T22:55:29Z, in local time, with the zone as Go writes it."""
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    return time.strftime("%Y-%m-%dT%H:%M:%S", local) + ("Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}")


def from_rfc3339(text: str) -> float:
    """Seconds since the epoch, of 2026-11-21T22:55:29.123456789Z and the like; 0 when it is not a time."""
    import datetime

    try:
        whole, _, rest = text.partition(".")
        fraction = rest.rstrip("Z").partition("+")[0].partition("-")[0] if rest else ""
        zone = rest[len(fraction) :] if rest else ""
        moment = datetime.datetime.fromisoformat(whole + zone)
        return moment.timestamp() + (float(f"0.{fraction}") if fraction else 0)
    except ValueError:
        return 0
