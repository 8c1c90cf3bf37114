"""Who is connected where: sandboxes with their endpoints, brought together, changed, taken apart."""

import errno
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from threading import Lock

from wherry.errors import Conflict, Internal, InvalidArgument, NotFound, Unavailable, WherryError
from wherry.kernel import netns
from wherry.kernel.netlink import Netlink
from wherry.network import gateway, sandbox
from wherry.network.catalog import Catalog
from wherry.network.drivers.contract import Box, Driver
from wherry.network.endpoint import Endpoint, EndpointRequest, PortRequest, PublishedPort
from wherry.network.firewall import Firewall
from wherry.network.gateway import Gateways
from wherry.network.ipam import Addresses, Lease
from wherry.network.network import Network
from wherry.network.ports import Ports, Target, as_requests, check, merged, without
from wherry.network.remote_ipam import RemoteAddresses
from wherry.network.sandbox import Prepared

_log = logging.getLogger(__name__)
_SANDBOX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")
IFNAME = "com.docker.network.endpoint.ifname"
LOCAL_DRIVERS = ("bridge", "macvlan", "ipvlan", "overlay")
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
        gateways = gateway.choose(entry.endpoints)
        target, owners = self._target(gateways)
        before = [port for endpoint in entry.endpoints for port in endpoint.ports]
        if not owners:
            for request in requests:
                check(request)
            return entry.endpoints
        with self._worded(gateways, entry.endpoints):
            after = self._tools.ports.change(before, requests, target)
        if try_only:
            self._give_back(after, before)
            return entry.endpoints
        changed = []
        try:
            for old in entry.endpoints:
                own = [port for port in after if owners.get(6 if ":" in port.host_ip else 4) == old.endpoint_id]
                new = replace(old, ports=tuple(own))
                if new.ports != old.ports:
                    self._tools.firewall.replace(old, new)
                changed.append(new)
        except BaseException:
            self._give_back(after, before)
            raise
        with self._lock:
            entry.endpoints, entry.ports = tuple(changed), requests
        return entry.endpoints

    def _give_back(self, after: Sequence[PublishedPort], before: Sequence[PublishedPort]) -> None:
        self._tools.ports.release(without(after, before))
        self._tools.ports.adopt(without(before, after))

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
            endpoints, gateways = self._publish([endpoint for endpoint, _ in attached], entry.ports, undo)
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
            if endpoint.ports:
                self._tools.firewall.withdraw(endpoint)
                self._tools.ports.release(endpoint.ports)
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

    def _publish(
        self, endpoints: Sequence[Endpoint], requests: Sequence[PortRequest], undo: ExitStack
    ) -> tuple[tuple[Endpoint, ...], Gateways]:
        gateways = gateway.choose(endpoints)
        if not requests:
            return tuple(endpoints), gateways
        found = []
        published = self._reserve(endpoints, gateways, requests)
        undo.callback(self._tools.ports.release, [port for ports in published.values() for port in ports])
        for endpoint in endpoints:
            endpoint = replace(endpoint, ports=tuple(published.get(endpoint.endpoint_id, ())))
            undo.callback(self._tools.firewall.withdraw, endpoint)
            self._tools.firewall.publish(endpoint)
            found.append(endpoint)
        return tuple(found), gateway.choose(found)

    def _reserve(
        self, endpoints: Sequence[Endpoint], gateways: Gateways, requests: Sequence[PortRequest]
    ) -> dict[str, list[PublishedPort]]:
        """endpoint's ID → the ports that lead to it."""
        target, owners = self._target(gateways)
        if not target.ipv4 and not target.ipv6:
            return {}
        with self._worded(gateways, endpoints):
            taken = self._tools.ports.reserve(requests, target)
        found: dict[str, list[PublishedPort]] = {}
        for port in taken:
            found.setdefault(owners[6 if ":" in port.host_ip else 4], []).append(port)
        return found

    @contextmanager
    def _worded(self, gateways: Gateways, endpoints: Sequence[Endpoint]) -> Iterator[None]:
        """Failures to publish in docker's words."""
        try:
            yield
        except WherryError as error:
            owner = gateways.ipv4 or gateways.ipv6 or endpoints[0]
            error.message = (
                f"driver failed programming external connectivity on endpoint "
                f"{owner.name or owner.sandbox} ({owner.endpoint_id}): {error.message}"
            )
            raise

    def _target(self, gateways: Gateways) -> tuple[Target, dict[int, str]]:
        """Where ports lead, and whose that is for each kind of address."""
        target, owners = Target(), {}
        for version, endpoint in ((4, gateways.ipv4), (6, gateways.ipv6)):
            network = self._tools.catalog.get(endpoint.network_id) if endpoint is not None else None
            own = self._driver(network).target(network, endpoint) if network is not None and endpoint else None
            if own is None or endpoint is None:
                continue
            owners[version] = endpoint.endpoint_id
            if version == 4:
                target = replace(target, ipv4=own.ipv4, routed4=own.routed4, binding=own.binding)
            else:
                target = replace(target, ipv6=own.ipv6, routed6=own.routed6)
        return target, owners

    def _move(
        self, entry: _Entry, inside: Netlink, before: Sequence[Endpoint], after: Sequence[Endpoint]
    ) -> tuple[Endpoint, ...]:
        """Give default routes and published ports to whom they belong now."""
        old, new = gateway.choose(before), gateway.choose(after)
        ids = [(e and e.endpoint_id) for e in old] == [(e and e.endpoint_id) for e in new]
        if ids:
            return tuple(after)
        gateway.move(inside, old, new, {link.name: link.ifindex for link in inside.links()})
        if not entry.ports:
            return tuple(after)
        for endpoint in before:
            self._tools.firewall.withdraw(endpoint)
            self._tools.ports.release(endpoint.ports)
        # The same ports of the host as before, where any was chosen freely.
        kept = as_requests([port for endpoint in before for port in endpoint.ports])
        try:
            published = self._reserve(after, new, kept or entry.ports)
        except WherryError as error:
            _log.error("%s has lost its published ports: %s", after[0].name or after[0].sandbox, error)
            published = {}
        found = tuple(replace(e, ports=tuple(published.get(e.endpoint_id, ()))) for e in after)
        for endpoint in found:
            self._tools.firewall.publish(endpoint)
        return found

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


