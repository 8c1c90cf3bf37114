"""Ports of the host that lead to containers: who has which, and a socket on each so that nobody else takes it."""

import errno
import logging
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from threading import Lock

from wherry.errors import Conflict, InvalidArgument, Unimplemented, WherryError
from wherry.kernel import sysctl
from wherry.network.endpoint import PROTOCOLS, PortRequest, PublishedPort

_log = logging.getLogger(__name__)
_ANY = "0.0.0.0"
_EPHEMERAL = (32768, 60999)


class Ports:
    """The published ports of this daemon. Every method may be called from any thread."""

    def __init__(self, default_bind: str = _ANY) -> None:
        self._default_bind = default_bind
        # (proto, port) → host address → the socket that holds it; None where it could not be bound.
        self._held: dict[tuple[str, int], dict[str, socket.socket | None]] = {}
        self._ephemeral = _ephemeral_range()
        self._next: dict[str, int] = {}
        self._lock = Lock()

    def reserve(self, requests: Iterable[PortRequest], container_ip: str) -> tuple[PublishedPort, ...]:
        """Take a port of the host for each request, or none at all.

        Conflict with docker's words when one is taken, by a container or by another program.
        """
        done: list[PublishedPort] = []
        try:
            for request in requests:
                done.append(self._reserve(request, container_ip))  # noqa: PERF401  what is done must be known on failure
        except BaseException:
            self.release(done)
            raise
        return tuple(done)

    def adopt(self, ports: Iterable[PublishedPort]) -> None:
        """Take ports that a running container has already. One that another program took meanwhile is logged."""
        for port in ports:
            with self._lock:
                holders = self._held.setdefault((port.proto, port.host_port), {})
                try:
                    holders[port.host_ip] = _bind(port.proto, port.host_ip, port.host_port)
                except OSError as error:
                    holders[port.host_ip] = None
                    _log.warning("cannot hold %s:%d/%s again: %s", port.host_ip, port.host_port, port.proto, error)

    def release(self, ports: Sequence[PublishedPort]) -> None:
        """Give ports back; one not taken is no error."""
        for port in ports:
            with self._lock:
                holders = self._held.get((port.proto, port.host_port), {})
                held = holders.pop(port.host_ip, None)
                if not holders:
                    self._held.pop((port.proto, port.host_port), None)
            if held is not None:
                held.close()

    def change(
        self, published: Sequence[PublishedPort], requests: Iterable[PortRequest], container_ip: str
    ) -> tuple[PublishedPort, ...]:
        """What `requests` get when `published` is there already: a port of the host that fits a request stays taken,
        the others are reserved (all or none). Give `release` the difference.
        """
        left = list(published)
        found: list[PublishedPort | PortRequest] = []
        for request in requests:
            same = next((port for port in left if _fits(port, request, self._default_bind)), None)
            if same is None:
                found.append(request)
            else:
                left.remove(same)
                found.append(replace(same, container_port=request.container_port))
        taken = iter(self.reserve([one for one in found if isinstance(one, PortRequest)], container_ip))
        return tuple(next(taken) if isinstance(one, PortRequest) else one for one in found)

    def close(self) -> None:
        """Let go of every socket."""
        with self._lock:
            held, self._held = self._held, {}
        for holders in held.values():
            for one in holders.values():
                if one is not None:
                    one.close()

    def _reserve(self, request: PortRequest, container_ip: str) -> PublishedPort:
        host_ip = check(request, self._default_bind)
        target = f"{container_ip}:{request.container_port}/{request.proto}"
        with self._lock:
            if request.host_port_start and request.host_port_end <= request.host_port_start:
                return self._take(request, host_ip, request.host_port_start, target)
            for port in self._candidates(request):
                try:
                    taken = self._take(request, host_ip, port, target)
                except Conflict:
                    continue
                if not request.host_port_start:
                    self._next[request.proto] = port + 1
                return taken
        raise Conflict("all ports are allocated", object=_range(request), hint="free one, or widen the range")

    def _candidates(self, request: PortRequest) -> Iterable[int]:
        if request.host_port_start:
            return range(request.host_port_start, request.host_port_end + 1)
        first, last = self._ephemeral
        start = self._next.get(request.proto, first)
        if not first <= start <= last:
            start = first
        return chain(range(start, last + 1), range(first, start))

    def _take(self, request: PortRequest, host_ip: str, port: int, target: str) -> PublishedPort:
        """Call with the lock held."""
        key = (request.proto, port)
        holders = self._held.get(key, {})
        if host_ip in holders or _ANY in holders or (host_ip == _ANY and holders):
            raise Conflict(f"Bind for {host_ip}:{port} failed: port is already allocated", object=f"{host_ip}:{port}")
        try:
            held = _bind(request.proto, host_ip, port)
        except OSError as error:
            raise _refused(error, f"{host_ip}:{port}", target) from None
        self._held.setdefault(key, {})[host_ip] = held
        return PublishedPort(request.container_port, request.proto, host_ip, port)


