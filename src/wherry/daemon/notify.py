"""Telling the service manager how it goes (sd_notify(3)), and that the daemon is alive (its watchdog)."""

import asyncio
import os
import socket
import time


def notify(*lines: str) -> None:
    """Send lines ("READY=1") to the service manager, if one started us."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto("\n".join(lines).encode(), address)
        except OSError:
            # Whoever listened has gone; the daemon works without it.
            pass


def notify_reloading() -> None:
    """A reload begins; READY=1 ends it. The time lets the manager match the two (Type=notify-reload)."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def watchdog_seconds() -> float | None:
    """How often the manager wants to hear of us, halved as sd_watchdog_enabled(3) asks; None: not at all."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or not int(microseconds) or (pid and pid != str(os.getpid())):
        return None
    return int(microseconds) / 2e6


async def feed_watchdog() -> None:
    """From the event loop, so that silence means that it does not turn."""
    seconds = watchdog_seconds()
    while seconds is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(seconds)
