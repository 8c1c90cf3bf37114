"""The default network: its address is chosen here, by the daemon's flags, what runs, and what the host has."""

import json
import logging
from collections.abc import Collection
from ipaddress import IPv4Interface, IPv4Network, IPv6Network, ip_interface

from wherry.errors import InvalidArgument
from wherry.kernel.netlink import Link, Netlink
from wherry.network import bridge as bridges
from wherry.network import pools
from wherry.network.bridge import Bridge
from wherry.network.config import NetworkConfig
from wherry.network.endpoint import Endpoint
from wherry.network.network import Network, Subnet, changed
from wherry.network.options import PREFIX
from wherry.state import Put, Store

_log = logging.getLogger(__name__)
_KEY = "network/bridge"


class DefaultBridge:
    """Made by choosing; `set_up` then makes the device."""

    def __init__(self, host: Netlink, config: NetworkConfig, store: Store, live: Collection[Endpoint]) -> None:
        self._host = host
        self._config = config
        self._store = store
        saved = store.get(_KEY)
        self._saved = json.loads(saved) if saved else {}
        self._own = False
        link = bridges.find(host, config.bridge)
        self.address = self._choose(link, live)
        self.mtu = config.mtu or bridges.uplink_mtu(host)

    def describe(self, network: Network) -> Network:
        """The record of the built-in network as the daemon's flags make it."""
        config, address = self._config, self.address
        subnets = [Subnet(str(address.network), str(address.ip), _part(config.fixed_cidr, address.network))]
        gateways = {str(address.network): str(address.ip)}
        if config.ipv6:
            subnet, gateway = self._choose_ipv6()
            subnets.append(Subnet(subnet, gateway))
            gateways[subnet] = gateway
        options = {
            f"{PREFIX}bridge.default_bridge": "true",
            f"{PREFIX}bridge.enable_icc": str(config.icc).lower(),
            f"{PREFIX}bridge.enable_ip_masquerade": str(config.ip_masq).lower(),
            f"{PREFIX}bridge.host_binding_ipv4": config.default_bind,
            f"{PREFIX}bridge.name": config.bridge,
            f"{PREFIX}driver.mtu": str(self.mtu),
        }
        return changed(network, subnets=tuple(subnets), gateways=gateways, ipv6=config.ipv6, options=options)

    def set_up(self, network: Network) -> Bridge:
        """Make or adopt the device, and remember what was chosen."""
        addresses = [ip_interface(f"{gateway}/{subnet.split('/')[1]}") for subnet, gateway in network.gateways.items()]
        bridge = bridges.set_up(self._host, self._config.bridge, addresses, self.mtu)
        # A bridge that was there before the first start is somebody else's, to be used and never to be removed.
        self._own = bridge.made or self._saved.get("own_mac") == bridge.mac
        document = {"address": str(self.address), "own_mac": bridge.mac if self._own else None}
        if network.ipv6:
            document["ipv6"] = network.of_version(6)[0].subnet
        self._store.write(Put(_KEY, json.dumps(document).encode()))
        return bridge

    def remove(self) -> None:
        """Delete the device, when it is ours."""
        if self._own:
            bridges.remove(self._host, self._config.bridge)

    def _choose(self, link: Link | None, live: Collection[Endpoint]) -> IPv4Interface:
        """That of the endpoints that are alive, else `bip`, else the device's own, else the one of the last time where
        still free, else the first free one."""
        wanted = bridges.parse_bip(self._config.bip) if self._config.bip else None
        alive = next((IPv4Interface(f"{e.gateway}/{e.prefix}") for e in live if e.gateway), None)
        if alive and wanted and alive != wanted:
            _log.warning("%s stays at %s, not %s, as long as containers run on it", self._config.bridge, alive, wanted)
        if alive or wanted:
            return alive or wanted  # type: ignore[return-value]
        if link is not None:
            own = [a for a in bridges.addresses_of(self._host, link) if isinstance(a, IPv4Interface)]
            if own:
                return own[0]
        taken = list(pools.taken(self._host))
        if self._saved.get("address"):
            last = IPv4Interface(self._saved["address"])
            if not any(last.network.overlaps(other) for other in taken if isinstance(other, IPv4Network)):
                return last
        choices = pools.parse_pools(self._config.pools) or pools.DEFAULT_POOLS
        subnet = pools.choose(choices, 4, taken)
        return IPv4Interface((int(subnet.network_address) + 1, subnet.prefixlen))

    def _choose_ipv6(self) -> tuple[str, str]:
        text = self._config.fixed_cidr_v6 or self._saved.get("ipv6")
        if text:
            try:
                subnet = IPv6Network(text)
            except ValueError as error:
                raise InvalidArgument(f"invalid --fixed-cidr-v6: {error}", object=text) from None
        else:
            found = pools.choose([pools.unique_local(self._config.table)], 6, pools.taken(self._host))
            subnet = IPv6Network(found)
        return str(subnet), str(subnet.network_address + 1)


def _part(text: str | None, network: IPv4Network) -> str:
    if not text:
        return ""
    try:
        part = IPv4Network(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid --fixed-cidr: {error}", object=text) from None
    if not part.subnet_of(network):
        raise InvalidArgument(f"--fixed-cidr {text} is not part of the bridge's subnet {network}", object=text)
    return text
