"""Published ports of one sandbox: which of its endpoints they lead to, reserved and put into the table."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from wherry.errors import WherryError
from wherry.network import gateway
from wherry.network.catalog import Catalog
from wherry.network.drivers.contract import Driver
from wherry.network.endpoint import Endpoint, PortRequest, PublishedPort
from wherry.network.firewall import Firewall
from wherry.network.gateway import Gateways
from wherry.network.network import Network
from wherry.network.ports import Ports, Target, as_requests, check, without

_log = logging.getLogger(__name__)


class Publisher:
    """Ports lead to the endpoint that has the default route, for each kind of address: as docker does it."""

    def __init__(self, ports: Ports, firewall: Firewall, catalog: Catalog, driver: Callable[[Network], Driver]) -> None:
        self._ports, self._firewall, self._catalog, self._driver = ports, firewall, catalog, driver

    def publish(
        self, endpoints: Sequence[Endpoint], requests: Sequence[PortRequest], undo: ExitStack
    ) -> tuple[tuple[Endpoint, ...], Gateways]:
        """Lead ports to new endpoints, and who has the default routes; on failure `undo` knows how."""
        gateways = gateway.choose(endpoints)
        if not requests:
            return tuple(endpoints), gateways
        found = []
        published = self._reserve(endpoints, gateways, requests)
        undo.callback(self._ports.release, [port for ports in published.values() for port in ports])
        for endpoint in endpoints:
            endpoint = replace(endpoint, ports=tuple(published.get(endpoint.endpoint_id, ())))
            undo.callback(self._firewall.withdraw, endpoint)
            self._firewall.publish(endpoint)
            found.append(endpoint)
        return tuple(found), gateway.choose(found)

    def change(
        self, endpoints: Sequence[Endpoint], requests: Sequence[PortRequest], *, try_only: bool
    ) -> tuple[Endpoint, ...]:
        """Publish exactly these ports; those that stay are not touched. Conflict: one is taken, nothing has changed."""
        gateways = gateway.choose(endpoints)
        target, owners = self._target(gateways)
        before = [port for endpoint in endpoints for port in endpoint.ports]
        if not owners:
            for request in requests:
                check(request)
            return tuple(endpoints)
        with self._worded(gateways, endpoints):
            after = self._ports.change(before, requests, target)
        if try_only:
            self._give_back(after, before)
            return tuple(endpoints)
        changed = []
        try:
            for old in endpoints:
                own = [port for port in after if owners.get(6 if ":" in port.host_ip else 4) == old.endpoint_id]
                new = replace(old, ports=tuple(own))
                if new.ports != old.ports:
                    self._firewall.replace(old, new)
                changed.append(new)
        except BaseException:
            self._give_back(after, before)
            raise
        return tuple(changed)

    def move(
        self, before: Sequence[Endpoint], after: Sequence[Endpoint], requests: Sequence[PortRequest]
    ) -> tuple[Endpoint, ...]:
        """Lead the ports of `before` to those whom they belong to among `after`."""
        for endpoint in before:
            self.withdraw(endpoint)
        # The same ports of the host as before, where any was chosen freely.
        kept = as_requests([port for endpoint in before for port in endpoint.ports])
        try:
            published = self._reserve(after, gateway.choose(after), kept or requests)
        except WherryError as error:
            _log.error("%s has lost its published ports: %s", after[0].name or after[0].sandbox, error)
            published = {}
        found = tuple(replace(e, ports=tuple(published.get(e.endpoint_id, ()))) for e in after)
        for endpoint in found:
            self._firewall.publish(endpoint)
        return found

    def withdraw(self, endpoint: Endpoint) -> None:
        """Its ports lead nowhere any more, and are free."""
        if endpoint.ports:
            self._firewall.withdraw(endpoint)
            self._ports.release(endpoint.ports)

    def _reserve(
        self, endpoints: Sequence[Endpoint], gateways: Gateways, requests: Sequence[PortRequest]
    ) -> dict[str, list[PublishedPort]]:
        """endpoint's ID → the ports that lead to it."""
        target, owners = self._target(gateways)
        if not target.ipv4 and not target.ipv6:
            return {}
        with self._worded(gateways, endpoints):
            taken = self._ports.reserve(requests, target)
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
            network = self._catalog.get(endpoint.network_id) if endpoint is not None else None
            own = self._driver(network).target(network, endpoint) if network is not None and endpoint else None
            if own is None or endpoint is None:
                continue
            owners[version] = endpoint.endpoint_id
            if version == 4:
                target = replace(target, ipv4=own.ipv4, routed4=own.routed4, binding=own.binding)
            else:
                target = replace(target, ipv6=own.ipv6, routed6=own.routed6)
        return target, owners

    def _give_back(self, after: Sequence[PublishedPort], before: Sequence[PublishedPort]) -> None:
        self._ports.release(without(after, before))
        self._ports.adopt(without(before, after))
