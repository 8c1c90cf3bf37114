"""From an engine's address to a connected socket: unix, TCP, TLS, and ssh with `dial-stdio` at the far end.

`_socket` rather than `socket`: the wrapper module imports enum, selectors and io, 8 ms for nothing we use.
"""

from __future__ import annotations

import _socket

from wherry.errors import InvalidArgument, PermissionDenied, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.client.http import Socket


class Endpoint:
    """Where an engine listens. `tls`: None, or the paths (ca, certificate, key), "" for what is absent."""

    __slots__ = ("context", "host", "tls", "verify")

    def __init__(
        self, host: str, tls: tuple[str, str, str] | None = None, verify: bool = True, context: str = "default"
    ) -> None:
        self.host = normalize(host)
        self.tls = tls
        self.verify = verify
        self.context = context

    @property
    def http_host(self) -> str:
        """The Host header. An engine behind a unix socket ignores it."""
        scheme, _, rest = self.host.partition("://")
        return rest.partition("/")[0] if scheme == "tcp" else "api.moby.localhost"

    def connect(self) -> Socket:
        scheme, _, rest = self.host.partition("://")
        try:
            if scheme == "unix":
                sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
                sock.connect(rest)
                return sock
            if scheme == "ssh":
                return _ssh(rest)
            return self._tcp(rest)
        except PermissionError as error:
            raise PermissionDenied(
                "permission denied while trying to connect to the Docker daemon socket"
                f" at {self.host}: {error.strerror}"
            ) from error
        except OSError as error:
            raise Unavailable(
                f"Cannot connect to the Docker daemon at {self.host}. Is the docker daemon running?"
            ) from error

    def _tcp(self, rest: str) -> Socket:
        name, port = _split(rest.partition("/")[0])
        error: OSError | None = None
        for family, kind, protocol, _, address in _socket.getaddrinfo(name, port, 0, _socket.SOCK_STREAM):
            sock = _socket.socket(family, kind | _socket.SOCK_CLOEXEC, protocol)
            try:
                sock.connect(address)
            except OSError as failure:
                sock.close()
                error = failure
                continue
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            return self._wrap(sock, name) if self.tls is not None else sock
        raise error or OSError("no address")

    def _wrap(self, raw: _socket.socket, name: str) -> Socket:
        import socket
        import ssl

        assert self.tls is not None
        authority, certificate, key = self.tls
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if self.verify:
                context.load_verify_locations(authority) if authority else context.load_default_certs()
            else:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if certificate:
                context.load_cert_chain(certificate, key)
            return context.wrap_socket(socket.socket(fileno=raw.detach()), server_hostname=name)
        except (ssl.SSLError, FileNotFoundError) as error:
            raise Unavailable(f"error during connect: {self.host}: {error}") from error


def normalize(host: str) -> str:
    """An address as docker writes it, whole: `tcp://` without a port gets 2375, a bare path is a unix socket."""
    scheme, found, rest = host.partition("://")
    if not found:
        return normalize(f"unix://{host}" if host.startswith("/") else f"tcp://{host}")
    if scheme == "unix":
        return f"unix://{rest or '/var/run/docker.sock'}"
    if scheme in ("tcp", "http", "https"):
        name, port = _split(rest.partition("/")[0] or "localhost")
        return f"tcp://{f'[{name}]' if ':' in name else name}:{port}"
    if scheme == "ssh":
        return host
    raise InvalidArgument(f"invalid address {host!r} for the engine: unix, tcp and ssh are known")


def _split(address: str) -> tuple[str, int]:
    if address.startswith("["):
        name, _, port = address[1:].partition("]")
        port = port.lstrip(":")
    else:
        name, _, port = address.partition(":")
    if port and not port.isdigit():
        raise InvalidArgument(f"invalid port {port!r} in the engine's address")
    return name or "localhost", int(port or 2375)


def _ssh(rest: str) -> Socket:
    """ssh [-l user] [-p port] -- host docker system dial-stdio, with a socket pair as its standard streams."""
    import posix

    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    user, _, address = rest.partition("/")[0].rpartition("@")
    name, _, port = address.partition(":")
    if not name or name.startswith("-"):
        raise InvalidArgument(f"invalid host in ssh://{rest}")
    command = ["ssh", "-o", "ConnectTimeout=30", "-T"]
    command += (
        (["-l", user] if user else []) + (["-p", port] if port else []) + ["--", name, "docker", "system", "dial-stdio"]
    )
    fd = theirs.fileno()
    actions = [(posix.POSIX_SPAWN_DUP2, fd, 0), (posix.POSIX_SPAWN_DUP2, fd, 1)]
    program = _which("ssh")
    posix.posix_spawn(program, command, posix.environ, file_actions=actions)
    theirs.close()
    return ours


def _which(name: str) -> str:
    import posix

    for directory in posix.environ.get(b"PATH", b"/usr/bin:/bin").decode().split(":"):
        path = f"{directory or '.'}/{name}"
        if posix.access(path, 1):
            return path
    raise Unavailable(f"the program {name!r} is not on this machine, and ssh:// addresses need it")
