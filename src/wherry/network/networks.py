"""Networks: which there are, and who is connected where."""

import logging
import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from threading import Lock
from typing import Any

from wherry.errors import FailedPrecondition, Internal, NotFound, PermissionDenied, WherryError
from wherry.kernel import netns
from wherry.kernel.netlink import Netlink
from wherry.network import documents, pools, sandbox, specification
from wherry.network.catalog import Catalog
from wherry.network.check import check as check_kernel
from wherry.network.config import NetworkConfig
from wherry.network.default_bridge import DefaultBridge
from wherry.network.drain import Drain
from wherry.network.drivers.bridge import BridgeDriver
from wherry.network.drivers.children import ChildDriver
from wherry.network.drivers.contract import Driver
from wherry.network.drivers.overlay import FixedPeers, OverlayDriver
from wherry.network.drivers.plain import PlainDriver
from wherry.network.drivers.remote import RemoteDriver
from wherry.network.endpoint import Endpoint, EndpointRequest, PortRequest
from wherry.network.explain import Explanation, explain
from wherry.network.explain import Surroundings as Questions
from wherry.network.firewall import Firewall
from wherry.network.forwarding import has_ipv6, open_forwarding, warn_of_firewalls
from wherry.network.ipam import Addresses
from wherry.network.network import Network, changed
from wherry.network.options import parse
from wherry.network.pool import WarmPool
from wherry.network.ports import Ports, check
from wherry.network.remote_ipam import RemoteAddresses, RemotePools
from wherry.network.rules import TableOptions
from wherry.network.sandbox import Prepared
from wherry.network.sandboxes import Sandboxes, Tools
from wherry.network.specification import NetworkRequest, Surroundings
from wherry.plugins import activate
from wherry.spec.finding import Findings
from wherry.state import Store

_log = logging.getLogger(__name__)
_PATIENCE = 5.0
_PLUGIN_PATIENCE = 5.0
Watcher = Callable[[str], None]


