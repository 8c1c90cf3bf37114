"""A connection that is made when it is needed and thrown away when it fails."""

import select
import socket
import ssl
from typing import Any

from wherry.logs.remote.driver import TIMEOUT


class Connection:
    """To (`scheme`, `host` or path, `port`): tcp, tls, udp, unix, unixgram. Raises OSError, naming the address."""

    def __init__(
        self, scheme: str, host: str, port: int, context: ssl.SSLContext | None = None, timeout: float = TIMEOUT
    ) -> None:
        self._scheme, self._host, self._port = scheme, host, port
        self._context = context
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._where: Any = None

    def open(self) -> socket.socket:
        """The socket, connected."""
        if self._socket is None:
            try:
                self._socket = self._connect()
            except OSError as error:
                where = self._host if self._scheme.startswith("unix") else f"{self._host}:{self._port}"
                reason = (error.strerror or str(error)).lower()
                raise OSError(error.errno, f"dial {self._scheme} {where}: connect: {reason}") from None
        return self._socket

    def send(self, data: bytes) -> None:
        """All of it. A stream that the other side has closed is noticed before it is written to, not only after."""
        connection = self.open()
        if self._scheme in ("tcp", "unix") and self._ended(connection):
            self.close()
            connection = self.open()
        if self._scheme == "udp":
            connection.sendto(data, self._where)
        elif self._scheme == "unixgram":
            connection.send(data)
        else:
            connection.sendall(data)

    def close(self) -> None:
        """Throw it away; the next use makes another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> socket.socket:
        if self._scheme.startswith("unix"):
            kind = socket.SOCK_DGRAM if self._scheme == "unixgram" else socket.SOCK_STREAM
            made = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
            made.settimeout(self._timeout)
            try:
                made.connect(self._host)
            except BaseException:
                made.close()
                raise
            return made
        if self._scheme == "udp":
            family, kind, protocol, _, where = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)[0]
            made = socket.socket(family, kind, protocol)
            made.settimeout(self._timeout)
            # Not connected: that nobody listens there (ICMP) must not hold messages back, nor does it with docker.
            self._where = where
            return made
        made = socket.create_connection((self._host, self._port), self._timeout)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return self._context.wrap_socket(made, server_hostname=self._host) if self._context is not None else made

    @staticmethod
    def _ended(connection: socket.socket) -> bool:
        poller = select.poll()
        poller.register(connection, select.POLLIN)
        return bool(poller.poll(0)) and connection.recv(1, socket.MSG_PEEK) == b""


def tls(ca: str = "", cert: str = "", key: str = "", *, insecure: bool = False, name: bool = True) -> ssl.SSLContext:
    """A client's context: verified by `ca` or the system's authorities unless `insecure`."""
    context = ssl.create_default_context(cafile=ca or None)
    if insecure or not name:
        context.check_hostname = False
    if insecure:
        context.verify_mode = ssl.CERT_NONE
    if cert:
        context.load_cert_chain(cert, key or None)
    return context
