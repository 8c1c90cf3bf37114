"""overlay: one network over several hosts, each with a bridge, joined by VXLAN.

Frames between hosts are not encrypted: the hosts' own network has to be trusted. Who the other hosts are is asked of
`Peers`; a fixed list serves where there is no cluster. Every host gives addresses from its own part of the subnet
(`ip_range`). The bridge has no address, so an overlay leads nowhere else: what needs the outside is connected to a
bridge network too.
"""

import errno
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Protocol

from wherry.errors import InvalidArgument, Unavailable, Unimplemented
from wherry.kernel.netlink import Netlink, add_flooding, new_child, set_link, vxlan
from wherry.network import bridge as bridges
from wherry.network.drain import Drain
from wherry.network.drivers.bridge import BridgeDriver
from wherry.network.drivers.contract import Box
from wherry.network.endpoint import Endpoint
from wherry.network.firewall import Firewall
from wherry.network.network import Network, changed
from wherry.network.options import PREFIX
from wherry.network.ports import Target

PEERS = "wherry.overlay.peers"
NUMBER = f"{PREFIX}driver.overlay.vxlanid_list"
_MTU = f"{PREFIX}driver.mtu"
_PORT = 4789
_HEADERS = 50


class Peers(Protocol):
    """Who has a part of a network. `watch`: call back with the network's ID when that changes."""

    def of(self, network: Network) -> Sequence[str]: ...
    def watch(self, changed: Callable[[str], None]) -> None: ...


class FixedPeers:
    """The list in the network's own options."""

    def of(self, network: Network) -> Sequence[str]:
        return [text.strip() for text in network.options.get(PEERS, "").split(",") if text.strip()]

    def watch(self, changed: Callable[[str], None]) -> None:
        pass


class OverlayDriver:
    """docker's driver "overlay", with peers that are told."""

    name = "overlay"
    scope = "local"
    sandboxed = True

    def __init__(self, host: Netlink, firewall: Firewall, drain: Drain, peers: Peers) -> None:
        self._host = host
        self._bridges = BridgeDriver(host, firewall, drain)
        self._drain = drain
        self._peers = peers

    def check(self, network: Network) -> None:
        for key in network.options:
            if key not in (PEERS, NUMBER, _MTU):
                raise InvalidArgument(
                    f"unknown option {key} of the overlay driver", object=key, hint=f"{PEERS}, {NUMBER}"
                )
        if PEERS not in network.options:
            raise Unavailable(
                'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node '
                "to swarm and try again.",
                hint=f"without a swarm, name the other hosts: --opt {PEERS}=ADDRESS,...",
            )
        number = network.options.get(NUMBER, "")
        if not number.isdigit() or not 0 < int(number) < 1 << 24:
            raise InvalidArgument(f"{NUMBER} must be the same number on every host, from 1 to 16777215", object=NUMBER)
        for peer in self._peers.of(network):
            try:
                ip_address(peer)
            except ValueError:
                raise InvalidArgument(f"invalid peer address: {peer}", object=PEERS) from None
        if network.ipv6 and not network.ipv4:
            raise Unimplemented("overlay networks of IPv6 alone are not supported", object=network.name)

    def open(self, network: Network, live: Collection[Endpoint]) -> list[Endpoint]:
        inner = self._inner(network)
        renewed = self._bridges.open(inner, live)
        opened = self._bridges.opened(inner)
        name = self._device(network)
        link = bridges.find(self._host, name)
        if link is None:
            try:
                data = vxlan(int(network.options[NUMBER]), _PORT)
                self._host.request(new_child(name, "vxlan", data, mtu=opened.bridge.mtu))
            except OSError as error:
                if error.errno == errno.EEXIST:
                    raise InvalidArgument(
                        f"another network of this host has the number {network.options[NUMBER]}", object=NUMBER
                    ) from None
                raise
            link = self._host.link(name)
        self._host.request(set_link(link.ifindex, master=opened.bridge.ifindex, up=True))
        for peer in self._peers.of(network):
            try:
                self._host.request(add_flooding(link.ifindex, peer))
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise
        return renewed

    def close(self, network: Network, gone: Callable[[], None]) -> None:
        bridges.remove(self._host, self._device(network))
        self._bridges.close(self._inner(network), gone)

    def stem(self, network: Network) -> str:
        return "eth"

    def draft(self, network: Network, endpoint: Endpoint, box: Box) -> Endpoint:
        return replace(self._bridges.draft(network, endpoint, box), gateway="", gateway6="")

    def plug(self, network: Network, endpoint: Endpoint, box: Box) -> int:
        return self._bridges.plug(self._inner(network), endpoint, box)

    def unplug(self, network: Network, endpoint: Endpoint, *, box_goes: bool) -> None:
        self._bridges.unplug(network, endpoint, box_goes=box_goes)

    def settle(self, endpoint: Endpoint, gone: Callable[[], None]) -> None:
        self._bridges.settle(endpoint, gone)

    def target(self, network: Network, endpoint: Endpoint) -> Target | None:
        return None

    def _device(self, network: Network) -> str:
        return f"vx-{network.id[:12]}"

    def _inner(self, network: Network) -> Network:
        """The part on this host, as a bridge network: internal, and without an address of its own."""
        mtu = network.options.get(_MTU) or str(bridges.uplink_mtu(self._host) - _HEADERS)
        return changed(network, gateways={}, internal=True, options={_MTU: mtu})
