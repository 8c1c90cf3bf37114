"""Ports of the host that lead to containers: who has which, and a socket on each so that nobody else takes it.

A range gets no sockets: 60,000 would be slow, and more than a process may open. Other programs are looked for once,
when it is taken; one that comes later and listens there gets no packets, as the table's translation comes first.
"""

import errno
import logging
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import chain
from threading import Lock

from wherry.errors import Conflict, InvalidArgument, WherryError
from wherry.kernel import sockets, sysctl
from wherry.network.endpoint import PROTOCOLS, PortRequest, PublishedPort

_log = logging.getLogger(__name__)
_ANY4, _ANY6 = "0.0.0.0", "::"
_EPHEMERAL = (32768, 60999)
_MANY = 16
_NUMBERS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": 132}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a sandbox's ports lead: its addresses, "" for none of a kind. `routed*`: without a port of the host.

    `binding` is the network's own default address of the host, "" for the daemon's.
    """

    ipv4: str = ""
    ipv6: str = ""
    routed4: bool = False
    routed6: bool = False
    binding: str = ""


class Ports:
    """The published ports of this daemon. Every method may be called from any thread."""

    def __init__(self, default_bind: str = _ANY4) -> None:
        self._default_bind = default_bind
        # (proto, port) → host address → the socket that holds it; None where it could not be bound.
        self._held: dict[tuple[str, int], dict[str, socket.socket | None]] = {}
        self._spans: list[PublishedPort] = []
        self._ephemeral = _ephemeral_range()
        self._next: dict[str, int] = {}
        self._lock = Lock()

    def reserve(self, requests: Iterable[PortRequest], target: Target) -> tuple[PublishedPort, ...]:
        """Take a port of the host for each request, or none at all.

        Conflict with docker's words when one is taken, by a container or by another program.
        """
        done: list[PublishedPort] = []
        try:
            for request in requests:
                done += self._reserve(request, target)
        except BaseException:
            self.release(done)
            raise
        return tuple(done)

    def adopt(self, ports: Iterable[PublishedPort]) -> None:
        """Take ports that a running container has already. One that another program took meanwhile is logged."""
        for port in ports:
            if not port.host_port:
                continue
            with self._lock:
                if port.count > 1:
                    self._spans.append(port)
                    continue
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
                if port.count > 1:
                    if port in self._spans:
                        self._spans.remove(port)
                    continue
                holders = self._held.get((port.proto, port.host_port), {})
                held = holders.pop(port.host_ip, None)
                if not holders:
                    self._held.pop((port.proto, port.host_port), None)
            if held is not None:
                held.close()

    def change(
        self, published: Sequence[PublishedPort], requests: Iterable[PortRequest], target: Target
    ) -> tuple[PublishedPort, ...]:
        """What `requests` get when `published` is there already: a port of the host that fits a request stays taken,
        the rest is given back and the others are reserved; Conflict: one is taken, and all is as before.
        """
        left = list(published)
        found: list[list[PublishedPort] | PortRequest] = []
        for request in requests:
            same = _same(left, request, bindings(request, target, self._default_bind))
            for port in same:
                left.remove(port)
            found.append([replace(p, container_port=request.container_port) for p in same] if same else request)
        self.release(left)
        done: list[PublishedPort] = []
        changed: list[PublishedPort] = []
        try:
            for one in found:
                if isinstance(one, PortRequest):
                    new = self._reserve(one, target)
                    done += new
                    changed += new
                else:
                    changed += one
        except BaseException:
            self.release(done)
            self.adopt(left)
            raise
        return tuple(changed)

    def close(self) -> None:
        """Let go of every socket."""
        with self._lock:
            held, self._held = self._held, {}
            self._spans = []
        for holders in held.values():
            for one in holders.values():
                if one is not None:
                    one.close()

    def _reserve(self, request: PortRequest, target: Target) -> list[PublishedPort]:
        addresses = bindings(request, target, self._default_bind)
        routed = [PublishedPort(request.container_port, request.proto, ip, 0, request.count) for ip in addresses[1]]
        if not addresses[0]:
            return routed
        with self._lock:
            for port in self._candidates(request):
                try:
                    taken = self._take_all(request, addresses[0], port, target)
                except Conflict:
                    if request.host_port_start and request.host_port_end <= request.host_port_start:
                        raise
                    continue
                if not request.host_port_start:
                    self._next[request.proto] = port + 1
                return taken + routed
        raise Conflict("all ports are allocated", object=_range(request), hint="free one, or widen the range")

    def _candidates(self, request: PortRequest) -> Iterable[int]:
        if request.host_port_start:
            return range(request.host_port_start, max(request.host_port_start, request.host_port_end) + 1)
        first, last = self._ephemeral
        start = self._next.get(request.proto, first)
        if not first <= start <= last:
            start = first
        return chain(range(start, last + 1), range(first, start))

    def _take_all(
        self, request: PortRequest, addresses: Sequence[str], port: int, target: Target
    ) -> list[PublishedPort]:
        """One port of the host, the same at every address. Call with the lock held."""
        done: list[PublishedPort] = []
        try:
            for address in addresses:
                wanted = PublishedPort(request.container_port, request.proto, address, port, request.count)
                self._take(wanted, target)
                done.append(wanted)
        except BaseException:
            for taken in done:
                self._give_back(taken)
            raise
        return done

    def _give_back(self, port: PublishedPort) -> None:
        if port.count > 1:
            self._spans.remove(port)
            return
        held = self._held[port.proto, port.host_port].pop(port.host_ip)
        if held is not None:
            held.close()

    def _take(self, port: PublishedPort, target: Target) -> None:
        """Call with the lock held."""
        host = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
        taken = next(self._in_the_way(port), None)
        if taken is not None:
            raise Conflict(f"Bind for {host}:{taken} failed: port is already allocated", object=f"{host}:{taken}")
        inner = f"[{target.ipv6}]" if ":" in port.host_ip else target.ipv4
        try:
            if port.count > 1:
                _check_unused(port)
                self._spans.append(port)
                return
            held = _bind(port.proto, port.host_ip, port.host_port)
        except OSError as error:
            raise _refused(error, f"{host}:{port.host_port}", f"{inner}:{port.container_port}/{port.proto}") from None
        self._held.setdefault((port.proto, port.host_port), {})[port.host_ip] = held

    def _in_the_way(self, port: PublishedPort) -> Iterator[int]:
        """Ports of ours that it meets."""
        last = port.host_port + port.count - 1
        for span in self._spans:
            first, end = max(span.host_port, port.host_port), min(span.host_port + span.count - 1, last)
            if span.proto == port.proto and first <= end and _meets(span.host_ip, port.host_ip):
                yield first
        numbers: Iterable[int] = range(port.host_port, last + 1)
        if port.count > len(self._held):
            numbers = sorted(n for proto, n in self._held if proto == port.proto and port.host_port <= n <= last)
        for number in numbers:
            if any(_meets(other, port.host_ip) for other in self._held.get((port.proto, number), ())):
                yield number


def bindings(request: PortRequest, target: Target, default_bind: str = _ANY4) -> tuple[list[str], list[str]]:
    """(the host's addresses a request is bound to, those for which the container's own port is opened instead)."""
    _check(request)
    given = request.host_ip or target.binding or default_bind
    try:
        address = str(ip_address(given))
    except ValueError:
        raise InvalidArgument(f"invalid IP address: {given}", object=given) from None
    wanted = [address]
    if address == _ANY4 and not request.host_ip:
        wanted = [_ANY4, _ANY6]
    held: list[str] = []
    routed: list[str] = []
    for one in wanted:
        inner, is_routed = (target.ipv6, target.routed6) if ":" in one else (target.ipv4, target.routed4)
        if inner:
            (routed if is_routed else held).append(one)
        elif len(wanted) == 1:
            raise InvalidArgument(
                f"the container cannot be reached at {one}: its network has no IPv{6 if ':' in one else 4}",
                object=one,
                hint="leave the address out, or enable it in the network",
            )
    return held, routed


def check(request: PortRequest, default_bind: str = _ANY4) -> None:
    """InvalidArgument says what is wrong with a request, whatever the network."""
    _check(request)
    given = request.host_ip or default_bind
    try:
        ip_address(given)
    except ValueError:
        raise InvalidArgument(f"invalid IP address: {given}", object=given) from None


def as_requests(ports: Iterable[PublishedPort]) -> tuple[PortRequest, ...]:
    """What would give these ports again: for a sandbox whose way out moves to another network."""
    found: dict[PortRequest, None] = {}
    both = {(p.proto, p.host_port, p.container_port) for p in ports if p.host_ip == _ANY6}
    for port in ports:
        twin = (port.proto, port.host_port, port.container_port) in both
        host_ip = "" if port.host_ip in (_ANY4, _ANY6) and (twin or port.host_ip == _ANY4) else port.host_ip
        request = PortRequest(port.container_port, port.proto, host_ip, port.host_port, 0, port.count)
        found[request] = None
    return tuple(found)


def merged(requests: Iterable[PortRequest]) -> tuple[PortRequest, ...]:
    """Ports that follow each other on both sides as one request; of a few the order is kept."""
    listed = list(requests)
    if len(listed) > _MANY:
        listed.sort(key=lambda r: (r.proto, r.host_ip, r.host_port_start - r.container_port, r.container_port))
    found: list[PortRequest] = []
    count = 0
    for request in listed:
        if found and _follows(request, found[-1], count):
            count += request.count
            continue
        if found and count != found[-1].count:
            found[-1] = replace(found[-1], count=count, host_port_end=0)
        found.append(request)
        count = request.count
    if found and count != found[-1].count:
        found[-1] = replace(found[-1], count=count, host_port_end=0)
    return tuple(found)


def _follows(request: PortRequest, first: PortRequest, count: int) -> bool:
    return bool(
        request.host_port_start
        and request.host_port_start == first.host_port_start + count
        and request.container_port == first.container_port + count
        and request.host_port_end <= request.host_port_start
        and first.host_port_end <= first.host_port_start
        and request.proto == first.proto
        and request.host_ip == first.host_ip
    )


def _same(
    published: Iterable[PublishedPort], request: PortRequest, wanted: tuple[list[str], list[str]]
) -> list[PublishedPort]:
    """The ports of the host that are what a request asks for, at every address; else none.

    Where any port will do, it must lead where it led.
    """
    held, routed = wanted
    start, end = request.host_port_start, max(request.host_port_start, request.host_port_end)
    found: dict[int, list[PublishedPort]] = {}
    for port in published:
        if port.proto != request.proto or port.count != request.count:
            continue
        same = port.container_port == request.container_port
        if not port.host_port:
            if same and port.host_ip in routed:
                found.setdefault(0, []).append(port)
        elif port.host_ip in held and (start <= port.host_port <= end if start else same):
            found.setdefault(port.host_port, []).append(port)
    open_ports = found.pop(0, [])
    for ports in found.values():
        if len(ports) == len(held):
            return ports + open_ports
    return open_ports if routed and not held and len(open_ports) == len(routed) else []


def without(ports: Iterable[PublishedPort], others: Iterable[PublishedPort]) -> tuple[PublishedPort, ...]:
    """Those of `ports` whose port of the host is none of `others`'."""
    held = {(port.proto, port.host_ip, port.host_port, port.count) for port in others}
    return tuple(port for port in ports if (port.proto, port.host_ip, port.host_port, port.count) not in held)


