"""Who is connected where: sandboxes with their endpoints, brought together, changed, taken apart."""

import errno
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock

from wherry.errors import Conflict, Internal, InvalidArgument, NotFound, Unavailable, WherryError
from wherry.kernel import netns
from wherry.kernel.netlink import Netlink
from wherry.network import gateway, sandbox
from wherry.network.catalog import Catalog
from wherry.network.drivers.contract import Box, Driver
from wherry.network.endpoint import Endpoint, EndpointRequest, PortRequest
from wherry.network.firewall import Firewall
from wherry.network.gateway import Gateways
from wherry.network.ipam import Addresses, Lease
from wherry.network.network import Network
from wherry.network.ports import Ports, as_requests, merged
from wherry.network.publishing import Publisher
from wherry.network.remote_ipam import RemoteAddresses
from wherry.network.requests import IFNAME, check_request
from wherry.network.sandbox import Prepared

_log = logging.getLogger(__name__)
_SANDBOX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_FAILED = "failed to set up container networking: "


@dataclass(slots=True)
class _Entry:
    """One sandbox. `busy`: somebody is changing it."""

    endpoints: tuple[Endpoint, ...] = ()
    path: Path | None = None
    ports: tuple[PortRequest, ...] = ()
    busy: bool = True


@dataclass(slots=True)
class Tools:
    """What sandboxes are made with."""

    directory: Path
    catalog: Catalog
    drivers: Mapping[str, Driver]
    addresses: Mapping[str, Addresses | RemoteAddresses]
    ports: Ports
    firewall: Firewall
    take: Callable[[], Prepared | None] = field(default=lambda: None)


