"""Where a sandbox asks: the sockets of 127.0.0.11 in its network namespace.

Port 53 there is left to the container's own use: what is sent to it is led to ports the kernel chose.
"""

from __future__ import annotations

import _socket
import os

from wherry.kernel import namespaces, portswap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

ADDRESS, PORT = "127.0.0.11", 53
TABLE = "wherry_dns"
_BACKLOG = 64
_FLAGS = _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK


class Home:
    """The resolver's own network namespace, the host's, to which it always comes back."""

    def __init__(self) -> None:
        self._fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def visit(self, netns: str, work: Callable[[], T]) -> T:
        """The result of `work`, done in the network namespace mounted on the file `netns`."""
        there = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            namespaces.setns(there, namespaces.CLONE_NEWNET)
        finally:
            os.close(there)
        try:
            return work()
        finally:
            try:
                namespaces.setns(self._fd, namespaces.CLONE_NEWNET)
            except OSError:
                os._exit(70)  # it would answer for the host from within a container


def open_door() -> tuple[_socket.socket, _socket.socket]:
    """In the sandbox's namespace: the sockets for UDP and TCP, ready."""
    udp = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _FLAGS)
    tcp = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM | _FLAGS)
    try:
        udp.bind((ADDRESS, 0))
        tcp.bind((ADDRESS, 0))
        tcp.listen(_BACKLOG)
        served = (portswap.UDP, udp.getsockname()[1]), (portswap.TCP, tcp.getsockname()[1])
        portswap.swap(TABLE, ADDRESS, PORT, served)
    except BaseException:
        udp.close()
        tcp.close()
        raise
    return udp, tcp
