"""The default network: one bridge, one table, and a sandbox for every endpoint."""

import errno
import json
import logging
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from threading import Lock

from wherry.errors import FailedPrecondition, InvalidArgument, WherryError
from wherry.kernel import netns
from wherry.kernel.conntrack import Conntrack
from wherry.kernel.netlink import Link, Netlink, delete_link
from wherry.kernel.nftables import Nftables
from wherry.network import bridge as bridges
from wherry.network import rules, sandbox
from wherry.network.bridge import Bridge
from wherry.network.config import NetworkConfig
from wherry.network.drain import Drain
from wherry.network.endpoint import Endpoint, EndpointRequest, PortRequest, PublishedPort
from wherry.network.forwarding import open_forwarding, warn_of_firewalls
from wherry.network.ipam import AddressPool, mac_of
from wherry.network.pool import WarmPool
from wherry.network.ports import Ports, check, without
from wherry.network.sandbox import Prepared
from wherry.state import Put, Store

_log = logging.getLogger(__name__)
_ADDRESS_KEY = "network/bridge"
_UDP = 17


class DefaultBridge:
    """Made by starting it. Every method may be called from any thread; only the table's changes wait for each other."""

    def __init__(self, config: NetworkConfig, directory: Path, store: Store, live: Collection[Endpoint]) -> None:
        self._config = config
        self._directory = directory
        # What the table leads to: sandbox → endpoint. Guarded, with the table itself, by the lock.
        self._published = {endpoint.sandbox: endpoint for endpoint in live if endpoint.ports}
        self._table_lock = Lock()
        self._removing = False
        check(PortRequest(1), config.default_bind)
        with ExitStack() as opened:
            self._host = opened.enter_context(Netlink())
            self._nft = opened.enter_context(closing(_open_nftables()))
            self._conntrack = opened.enter_context(closing(Conntrack()))
            opened.callback(self._remove_when_asked)
            self.bridge = self._set_up_bridge(store, live)
            closed = open_forwarding(self._host, config.bridge, store) if config.ip_forward else ()
            self._addresses = self._make_pool(live)
            self._ports = opened.enter_context(closing(Ports(config.default_bind)))
            self._ports.adopt(port for endpoint in live for port in endpoint.ports)
            self._drain = opened.enter_context(closing(Drain(self._host)))
            subnet = self.bridge.subnet
            self._options = rules.TableOptions(config.table, config.bridge, subnet, config.icc, config.ip_masq, closed)
            self._nft.run(rules.table(self._options, self._published.values()))
            warn_of_firewalls(self._nft, config.table)
            self._restore(live)
            warm = WarmPool(self._prepare, sandbox.discard, config.warm)
            self._warm = opened.enter_context(closing(warm))
            self._opened = opened.pop_all()

    def connect(self, path: Path, draft: Endpoint, request: EndpointRequest) -> Endpoint:
        """A sandbox at `path` on the bridge, its ports published; when that fails, nothing. `draft` has the names."""
        with ExitStack() as undo:
            made = self._warm.take() or self._prepare()
            undo.callback(sandbox.discard, made)
            address = self._addresses.allocate()
            undo.callback(self._drain.add, made.host_ifname, partial(self._addresses.release, address))
            ports = self._reserve(request, draft, str(address))
            undo.callback(self._ports.release, ports)
            endpoint = Endpoint(
                sandbox=draft.sandbox,
                netns=path,
                network=draft.network,
                network_id=draft.network_id,
                driver=draft.driver,
                endpoint_id=draft.endpoint_id,
                name=draft.name,
                ifname=sandbox.INTERFACE,
                host_ifname=made.host_ifname,
                mac=request.mac or mac_of(address),
                ipv4=str(address),
                prefix=self.bridge.subnet.prefixlen,
                gateway=str(self.bridge.gateway),
                ports=ports,
            )
            undo.callback(self._withdraw, endpoint)
            self._publish(endpoint)
            undo.callback(sandbox.delete, path)
            sandbox.adopt(made, endpoint)
            undo.pop_all()
        made.inside.close()
        return endpoint

    def disconnect(self, endpoint: Endpoint) -> None:
        """Undo `connect`. The address is given to no other until the kernel has taken the interface down."""
        self._withdraw(endpoint)
        self._ports.release(endpoint.ports)
        if endpoint.netns is not None:
            sandbox.delete(endpoint.netns)
        self._drain.add(endpoint.host_ifname, partial(self._addresses.release, IPv4Address(endpoint.ipv4)))

    def change_ports(self, endpoint: Endpoint, requests: Sequence[PortRequest], *, try_only: bool = False) -> Endpoint:
        """Publish other ports while the container runs: those that stay are not touched, the table changes at once.

        Conflict: one is taken; then nothing has changed. `try_only`: only find that out.
        """
        ports = self._taking(endpoint, lambda: self._ports.change(endpoint.ports, requests, endpoint.ipv4))
        taken = without(ports, endpoint.ports)
        if try_only:
            self._ports.release(taken)
            return endpoint
        changed = replace(endpoint, ports=ports)
        new = replace(endpoint, ports=tuple(port for port in ports if port not in endpoint.ports))
        gone = replace(endpoint, ports=tuple(port for port in endpoint.ports if port not in ports))
        with self._table_lock:
            self._published[endpoint.sandbox] = changed
            try:
                self._change_table(rules.withdraw(self._config.table, gone) + rules.publish(self._config.table, new))
            except BaseException:
                self._published[endpoint.sandbox] = endpoint
                self._ports.release(taken)
                raise
            if not ports:
                del self._published[endpoint.sandbox]
        self._ports.release(without(endpoint.ports, ports))
        if any(port.proto == "udp" for port in gone.ports):
            self._conntrack.forget_server(endpoint.ipv4)
        for port in new.ports:
            if port.proto == "udp":
                self._conntrack.forget_port(_UDP, port.host_port)
        return changed

    def wait_drained(self, timeout: float) -> bool:
        """Wait until the interfaces of everything disconnected are gone."""
        return self._drain.wait_empty(timeout)

    def wait_warm(self, timeout: float) -> bool:
        """Wait until the sandboxes made ahead are ready."""
        return self._warm.wait_full(timeout)

    def close(self, *, remove: bool) -> None:
        """Let go of sockets and threads. With `remove` bridge and table go too, else they work on for containers."""
        self._removing = remove
        self._opened.close()

    def _remove_when_asked(self) -> None:
        if not self._removing:
            return
        self._nft.run(f"add table ip {self._config.table}\ndelete table ip {self._config.table}")
        if self._own:
            try:
                self._host.request(delete_link(self.bridge.ifindex))
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise

    def _prepare(self) -> Prepared:
        return sandbox.prepare(self._directory, self._host, self.bridge, icc=self._config.icc)

    def _reserve(self, request: EndpointRequest, draft: Endpoint, address: str) -> tuple[PublishedPort, ...]:
        return self._taking(draft, lambda: self._ports.reserve(request.ports, address))

    def _taking(self, draft: Endpoint, take: Callable[[], tuple[PublishedPort, ...]]) -> tuple[PublishedPort, ...]:
        try:
            return take()
        except WherryError as error:
            error.message = (
                "failed to set up container networking: driver failed programming external connectivity on endpoint "
                f"{draft.name or draft.sandbox} ({draft.endpoint_id}): {error.message}"
            )
            raise

    def _publish(self, endpoint: Endpoint) -> None:
        if not endpoint.ports:
            return
        with self._table_lock:
            self._published[endpoint.sandbox] = endpoint
            self._change_table(rules.publish(self._config.table, endpoint))
        for port in endpoint.ports:
            if port.proto == "udp":
                self._conntrack.forget_port(_UDP, port.host_port)

    def _withdraw(self, endpoint: Endpoint) -> None:
        with self._table_lock:
            if self._published.pop(endpoint.sandbox, None) is None:
                return
            self._change_table(rules.withdraw(self._config.table, endpoint))
        if any(port.proto == "udp" for port in endpoint.ports):
            self._conntrack.forget_server(endpoint.ipv4)

    def _change_table(self, commands: str) -> None:
        """Call with the lock held, and `_published` as it is to be."""
        try:
            self._nft.run(commands)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EEXIST):
                raise
            # Somebody flushed the rules of the whole machine (a firewall's reload does): say everything again.
            _log.warning("restoring the nftables table %s, which was changed from outside", self._config.table)
            self._nft.run(rules.table(self._options, self._published.values()))

    def _set_up_bridge(self, store: Store, live: Collection[Endpoint]) -> Bridge:
        alive = [IPv4Interface(f"{endpoint.gateway}/{endpoint.prefix}") for endpoint in live]
        saved = store.get(_ADDRESS_KEY)
        document = json.loads(saved) if saved else {}
        last = IPv4Interface(document["address"]) if document else None
        bridge = bridges.set_up(self._host, self._config, alive, last)
        # A bridge that was there before the first start is somebody else's, to be used and never to be removed.
        self._own = bridge.made or document.get("own_mac") == bridge.mac
        address = f"{bridge.gateway}/{bridge.subnet.prefixlen}"
        document = {"address": address, "own_mac": bridge.mac if self._own else None}
        store.write(Put(_ADDRESS_KEY, json.dumps(document).encode()))
        return bridge

    def _make_pool(self, live: Iterable[Endpoint]) -> AddressPool:
        try:
            within = IPv4Network(self._config.fixed_cidr) if self._config.fixed_cidr else None
        except ValueError as error:
            raise InvalidArgument(f"invalid --fixed-cidr: {error}", object=self._config.fixed_cidr) from None
        pool = AddressPool(self.bridge.subnet, self.bridge.gateway, within)
        for endpoint in live:
            try:
                pool.reserve(IPv4Address(endpoint.ipv4))
            except WherryError as error:
                # Better a daemon that runs: its containers' own traffic is what suffers.
                _log.warning("%s keeps the address %s: %s", endpoint.name or endpoint.sandbox, endpoint.ipv4, error)
        return pool

    def _restore(self, live: Collection[Endpoint]) -> None:
        """Delete the bridge's interfaces that belong to nobody, and make again what living endpoints lost."""
        links = {link.name: link for link in self._host.links()}
        known = {endpoint.host_ifname for endpoint in live}
        bridges.delete_links(
            self._host,
            [
                link
                for link in links.values()
                if link.master == self.bridge.ifindex
                and sandbox.is_host_interface(link.name)
                and link.name not in known
            ],
        )
        for endpoint in live:
            try:
                self._restore_endpoint(endpoint, links.get(endpoint.host_ifname))
            except OSError as error:
                _log.warning("cannot restore the network of %s: %s", endpoint.name or endpoint.sandbox, error)

    def _restore_endpoint(self, endpoint: Endpoint, link: Link | None) -> None:
        icc = self._config.icc
        if link is not None:
            if link.master != self.bridge.ifindex or not link.up or link.mtu != self.bridge.mtu:
                sandbox.plug_in(endpoint, self._host, self.bridge, icc=icc)
        elif endpoint.netns is not None and netns.is_mounted(str(endpoint.netns)):
            sandbox.restore(endpoint.netns, endpoint, self._host, self.bridge, icc=icc)
        else:
            _log.warning("%s has lost its network namespace", endpoint.name or endpoint.sandbox)


def _open_nftables() -> Nftables:
    try:
        return Nftables()
    except OSError as error:
        raise FailedPrecondition(os.fsdecode(error.strerror or str(error))) from None