class Networks:
    """The networks of one daemon.

    networks = Networks(config, store)
    networks.start(live=[])
    networks.create(NetworkRequest(name="shop"))
    web = EndpointRequest(network="shop", ports=(PortRequest(80, host_port_start=8080),))
    endpoint = networks.connect(sandbox, web)
    ...                                  # run something in endpoint.netns
    networks.disconnect(sandbox)
    networks.remove("shop")

    Synchronous; every method may be called from any thread. What the kernel holds survives the process: `start` takes
    it up again, removes what belongs to no endpoint in `live` and restores what those have lost. Needs CAP_NET_ADMIN
    and CAP_SYS_ADMIN.
    """

    def __init__(self, config: NetworkConfig, store: Store) -> None:
        self._config = config
        self._store = store
        self._directory = config.exec_root / "netns"
        self._catalog = Catalog(store)
        self._addresses: dict[str, Addresses | RemoteAddresses] = {}
        self._lock = Lock()
        self._watchers: list[Watcher] = []
        self._started: _Started | None = None

    def start(self, live: Collection[Endpoint], sandboxes: Collection[str] = ()) -> None:
        """Make or adopt what the kernel holds; drop what belongs to no endpoint in `live`, restore what those lack.

        `sandboxes` are those that run, whether they have an endpoint or not.
        """
        netns.make_directory(str(self._directory))
        known = {endpoint.netns.name for endpoint in live if endpoint.netns is not None} | set(sandboxes)
        for name in os.listdir(self._directory):
            if name not in known:
                sandbox.delete(self._directory / name)
        self._started = _Started(self._config, self._store, self._catalog, self._addresses, live, sandboxes)

    def check(self, findings: Findings) -> None:
        """Sandboxes, links and published ports against what the kernel has."""
        parts = self._parts()
        check_kernel(self._directory, parts.sandboxes, parts.firewall, findings)

    def close(self) -> None:
        """Release threads and sockets. Containers stay connected; without any, nothing is left in the kernel."""
        if self._started is None:
            return
        used = self._started.sandboxes.in_use
        self._started.close(remove=not used)
        self._started = None
        if not used:
            netns.remove_directory(str(self._directory))

    @property
    def gateway(self) -> str:
        """The host's address on the default bridge: what `host-gateway` means in --add-host; "" without one."""
        default = self._parts().default
        return "" if default is None else str(default.address.ip)

    def create(self, request: NetworkRequest) -> dict[str, Any]:
        """Make a network; its document. On any failure nothing is left. Conflict: the name is taken."""
        parts = self._parts()
        specification.check(request)
        if request.config_from:
            request = specification.inherit(request, self._catalog.find(request.config_from))
        network = specification.draft(request)
        network = changed(network, options={**parts.default_options(network), **network.options})
        if network.config_only:
            self._catalog.reserve(network)
            self._catalog.put(network)
            return self._document(network, {})
        driver = parts.driver(network.driver)
        driver.check(network)
        if network.subnets or network.options:
            # What is being removed may still have the subnet, or the device of that name.
            parts.drain.wait_empty(_PATIENCE)
        with self._lock:
            # One at a time: two must not choose the same subnet.
            if network.ipam_driver == "default":
                network = specification.complete(network, request, self._surroundings())
            elif network.ipam_driver != "null":
                network = parts.pools(network.ipam_driver).complete(network)
            self._catalog.reserve(network)
        self._open(network, driver)
        return self._document(network, {})

    def remove(self, name: str) -> Network:
        """Remove a network; what it was. FailedPrecondition or PermissionDenied while it is in use, or built in."""
        parts = self._parts()
        network = self._catalog.find(name)
        if network.built_in:
            raise PermissionDenied(f"{network.name} is a pre-defined network and cannot be removed", object=name)
        with self._lock:
            if any(other.config_from == network.name for other in self._catalog):
                raise PermissionDenied(
                    f'error while removing network: configuration network "{network.name}" is in use', object=name
                )
            members = parts.sandboxes.members(network.id)
            if members:
                listed = ", ".join(f'name:"{e.name or e.sandbox}" id:"{e.endpoint_id[:12]}"' for e in members)
                raise PermissionDenied(
                    f"error while removing network: network {network.name} has active endpoints ({listed})", object=name
                )
            self._catalog.withdraw(network)
        self._take_down(network)
        return network

    def prune(self, wanted: Callable[[Mapping[str, Any]], bool], kept: Collection[str] = ()) -> list[Network]:
        """Remove every network that is `wanted` and used by nobody; `kept` are names and IDs containers refer to."""
        removed = []
        for network in list(self._catalog):
            if network.built_in or network.name in kept or network.id in kept:
                continue
            if not wanted(self._document(network, {})):
                continue
            try:
                removed.append(self.remove(network.id))
            except (PermissionDenied, NotFound):
                continue
        return removed

    def connect(self, sandbox: str, request: EndpointRequest) -> Endpoint:
        """Connect a sandbox, which is made when there is none, to one network. On any failure nothing is left.

        Conflict: a port is in use, or it is connected there already. NotFound: no such network. InvalidArgument.
        """
        return self.connect_all(sandbox, (request,), request.ports)[-1]

    def connect_all(
        self, sandbox: str, requests: Sequence[EndpointRequest], ports: Sequence[PortRequest] = (), given: str = ""
    ) -> tuple[Endpoint, ...]:
        """Connect a sandbox to several networks, or, when one cannot be, to none; all that it then is connected to.

        `given`: "/proc/PID/ns/net" of a process whose network namespace it shall be (user namespaces own theirs).
        """
        found = self._parts().sandboxes.connect(sandbox, requests, ports, given)
        self._tell(sandbox)
        return found

    def disconnect(self, sandbox: str, network: str | None = None) -> None:
        """Undo `connect_all`, not connected is no error; or take a sandbox out of one network, NotFound."""
        if self._started is None and network is None:
            return
        self._parts().sandboxes.disconnect(sandbox, network)
        self._tell(sandbox)

    def change_ports(self, sandbox: str, requests: Sequence[PortRequest], *, try_only: bool = False) -> Endpoint:
        """Publish exactly these ports of a connected sandbox, while it runs; its first endpoint as it is now.

        Ports that stay are not touched. Conflict: one is taken, and nothing has changed. `try_only`: only find out.
        """
        return self._parts().sandboxes.change_ports(sandbox, requests, try_only=try_only)[0]

    def endpoint(self, sandbox: str) -> Endpoint | None:
        """Where the sandbox is connected: the first of several."""
        found = self._parts().sandboxes.endpoints(sandbox)
        return found[0] if found else None

    def endpoints(self, sandbox: str) -> tuple[Endpoint, ...]:
        """Where the sandbox is connected."""
        return self._parts().sandboxes.endpoints(sandbox)

    def members(self, network_id: str) -> list[Endpoint]:
        """Who is connected to a network: with each endpoint's `names` and addresses, what a DNS server has to know."""
        return self._parts().sandboxes.members(network_id)

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` with a sandbox's name after every change of where it is connected, from any thread."""
        self._watchers.append(watcher)

    def find(self, name: str) -> Network:
        """A network by name, ID or unique beginning of the ID; NotFound."""
        return self._catalog.find(name)

    def list(self, names: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Every network's document. `names`: sandbox → the container's name by now (default: as it was connected)."""
        return [self._document(network, names or {}) for network in self._catalog]

    def inspect(self, name: str, names: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The document of one network by name, ID or unique beginning of the ID; NotFound."""
        return self._document(self._catalog.find(name), names or {})

    def explain(self, address: str, port: int, proto: str = "tcp") -> Explanation:
        """What becomes of a packet from outside to an address and a port of this host."""
        parts = self._parts()
        around = Questions(
            parts.host, parts.firewall.nft, self._config.table, parts.sandboxes.every(), list(self._catalog)
        )
        return explain(around, address, port, proto)

    def wait_drained(self, timeout: float) -> bool:
        """Wait until nothing of what was disconnected is left in the kernel; False when it takes longer. For tests."""
        return self._parts().drain.wait_empty(timeout)

    def wait_warm(self, timeout: float) -> bool:
        """Wait until as many sandboxes as configured are ready ahead of need. For tests and benchmarks."""
        warm = self._parts().warm
        return warm is None or warm.wait_full(timeout)

    def _open(self, network: Network, driver: Driver) -> None:
        try:
            if network.ipv6:
                self._parts().enable_ipv6()
            self._addresses[network.id] = self._parts().addresses_of(network)
            driver.open(changed(network, state="creating"), ())
        except BaseException as error:
            self._take_down(network)
            if isinstance(error, OSError):
                raise Internal(f"cannot make the network {network.name}: {error}", object=network.name) from error
            raise
        self._catalog.put(network)

    def _take_down(self, network: Network) -> None:
        driver = self._parts().drivers.get(network.driver)
        self._addresses.pop(network.id, None)
        if network.ipam_pools:
            with suppress(WherryError):
                self._parts().pools(network.ipam_driver).release(network)
        if driver is None or network.config_only:
            self._catalog.forget(network)
        else:
            driver.close(network, lambda: self._catalog.forget(network))

    def _surroundings(self) -> Surroundings:
        parts, config = self._parts(), self._config
        used = [
            subnet.network
            for network in self._catalog.reserved()
            if not network.config_only
            for subnet in network.subnets
            if subnet.subnet
        ]
        chosen = pools.parse_pools(config.pools) or pools.DEFAULT_POOLS
        ipv6 = config.ipv6_networks
        host = list(pools.taken(parts.host))
        if ipv6 is None:
            ipv6 = parts.host_has_ipv6()
        own6 = [pool for pool in chosen if pool.base.version == 6]
        return Surroundings(chosen, own6 or [pools.unique_local(config.table)], used, host, ipv6)

    def _document(self, network: Network, names: Mapping[str, str]) -> dict[str, Any]:
        started = self._started
        members = started.sandboxes.members(network.id) if started is not None else []
        return documents.network(network, members, names)

    def _tell(self, sandbox: str) -> None:
        for watcher in self._watchers:
            watcher(sandbox)

    def _parts(self) -> "_Started":
        if self._started is None:
            raise FailedPrecondition("the networks have not been started")
        return self._started


class _Started:
    """What there is between start and close."""

    def __init__(
        self,
        config: NetworkConfig,
        store: Store,
        catalog: Catalog,
        addresses: dict[str, Addresses | RemoteAddresses],
        live: Collection[Endpoint],
        sandboxes: Collection[str],
    ) -> None:
        self._config = config
        self._store = store
        self._catalog = catalog
        self._addresses = addresses
        self._removing = False
        self.default: DefaultBridge | None = None
        self.warm: WarmPool | None = None
        check(PortRequest(1), config.default_bind)
        with ExitStack() as opened:
            self.host = opened.enter_context(Netlink())
            self._choose_default(live)
            closed4 = open_forwarding(self.host, self._is_ours, store) if config.ip_forward else ()
            closed6 = self._forward_ipv6() if any(network.ipv6 for network in catalog) else ()
            self.firewall = Firewall(TableOptions(config.table, closed4, closed6))
            opened.callback(self._close_firewall)
            self.ports = opened.enter_context(closing(Ports(config.default_bind)))
            self.ports.adopt(port for endpoint in live for port in endpoint.ports)
            self.drain = opened.enter_context(closing(Drain()))
            self._bridges = BridgeDriver(self.host, self.firewall, self.drain)
            every: tuple[Driver, ...] = (
                self._bridges,
                PlainDriver("host"),
                PlainDriver("null"),
                ChildDriver("macvlan", self.host, catalog.reserved),
                ChildDriver("ipvlan", self.host, catalog.reserved),
                OverlayDriver(self.host, self.firewall, self.drain, FixedPeers()),
            )
            self.drivers: dict[str, Driver] = {driver.name: driver for driver in every}
            tools = Tools(config.exec_root / "netns", catalog, self.drivers, addresses, self.ports, self.firewall)
            tools.take = self._take
            self.sandboxes = Sandboxes(tools)
            self.sandboxes.adopt(live, sandboxes)
            self.firewall.start([], live)
            warn_of_firewalls(self.firewall.nft, config.table)
            self._open_networks(live)
            if self.default is not None:
                warm = WarmPool(self._prepare, sandbox.discard, config.warm)
                self.warm = opened.enter_context(closing(warm))
            self._opened = opened.pop_all()

    def close(self, *, remove: bool) -> None:
        """Let go of sockets and threads. With `remove` devices and table go too, else they work on for containers."""
        self._removing = remove
        if remove:
            self._close_networks()
        self.drain.wait_empty(_PATIENCE)
        self._opened.close()

    def driver(self, name: str) -> Driver:
        """A driver, or a plugin that is one; NotFound."""
        found = self.drivers.get(name)
        if found is None:
            plugin = activate(name, "NetworkDriver", patience=_PLUGIN_PATIENCE, places=self._config.plugins)
            found = self.drivers.setdefault(name, RemoteDriver(plugin, self.host))
        return found

    def pools(self, name: str) -> RemotePools:
        """An IPAM plugin; NotFound."""
        return RemotePools(activate(name, "IpamDriver", patience=_PLUGIN_PATIENCE, places=self._config.plugins))

    def addresses_of(self, network: Network) -> Addresses | RemoteAddresses:
        """Who gives a network's addresses."""
        if network.ipam_driver in ("default", "null"):
            return Addresses(network)
        return RemoteAddresses(network, self.pools(network.ipam_driver))

    def default_options(self, network: Network) -> dict[str, str]:
        """What the daemon's configuration says of networks of this kind."""
        return {} if network.config_only else dict(self._config.driver_options.get(network.driver, {}))

    def host_has_ipv6(self) -> bool:
        """Whether the host itself can speak IPv6 with others."""
        if not has_ipv6():
            return False
        return any(
            route.prefix == 0 and route.destination is None and (route.gateway or route.ifindex > 1)
            for route in self.host.routes(socket.AF_INET6)
        )

    def enable_ipv6(self) -> None:
        """Let the host forward IPv6, from now on."""
        if not has_ipv6():
            raise FailedPrecondition(
                "this host has no IPv6", hint="net.ipv6.conf.all.disable_ipv6 must be 0, or leave --ipv6 out"
            )
        closed = self._forward_ipv6()
        self.firewall.close_links6(closed)

    def _forward_ipv6(self) -> tuple[str, ...]:
        if not self._config.ip_forward or not has_ipv6():
            return ()
        return open_forwarding(self.host, self._is_ours, self._store, 6)

    def _is_ours(self, link: str) -> bool:
        return link == self._config.bridge or link in {f"br-{network.id[:12]}" for network in self._catalog}

    def _choose_default(self, live: Collection[Endpoint]) -> None:
        if self._config.bridge == "none":
            return
        network = self._catalog.find("bridge")
        bridged = [endpoint for endpoint in live if endpoint.network_id == network.id]
        self.default = DefaultBridge(self.host, self._config, self._store, bridged)
        self._catalog.put(self.default.describe(network))

    def _open_networks(self, live: Collection[Endpoint]) -> None:
        for network in self._catalog.unfinished:
            driver = self.drivers.get(network.driver)
            if driver is not None and not network.config_only:
                driver.close(network, partial(self._catalog.forget, network))
            else:
                self._catalog.forget(network)
        self._catalog.unfinished.clear()
        self.drain.wait_empty(_PATIENCE)
        for network in list(self._catalog):
            members = [endpoint for endpoint in live if endpoint.network_id == network.id]
            if network.config_only:
                continue
            try:
                driver = self.driver(network.driver)
                for endpoint in self._open_one(network, driver, members):
                    self.sandboxes.reroute(endpoint.sandbox)
            except (WherryError, OSError) as error:
                if network.built_in:
                    raise
                _log.error("the network %s cannot be used: %s", network.name, error)

    def _open_one(self, network: Network, driver: Driver, members: Collection[Endpoint]) -> list[Endpoint]:
        if driver.sandboxed and network.subnets:
            addresses = self._addresses[network.id] = self.addresses_of(network)
            for endpoint in members:
                for error in addresses.adopt(endpoint.ipv4, endpoint.ipv6):
                    # Better a daemon that runs: its containers' own traffic is what suffers.
                    _log.warning("%s keeps its address: %s", endpoint.name or endpoint.sandbox, error)
        if network.built_in and network.driver == "bridge":
            if self.default is None:
                return []
            bridge = self.default.set_up(network)
            return self._bridges.adopt(network, bridge, parse(network.options), members)
        return driver.open(network, members)

    def _close_networks(self) -> None:
        """Nothing of ours stays in the kernel; the records make it anew at the next start."""
        for network in self._catalog:
            driver = self.drivers.get(network.driver)
            if driver is None or isinstance(driver, RemoteDriver) or network.built_in or network.config_only:
                continue
            driver.close(network, lambda: None)

    def _close_firewall(self) -> None:
        self.firewall.close(remove=self._removing)
        if self._removing and self.default is not None:
            self.default.remove()

    def _take(self) -> Prepared | None:
        if self.default is None or self.warm is None:
            return None
        return self.warm.take() or self._prepare()

    def _prepare(self) -> Prepared:
        opened = self._bridges.opened(self._catalog.find("bridge"))
        return sandbox.prepare(self._config.exec_root / "netns", self.host, opened.bridge, icc=opened.options.icc)