def _check(request: PortRequest) -> None:
    if request.proto not in PROTOCOLS:
        raise InvalidArgument(f"invalid proto: {request.proto}", object=request.proto, hint="one of tcp, udp, sctp")
    if not 0 < request.container_port <= request.container_port + request.count - 1 < 65536:
        raise InvalidArgument(f"invalid container port: {request.container_port}", object=str(request.container_port))
    last = max(request.host_port_start, request.host_port_end) + request.count - 1
    if not 0 <= request.host_port_start <= last < 65536:
        raise InvalidArgument(f"invalid host port: {_range(request)}", object=_range(request))


def _meets(one: str, other: str) -> bool:
    return one == other or ((":" in one) == (":" in other) and (one in (_ANY4, _ANY6) or other in (_ANY4, _ANY6)))


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


def _check_unused(port: PublishedPort) -> None:
    """OSError EADDRINUSE when a program uses a port of the range."""
    last = port.host_port + port.count - 1
    family = socket.AF_INET6 if ":" in port.host_ip else socket.AF_INET
    try:
        found = sockets.bound_ports(family, _NUMBERS[port.proto])
    except OSError as error:
        if sockets.can_tell(error):
            raise
        return
    for address, number in found:
        if port.host_port <= number <= last and _meets(address, port.host_ip):
            raise OSError(errno.EADDRINUSE, f"port {number}")


def _bind(proto: str, host_ip: str, port: int) -> socket.socket | None:
    """A socket that holds the port, and never receives; None when the kernel has no such protocol."""
    kind = socket.SOCK_DGRAM if proto == "udp" else socket.SOCK_STREAM
    number = socket.IPPROTO_SCTP if proto == "sctp" else 0
    family = socket.AF_INET6 if ":" in host_ip else socket.AF_INET
    try:
        held = socket.socket(family, kind | socket.SOCK_CLOEXEC, number)
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            return None
        raise
    try:
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
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
