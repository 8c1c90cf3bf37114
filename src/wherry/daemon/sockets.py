"""Listening sockets: unix://, tcp:// and fd:// (systemd's socket activation)."""

import logging
import os
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wherry.daemon.settings import Settings
from wherry.daemon.unix_socket import bind_unix, find_group
from wherry.errors import FailedPrecondition, InvalidArgument

log = logging.getLogger("wherry.daemon")

_BACKLOG = 1024
_FIRST_FD = 3
"""The first descriptor passed by the service manager (sd_listen_fds(3))."""


@dataclass(slots=True)
class Listener:
    """One listening socket. `path` is set for unix sockets that are ours to remove."""

    socket: socket.socket
    address: str
    tls: bool = False
    path: Path | None = None
    inode: int = 0

    def close(self) -> None:
        """Stop listening, and take the socket's file away unless somebody else has put theirs there."""
        if self.path is not None:
            try:
                if self.path.lstat().st_ino == self.inode:
                    self.path.unlink()
            except FileNotFoundError:
                pass
        self.socket.close()


def listen(settings: Settings) -> list[Listener]:
    """All listening sockets of the settings; when one fails, none is left open."""
    listeners: list[Listener] = []
    try:
        for host in settings.hosts:
            listeners.extend(_listen(host, settings))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _listen(host: str, settings: Settings) -> Iterable[Listener]:
    scheme, separator, rest = host.partition("://")
    if not separator:
        scheme, rest = "tcp", host
    if scheme == "unix":
        return [_listen_unix(Path(rest or "/var/run/docker.sock"), settings)]
    if scheme == "tcp":
        return [_listen_tcp(rest, settings)]
    if scheme == "fd":
        return _inherit(rest)
    raise InvalidArgument(
        f"invalid bind address ({host}): unsupported proto '{scheme}'", hint="unix://, tcp:// or fd://"
    )


def _listen_unix(path: Path, settings: Settings) -> Listener:
    group = _group(settings)
    bound = bind_unix(path, group=-1 if group is None else group)
    return Listener(bound, f"unix://{path}", path=path, inode=path.lstat().st_ino)


def _group(settings: Settings) -> int | None:
    name = settings.text("group")
    if not name:
        return None
    try:
        return find_group(name)
    except InvalidArgument:
        if "group" in settings.given:
            raise
        log.debug("no group %s: the unix socket is root's alone", name)
        return None


def _listen_tcp(rest: str, settings: Settings) -> Listener:
    name, colon, port = rest.rpartition(":")
    tls = uses_tls(settings)
    if not colon:
        name, port = rest, ""
    name = name.strip("[]") or ("0.0.0.0" if rest.startswith(":") else "127.0.0.1")
    port = port.rstrip("/") or ("2376" if tls else "2375")
    if not port.isdigit() or int(port) > 65535:
        raise InvalidArgument(f"invalid bind address (tcp://{rest}): not a port: {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            name, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    except OSError as error:
        raise InvalidArgument(f"invalid bind address (tcp://{rest}): {error}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise FailedPrecondition(f"cannot listen on tcp://{rest}: {error.strerror}", object=rest) from None
    if not settings.flag("tlsverify"):
        log.warning(
            "Binding to IP address without --tlsverify is insecure and gives root access on this machine to everyone "
            "who has access to your network. host=tcp://%s",
            rest,
        )
    shown = bound.getsockname()
    return Listener(bound, f"tcp://{shown[0]}:{shown[1]}", tls=tls)


def _inherit(rest: str) -> Iterable[Listener]:
    """Sockets passed by the service manager: all of them, or the one named by its number (sd_listen_fds(3))."""
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdigit() or not int(count):
        raise FailedPrecondition("no sockets found via socket activation", hint="make sure systemd started the service")
    numbers = range(_FIRST_FD, _FIRST_FD + int(count))
    if rest and rest != "*":
        if not rest.isdigit() or int(rest) not in numbers:
            raise InvalidArgument(
                f"fd://{rest} was not passed", hint=f"passed are {numbers.start} to {numbers.stop - 1}"
            )
        numbers = range(int(rest), int(rest) + 1)
    listeners = []
    for number in numbers:
        os.set_inheritable(number, False)
        inherited = socket.socket(fileno=number)
        inherited.setblocking(False)
        listeners.append(Listener(inherited, f"fd://{number}"))
    return listeners


def uses_tls(settings: Settings) -> bool:
    """Whether tcp:// listeners speak TLS."""
    return settings.flag("tls") or settings.flag("tlsverify")


def tls_context(settings: Settings) -> ssl.SSLContext:
    """The server's side of TLS: 1.2 at least; with --tlsverify clients need a certificate of --tlscacert's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    names = {name: os.path.expanduser(settings.text(name)) for name in ("tlscert", "tlskey", "tlscacert")}
    try:
        context.load_cert_chain(names["tlscert"], names["tlskey"])
        if settings.flag("tlsverify"):
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(names["tlscacert"])
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(
            f"cannot load the TLS certificates: {error}",
            hint=f"--tlscert {names['tlscert']}, --tlskey {names['tlskey']}, --tlscacert {names['tlscacert']}",
        ) from None
    return context