def check(request: PortRequest, default_bind: str = _ANY) -> str:
    """The host address a valid request asks for; InvalidArgument or Unimplemented says what is wrong with it."""
    if request.proto not in PROTOCOLS:
        raise InvalidArgument(f"invalid proto: {request.proto}", object=request.proto, hint="one of tcp, udp, sctp")
    if not 0 < request.container_port < 65536:
        raise InvalidArgument(f"invalid container port: {request.container_port}", object=str(request.container_port))
    if not 0 <= request.host_port_start <= max(request.host_port_start, request.host_port_end) < 65536:
        raise InvalidArgument(f"invalid host port: {_range(request)}", object=_range(request))
    host_ip = request.host_ip or default_bind
    if ":" in host_ip:
        raise Unimplemented(
            f"publishing on the IPv6 address {host_ip} is not supported: the default network has no IPv6",
            object=host_ip,
            hint="leave the address out, or give one of IPv4",
        )
    try:
        return socket.inet_ntoa(socket.inet_pton(socket.AF_INET, host_ip))
    except OSError:
        raise InvalidArgument(f"invalid IP address: {host_ip}", object=host_ip) from None


def _fits(port: PublishedPort, request: PortRequest, default_bind: str) -> bool:
    """Whether a port of the host is what a request asks for. Any will do: then it must lead where it led."""
    if port.proto != request.proto or port.host_ip != check(request, default_bind):
        return False
    start = request.host_port_start
    if not start:
        return port.container_port == request.container_port
    return start <= port.host_port <= max(start, request.host_port_end)


def without(ports: Iterable[PublishedPort], others: Iterable[PublishedPort]) -> tuple[PublishedPort, ...]:
    """Those of `ports` whose port of the host is none of `others`'."""
    held = {(port.proto, port.host_ip, port.host_port) for port in others}
    return tuple(port for port in ports if (port.proto, port.host_ip, port.host_port) not in held)


def _range(request: PortRequest) -> str:
    if not request.host_port_start:
        return f"{request.container_port}/{request.proto}"
    return f"{request.host_port_start}-{max(request.host_port_start, request.host_port_end)}/{request.proto}"


def _ephemeral_range() -> tuple[int, int]:
    try:
        first, last = sysctl.read("net/ipv4/ip_local_port_range").split()
        return int(first), int(last)
    except (OSError, ValueError):
        return _EPHEMERAL


def _bind(proto: str, host_ip: str, port: int) -> socket.socket | None:
    """A socket that holds the port, and never receives; None when the kernel has no such protocol."""
    kind = socket.SOCK_DGRAM if proto == "udp" else socket.SOCK_STREAM
    number = socket.IPPROTO_SCTP if proto == "sctp" else 0
    try:
        held = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC, number)
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            return None
        raise
    try:
        if proto == "udp":
            # What address translation does not catch would fill its queue: keep that as small as it gets.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        _bind_strictly(held, host_ip, port, retry=proto != "udp")
    except BaseException:
        held.close()
        raise
    return held


def _bind_strictly(held: socket.socket, host_ip: str, port: int, *, retry: bool) -> None:
    try:
        held.bind((host_ip, port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not retry:
            raise
        # Closed connections of an earlier server (TIME_WAIT) are in the way of a plain bind only. The option must not
        # stay: with it on both sides another program could listen on the port.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host_ip, port))
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def _refused(error: OSError, host: str, target: str) -> WherryError:
    message = f"failed to bind host port for {host}:{target}: {os.strerror(error.errno or 0).lower()}"
    if error.errno == errno.EADDRINUSE:
        return Conflict(message, object=host)
    if error.errno == errno.EADDRNOTAVAIL:
        return InvalidArgument(message, object=host)
    return WherryError(message, object=host)
