"""bridge: a device of the host with an address, a veth pair for each endpoint, and rules about what may pass."""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, ip_interface
from os import urandom

from wherry.errors import InvalidArgument
from wherry.kernel import netns
from wherry.kernel.netlink import Link, Netlink
from wherry.network import bridge as bridges
from wherry.network import sandbox
from wherry.network.bridge import Bridge
from wherry.network.drain import Drain
from wherry.network.drivers.contract import Box
from wherry.network.endpoint import Endpoint
from wherry.network.firewall import Firewall
from wherry.network.ipam import mac_of
from wherry.network.network import Network
from wherry.network.options import BridgeOptions, parse
from wherry.network.ports import Target
from wherry.network.rules import Segment

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """A network as the kernel has it."""

    bridge: Bridge
    options: BridgeOptions


class BridgeDriver:
    """Networks on bridges of this host. The default one is opened by its owner, who knows how its address is chosen."""

    name = "bridge"
    scope = "local"
    sandboxed = True

    def __init__(self, host: Netlink, firewall: Firewall, drain: Drain) -> None:
        self._host = host
        self._firewall = firewall
        self._drain = drain
        self._open: dict[str, Opened] = {}

    def check(self, network: Network) -> None:
        options = parse(network.options, internal=network.internal)
        if options.name and bridges.find(self._host, options.name) is None and options.name.startswith("wveth"):
            raise InvalidArgument(f"the name {options.name} is kept for containers' interfaces", object=options.name)
        for snat in (options.snat4, options.snat6):
            if snat and (":" in snat) != (snat == options.snat6):
                raise InvalidArgument(f"{snat} is of the wrong kind for a source address", object=snat)

    def device(self, network: Network) -> str:
        """The name of a network's device."""
        return parse(network.options, internal=network.internal).name or f"br-{network.id[:12]}"

    def open(self, network: Network, live: Collection[Endpoint]) -> list[Endpoint]:
        options = parse(network.options, internal=network.internal)
        mtu = options.mtu or bridges.uplink_mtu(self._host)
        addresses = [
            ip_interface(f"{gateway}/{subnet.split('/')[1]}")
            for subnet, gateway in network.gateways.items()
            if _has_gateway(options, 6 if ":" in subnet else 4)
        ]
        bridge = bridges.set_up(self._host, self.device(network), addresses, mtu)
        return self.adopt(network, bridge, options, live)

    def adopt(
        self, network: Network, bridge: Bridge, options: BridgeOptions, live: Collection[Endpoint]
    ) -> list[Endpoint]:
        """As `open`, of a network whose device is there."""
        self._open[network.id] = Opened(bridge, options)
        self._firewall.add_segment(segment(network, bridge.name, options))
        return self._restore(network, live)

    def opened(self, network: Network) -> Opened:
        """A network's device and options; KeyError when it is not open."""
        return self._open[network.id]

    def close(self, network: Network, gone: Callable[[], None]) -> None:
        self._open.pop(network.id, None)
        self._firewall.remove_segment(network.id[:12])
        device = self.device(network)
        link = bridges.find(self._host, device)
        if link is None or link.kind != "bridge" or link.group != bridges.OURS:
            gone()
            return
        # 30 ms, in which nobody needs it any more.
        self._drain.add(device, gone, delete=True)

    def stem(self, network: Network) -> str:
        return self._open[network.id].options.interface_prefix

    def draft(self, network: Network, endpoint: Endpoint, box: Box) -> Endpoint:
        mac = endpoint.mac or (mac_of(IPv4Address(endpoint.ipv4)) if endpoint.ipv4 else "02:42:" + urandom(4).hex(":"))
        host_ifname = box.ready.host_ifname if box.ready else sandbox.host_interface()
        return replace(endpoint, mac=mac, host_ifname=host_ifname)

    def plug(self, network: Network, endpoint: Endpoint, box: Box) -> int:
        opened = self._open[network.id]
        bridge, icc = opened.bridge, opened.options.icc
        ready, box.ready = box.ready, None
        if ready is not None:
            if ready.bridge != bridge.ifindex or endpoint.ifname != sandbox.INTERFACE or endpoint.ipv6:
                sandbox.rehome(ready, self._host, bridge, endpoint, icc=icc)
            return ready.ifindex
        index, inside = sandbox.enter(
            box.path,
            lambda: sandbox.plug(
                endpoint.host_ifname, endpoint.ifname, self._host, bridge, icc=icc, ipv6=bool(endpoint.ipv6)
            ),
        )
        inside.close()
        return index

    def unplug(self, network: Network, endpoint: Endpoint, *, box_goes: bool) -> None:
        if not box_goes:
            self._drain.delete(endpoint.host_ifname)

    def settle(self, endpoint: Endpoint, gone: Callable[[], None]) -> None:
        self._drain.add(endpoint.host_ifname, gone)

    def target(self, network: Network, endpoint: Endpoint) -> Target | None:
        options = self._open[network.id].options
        if network.internal:
            return None
        return Target(
            endpoint.ipv4,
            endpoint.ipv6,
            routed4=options.mode4 == "routed",
            routed6=options.mode6 == "routed",
            binding=options.binding if options.binding != "0.0.0.0" else "",
        )

    def _restore(self, network: Network, live: Collection[Endpoint]) -> list[Endpoint]:
        """Delete the bridge's interfaces that belong to nobody, and make again what living endpoints lost."""
        opened = self._open[network.id]
        if opened.bridge.made and not live:
            return []  # in a crowd, looking at every link takes longer than all the rest
        links = {link.name: link for link in self._host.links()}
        known = {endpoint.host_ifname for endpoint in live}
        stale = [
            link
            for link in links.values()
            if link.master == opened.bridge.ifindex and sandbox.is_host_interface(link.name) and link.name not in known
        ]
        bridges.delete_links(self._host, stale)
        renewed = []
        for endpoint in live:
            try:
                if self._restore_endpoint(opened, endpoint, links.get(endpoint.host_ifname)):
                    renewed.append(endpoint)
            except OSError as error:
                _log.warning("cannot restore the network of %s: %s", endpoint.name or endpoint.sandbox, error)
        return renewed

    def _restore_endpoint(self, opened: Opened, endpoint: Endpoint, link: Link | None) -> bool:
        bridge, icc = opened.bridge, opened.options.icc
        if link is not None:
            if link.master != bridge.ifindex or not link.up or link.mtu != bridge.mtu:
                sandbox.plug_in(endpoint, self._host, bridge, icc=icc)
            return False
        if endpoint.netns is None or not netns.is_mounted(str(endpoint.netns)):
            _log.warning("%s has lost its network namespace", endpoint.name or endpoint.sandbox)
            return False
        index, inside = sandbox.enter(
            endpoint.netns,
            lambda: sandbox.plug(
                endpoint.host_ifname, endpoint.ifname, self._host, bridge, icc=icc, ipv6=bool(endpoint.ipv6)
            ),
        )
        with inside:
            inside.request(*sandbox.addresses(endpoint, index))
        return True


def _has_gateway(options: BridgeOptions, version: int) -> bool:
    """Whether the host itself has the gateway's address."""
    if version == 6:
        return options.mode6 != "isolated"
    return options.mode4 != "isolated" and not options.inhibit_gateway


def segment(network: Network, device: str, options: BridgeOptions) -> Segment:
    """What the rules say about a network."""
    return Segment(
        key=network.id[:12],
        device=device,
        subnets4=tuple(subnet.subnet for subnet in network.of_version(4)) if network.ipv4 else (),
        subnets6=tuple(subnet.subnet for subnet in network.of_version(6)) if network.ipv6 else (),
        icc=options.icc,
        internal=network.internal,
        masquerade=options.masquerade,
        mode4=options.mode4,
        mode6=options.mode6,
        snat4=options.snat4,
        snat6=options.snat6,
        trusted=options.trusted,
    )