def check_request(request: EndpointRequest, network: Network) -> None:
    """InvalidArgument with docker's words for what a network cannot give."""
    wrong = []
    for version, text in ((4, request.ipv4), (6, request.ipv6)):
        if not text:
            continue
        try:
            address = ip_address(text)
        except ValueError:
            wrong.append(f"invalid IPv{version} address: {text}")
            continue
        if address.version != version or address.is_unspecified or address.is_multicast:
            wrong.append(f"invalid IPv{version} address: {text}")
            continue
        if network.built_in:
            wrong.append("user specified IP address is supported on user defined networks only")
        elif not network.own_subnets:
            wrong.append(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
            )
            continue
        if not any(address in subnet.network for subnet in network.of_version(version)):
            wrong.append(f"no configured subnet or ip-range contain the IP address {text}")
    if wrong:
        wrong = list(dict.fromkeys(wrong))
        text = f"* {chr(10).join(wrong)}" if len(wrong) == 1 else "\n".join(f"* {line}" for line in wrong)
        text = wrong[0] if len(wrong) == 1 else text
        raise InvalidArgument(f"invalid config for network {network.name}: invalid endpoint settings:\n{text}")
    if network.driver in ("host", "null"):
        return
    mac = request.mac
    if mac is not None and (not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1):
        raise InvalidArgument(f"invalid MAC address: {mac}", object=mac)
    if network.driver in LOCAL_DRIVERS:
        check_options(request.options)


def check_options(options: Mapping[str, str]) -> None:
    """InvalidArgument for options of an endpoint that are not known, or cannot be."""
    for option in options:
        if option not in (IFNAME, sandbox.SYSCTLS):
            raise InvalidArgument(
                f"unknown driver option {option} of an endpoint",
                object=option,
                hint=f"known: {IFNAME}, {sandbox.SYSCTLS}",
            )
    name = options.get(IFNAME, "")
    if name and (len(name.encode()) > 15 or "/" in name or name in (".", "..", "lo") or any(c.isspace() for c in name)):
        raise InvalidArgument(f"invalid interface name {name!r}", object=IFNAME)
    sandbox.parse_sysctls(options, name or "IFNAME")