class Sandboxes:
    """The sandboxes of one daemon. Every method may be called from any thread; those of one sandbox exclude another."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._publisher = Publisher(tools.ports, tools.firewall, tools.catalog, self._driver)
        self._entries: dict[str, _Entry] = {}
        self._lock = Lock()

    def adopt(self, live: Iterable[Endpoint], kept: Iterable[str] = ()) -> None:
        """Take what another daemon's life left."""
        for endpoint in live:
            entry = self._entries.setdefault(endpoint.sandbox, _Entry(busy=False))
            entry.endpoints += (endpoint,)
            entry.path = entry.path or endpoint.netns
            entry.ports += as_requests(endpoint.ports)
        for name in kept:
            path = self._tools.directory / name
            if name not in self._entries and path.exists():
                self._entries[name] = _Entry(path=path, busy=False)
        for entry in self._entries.values():
            entry.ports = tuple(dict.fromkeys(entry.ports))

    @property
    def in_use(self) -> bool:
        """Whether any sandbox of ours is there."""
        with self._lock:
            return any(entry.busy or entry.path for entry in self._entries.values())

    def knows(self, name: str) -> bool:
        """Whether there is such a sandbox, or is about to be."""
        with self._lock:
            return name in self._entries

    def endpoints(self, name: str) -> tuple[Endpoint, ...]:
        """Where a sandbox is connected, in the order of its interfaces."""
        with self._lock:
            entry = self._entries.get(name)
            return entry.endpoints if entry is not None else ()

    def every(self) -> list[Endpoint]:
        """All there are."""
        with self._lock:
            return [endpoint for entry in self._entries.values() for endpoint in entry.endpoints]

    def members(self, network_id: str) -> list[Endpoint]:
        """Who is connected to a network."""
        return [endpoint for endpoint in self.every() if endpoint.network_id == network_id]

    def connect(
        self, name: str, requests: Sequence[EndpointRequest], ports: Sequence[PortRequest], given: str = ""
    ) -> tuple[Endpoint, ...]:
        """Connect a sandbox, made when there is none, to every network asked for, or to none of them.

        `given`: the network namespace to be used, which belongs to a user namespace of its own.
        """
        if not _SANDBOX.fullmatch(name):
            raise InvalidArgument(f"invalid sandbox name {name!r}", object=name)
        networks = [self._tools.catalog.find(request.network, _FAILED) for request in requests]
        for request, network in zip(requests, networks, strict=True):
            check_request(request, network)
        with self._lock:
            entry = self._entries.get(name)
            is_new = entry is None
            if entry is None:
                entry = self._entries[name] = _Entry(ports=merged(ports))
            elif entry.busy:
                raise Conflict(f"{name} is being connected already", object=name)
            else:
                _check_unconnected(name, entry, networks, requests)
                entry.busy = True
        try:
            pairs = list(zip(networks, requests, strict=True))
            found = self._build(name, entry, pairs, given) if is_new else self._extend(name, entry, pairs)
        except BaseException as error:
            if is_new and isinstance(error, WherryError) and not error.message.startswith(_FAILED):
                error.message = _FAILED + error.message
            with self._lock:
                entry.busy = False
                if is_new:
                    del self._entries[name]
            if isinstance(error, OSError):
                raise Internal(f"{_FAILED}{error}", object=name) from error
            raise
        with self._lock:
            entry.endpoints, entry.busy = found, False
        return found

    def change_ports(
        self, name: str, requests: Sequence[PortRequest], *, try_only: bool = False
    ) -> tuple[Endpoint, ...]:
        """Publish exactly these ports while it runs. Conflict: one is taken, and nothing has changed."""
        with self._lock:
            entry = self._entries.get(name)
        if entry is None:
            raise NotFound(f"{name} is not connected", object=name)
        requests = merged(requests)
        changed = self._publisher.change(entry.endpoints, requests, try_only=try_only)
        if try_only:
            return entry.endpoints
        with self._lock:
            entry.endpoints, entry.ports = changed, requests
        return entry.endpoints

    def reroute(self, name: str) -> None:
        """Set the default routes of a sandbox that lost interfaces."""
        with self._lock:
            entry = self._entries[name]
        if entry.path is not None:
            with sandbox.enter(entry.path, Netlink) as inside:
                indexes = {link.name: link.ifindex for link in inside.links()}
                gateway.move(inside, Gateways(None, None), gateway.choose(entry.endpoints), indexes)

    def disconnect(self, name: str, network: str | None = None) -> None:
        """Take a sandbox apart, not connected is no error; or out of one network, NotFound."""
        with self._lock:
            entry = self._entries.get(name)
            if entry is None or entry.busy:
                return
            entry.busy = True
            if network is None:
                del self._entries[name]
        if network is None:
            self._take_apart(entry)
            return
        try:
            found = self._take_out(name, entry, network)
        except BaseException:
            with self._lock:
                entry.busy = False
            raise
        with self._lock:
            entry.endpoints, entry.busy = found, False

    def _build(
        self, name: str, entry: _Entry, pairs: Sequence[tuple[Network, EndpointRequest]], given: str
    ) -> tuple[Endpoint, ...]:
        plain = [(network, request) for network, request in pairs if not self._driver(network).sandboxed]
        if plain:
            # "none": the runtime makes a namespace with nothing but a loopback interface by itself, and faster.
            return tuple(_draft(name, None, network, request) for network, request in plain[:1])
        path = self._tools.directory / name
        if path.exists():
            # Of nobody: whoever is connected is known here.
            netns.delete(str(path))
        with ExitStack() as undo:
            warm = pairs and not given and self._driver(pairs[0][0]).name == "bridge"
            made = self._tools.take() if warm else None
            if made is not None:
                undo.callback(sandbox.discard, made)
                box = Box(made.path, made.inside, made)
            else:
                inside = sandbox.take_over(path, given) if given else sandbox.make(path)
                undo.callback(sandbox.delete, path)
                undo.callback(inside.close)
                box = Box(path, inside)
            attached = self._attach_all(name, path, box, (), pairs, undo)
            endpoints, gateways = self._publisher.publish([endpoint for endpoint, _ in attached], entry.ports, undo)
            if made is not None:
                undo.callback(sandbox.delete, path)
                sandbox.adopt(made, path)
            messages = []
            for endpoint, index in attached:
                messages += sandbox.addresses(endpoint, index) + gateway.routes(endpoint, index, gateways)
            box.inside.request(*messages)
            _apply_sysctls(path, endpoints)
            undo.pop_all()
        box.inside.close()
        entry.path = path
        return endpoints

    def _extend(
        self, name: str, entry: _Entry, pairs: Sequence[tuple[Network, EndpointRequest]]
    ) -> tuple[Endpoint, ...]:
        path = entry.path
        assert path is not None
        before = entry.endpoints
        with ExitStack() as undo, sandbox.enter(path, Netlink) as inside:
            attached = self._attach_all(name, path, Box(path, inside), before, pairs, undo)
            for endpoint, index in attached:
                inside.request(*sandbox.addresses(endpoint, index))
            _apply_sysctls(path, [endpoint for endpoint, _ in attached])
            after = self._move(entry, inside, before, (*before, *(endpoint for endpoint, _ in attached)))
            undo.pop_all()
        return after

    def _take_out(self, name: str, entry: _Entry, network: str) -> tuple[Endpoint, ...]:
        found = self._tools.catalog.find(network)
        leaving = next((e for e in entry.endpoints if e.network_id == found.id), None)
        if leaving is None or entry.path is None:
            raise NotFound(f"container {name} is not connected to network {found.name}", object=name)
        rest = tuple(e for e in entry.endpoints if e is not leaving)
        with sandbox.enter(entry.path, Netlink) as inside:
            rest = self._move(entry, inside, entry.endpoints, rest)
            self._driver(found).unplug(found, leaving, box_goes=False)
        self._settle(found, leaving)
        return rest

    def _take_apart(self, entry: _Entry) -> None:
        for endpoint in entry.endpoints:
            self._publisher.withdraw(endpoint)
        if entry.path is None:
            return
        leaving = [(self._tools.catalog.get(endpoint.network_id), endpoint) for endpoint in entry.endpoints]
        try:
            for network, endpoint in leaving:
                if network is not None:
                    self._driver(network).unplug(network, endpoint, box_goes=True)
        finally:
            sandbox.delete(entry.path)
            for network, endpoint in leaving:
                if network is not None:
                    self._settle(network, endpoint)

    def _settle(self, network: Network, endpoint: Endpoint) -> None:
        lease = Lease(ipv4=endpoint.ipv4, ipv6=endpoint.ipv6)
        self._driver(network).settle(endpoint, partial(self._release, network.id, lease))

    def _release(self, network_id: str, lease: Lease) -> None:
        addresses = self._tools.addresses.get(network_id)
        if addresses is not None:
            addresses.release(lease)

    def _attach_all(
        self,
        name: str,
        path: Path,
        box: Box,
        before: Sequence[Endpoint],
        pairs: Sequence[tuple[Network, EndpointRequest]],
        undo: ExitStack,
    ) -> list[tuple[Endpoint, int]]:
        """Plug in one after the other; on failure `undo` knows how."""
        attached: list[tuple[Endpoint, int]] = []
        used = {endpoint.ifname for endpoint in before} | {r.options.get(IFNAME, "") for _, r in pairs}
        for network, request in pairs:
            driver = self._driver(network)
            addresses = self._tools.addresses.get(network.id)
            lease = Lease()
            if addresses is not None:
                lease = addresses.allocate(request.ipv4 or "", request.ipv6 or "")
            ifname = request.options.get(IFNAME, "") or _next_name(driver.stem(network), used)
            used.add(ifname)
            draft = _draft(name, path, network, request, lease, ifname)
            endpoint = driver.draft(network, draft, box)
            undo.callback(self._settle, network, endpoint)
            index = driver.plug(network, endpoint, box)
            undo.callback(driver.unplug, network, endpoint, box_goes=not before)
            attached.append((endpoint, index))
        return attached

    def _move(
        self, entry: _Entry, inside: Netlink, before: Sequence[Endpoint], after: Sequence[Endpoint]
    ) -> tuple[Endpoint, ...]:
        """Give default routes and published ports to whom they belong now."""
        old, new = gateway.choose(before), gateway.choose(after)
        ids = [(e and e.endpoint_id) for e in old] == [(e and e.endpoint_id) for e in new]
        if ids:
            return tuple(after)
        gateway.move(inside, old, new, {link.name: link.ifindex for link in inside.links()})
        return self._publisher.move(before, after, entry.ports) if entry.ports else tuple(after)

    def _driver(self, network: Network) -> Driver:
        found = self._tools.drivers.get(network.driver)
        if found is None:
            raise Unavailable(
                f"the driver {network.driver} of network {network.name} is not there", object=network.name
            )
        return found


