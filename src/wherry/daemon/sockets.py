"""Listening sockets: unix://, tcp:// and fd:// (systemd's socket activation)."""

import ipaddress
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
    warning: str = ""
    """What `info` says about it."""

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
        return _inherit(rest, settings)
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
    shown = bound.getsockname()
    listener = Listener(bound, f"tcp://{_join(shown)}", tls=tls)
    if not settings.flag("tlsverify"):
        listener.warning = _warn_of(listener, shown[0], settings)
    return listener


def _join(address: tuple[str, int]) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def _warn_of(listener: Listener, address: str, settings: Settings) -> str:
    """The warning about a socket that asks nobody who he is. On the network it has to be wanted in so many words."""
    if not _is_loopback(address) and not {"tls", "tlsverify"} & settings.given:
        listener.close()
        raise FailedPrecondition(
            f"refusing to listen on {listener.address} without --tlsverify: everyone who reaches it is root here",
            object=listener.address,
            hint="use --tlsverify with certificates, or ssh://; or say --tls=false to have it all the same",
        )
    lack = "TLS client verification" if listener.tls else "encryption"
    scheme = "https" if listener.tls else "http"
    warning = (
        f"[DEPRECATION NOTICE]: API is accessible on {scheme}://{listener.address.removeprefix('tcp://')} without "
        f"{lack}. Everyone who reaches it is root on this machine: use --tlsverify, ssh:// or a unix socket."
    )
    log.warning("%s", warning)
    return warning


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _inherit(rest: str, settings: Settings) -> Iterable[Listener]:
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
        listener = Listener(inherited, f"fd://{number}")
        if inherited.family != socket.AF_UNIX:
            # What the service manager opened on the network is no more trusted than what we open ourselves.
            shown = inherited.getsockname()
            listener.address, listener.tls = f"tcp://{_join(shown)}", uses_tls(settings)
            if not settings.flag("tlsverify"):
                listener.warning = _warn_of(listener, shown[0], settings)
        listeners.append(listener)
    return listeners


def uses_tls(settings: Settings) -> bool:
    """Whether tcp:// listeners speak TLS."""
    return settings.flag("tls") or settings.flag("tlsverify")


def tls_context(settings: Settings) -> ssl.SSLContext:
    """The server's side of TLS: 1.2 at least; with --tlsverify clients need a certificate of --tlscacert's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificates(context, settings)
    return context


def load_certificates(context: ssl.SSLContext, settings: Settings) -> None:
    """Into a new context, or one in use: connections from now on see the certificate that is there now."""
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
