"""Telling the service manager how it goes (sd_notify(3))."""

import os
import socket


def notify(state: str) -> None:
    """Send `state` ("READY=1") to the service manager, if one started us."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto(state.encode(), address)
        except OSError:
            # Whoever listened has gone; the daemon works without it.
            pass