def _draft(
    name: str,
    path: Path | None,
    network: Network,
    request: EndpointRequest,
    lease: Lease = Lease(),  # noqa: B008
    ifname: str = "",
) -> Endpoint:
    return Endpoint(
        sandbox=name,
        netns=path,
        network=network.name,
        network_id=network.id,
        driver=network.driver,
        endpoint_id=os.urandom(32).hex(),
        name=request.name,
        ifname=ifname,
        mac=(request.mac or "").lower().replace("-", ":"),
        ipv4=lease.ipv4,
        prefix=lease.prefix4,
        gateway=lease.gateway4,
        ipv6=lease.ipv6,
        prefix6=lease.prefix6,
        gateway6=lease.gateway6,
        priority=request.priority,
        internal=network.internal,
        options=request.options,
        names=request.names,
    )


def _next_name(stem: str, used: set[str]) -> str:
    number = 0
    while f"{stem}{number}" in used:
        number += 1
    return f"{stem}{number}"


def _apply_sysctls(path: Path, endpoints: Iterable[Endpoint]) -> None:
    for endpoint in endpoints:
        settings = sandbox.parse_sysctls(endpoint.options, endpoint.ifname)
        try:
            sandbox.apply_sysctls(path, settings)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):
                raise
            raise InvalidArgument(
                f"cannot set the sysctls of {endpoint.ifname}: {error}", object=endpoint.ifname
            ) from None


def _check_unconnected(
    name: str, entry: _Entry, networks: Sequence[Network], requests: Sequence[EndpointRequest]
) -> None:
    if entry.path is None:
        raise Conflict(f"{name} is connected already, and has no network namespace of its own", object=name)
    for network, request in zip(networks, requests, strict=True):
        if any(endpoint.network_id == network.id for endpoint in entry.endpoints):
            raise Conflict(
                f"endpoint with name {request.name or name} already exists in network {network.name}", object=name
            )
        wanted = request.options.get(IFNAME)
        if wanted and any(endpoint.ifname == wanted for endpoint in entry.endpoints):
            raise Conflict(f"network interface {wanted} already exists", object=wanted)
