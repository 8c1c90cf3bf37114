"""Addresses from plugins: docker's remote IPAM protocol (libnetwork ipam.md)."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from typing import Any

from wherry.errors import Internal, InvalidArgument, WherryError
from wherry.network.ipam import Lease
from wherry.network.network import Network, Subnet
from wherry.plugins import Plugin

_GATEWAY = {"RequestAddressType": "com.docker.network.gateway"}


class RemotePools:
    """A plugin that implements IpamDriver."""

    def __init__(self, plugin: Plugin) -> None:
        self.name = plugin.name
        self._plugin = plugin

    def complete(self, network: Network) -> Network:
        """The network with its subnets and gateways as the plugin gives them; on failure nothing is kept there."""
        spaces = self.call("GetDefaultAddressSpaces", None)
        space = str(spaces.get("LocalDefaultAddressSpace") or "LocalDefault")
        subnets: list[Subnet] = []
        gateways: dict[str, str] = {}
        pools: dict[str, str] = {}
        try:
            for version, wanted in ((4, network.ipv4), (6, network.ipv6)):
                if not wanted:
                    continue
                for asked in network.of_version(version) or (Subnet(),):
                    pool, subnet = self._request_pool(space, asked, network, version)
                    pools[subnet.subnet] = pool
                    gateways[subnet.subnet] = self._gateway(pool, asked)
                    subnets.append(replace(subnet, gateway=gateways[subnet.subnet]))
        except WherryError:
            self.release(replace(network, ipam_pools=pools, gateways=gateways))
            raise
        return replace(network, subnets=tuple(subnets), gateways=gateways, ipam_pools=pools)

    def release(self, network: Network) -> None:
        """Give a network's pools back; what the plugin says to that helps nobody."""
        for subnet, pool in network.ipam_pools.items():
            gateway = network.gateways.get(subnet)
            try:
                if gateway:
                    self.call("ReleaseAddress", {"PoolID": pool, "Address": gateway})
                self.call("ReleasePool", {"PoolID": pool})
            except WherryError:
                continue

    def address(self, pool: str, wanted: str, options: Mapping[str, str]) -> str:
        """An address with its prefix."""
        answer = self.call("RequestAddress", {"PoolID": pool, "Address": wanted, "Options": dict(options)})
        try:
            return str(ip_interface(str(answer.get("Address", ""))))
        except ValueError as error:
            raise Internal(f"plugin {self.name} gave a bad address: {error}", object=self.name) from None

    def call(self, method: str, body: Any) -> dict[str, Any]:
        answer = self._plugin.call(f"IpamDriver.{method}", body)
        if not isinstance(answer, dict):
            raise Internal(f"plugin {self.name} gave no object as an answer to {method}", object=self.name)
        return answer

    def _request_pool(self, space: str, asked: Subnet, network: Network, version: int) -> tuple[str, Subnet]:
        body = {
            "AddressSpace": space,
            "Pool": asked.subnet,
            "SubPool": asked.ip_range,
            "Options": dict(network.ipam_options or {}),
            "V6": version == 6,
        }
        answer = self.call("RequestPool", body)
        try:
            found = ip_network(str(answer.get("Pool", "")))
        except ValueError as error:
            raise Internal(f"plugin {self.name} gave a bad pool: {error}", object=self.name) from None
        if found.version != version:
            raise Internal(f"plugin {self.name} gave the pool {found} for IPv{version}", object=self.name)
        return str(answer.get("PoolID", "")), replace(asked, subnet=str(found))

    def _gateway(self, pool: str, asked: Subnet) -> str:
        return self.address(pool, asked.gateway, _GATEWAY).partition("/")[0]


class RemoteAddresses:
    """The addresses of one network, asked of its plugin: as `wherry.network.ipam.Addresses`."""

    def __init__(self, network: Network, pools: RemotePools) -> None:
        self._network = network
        self._pools = pools

    def allocate(self, ipv4: str = "", ipv6: str = "") -> Lease:
        """Addresses of every kind the network has; `ipv4` and `ipv6` ask for very ones."""
        lease = Lease()
        try:
            for version, wanted in ((4, ipv4), (6, ipv6)):
                subnets = self._network.of_version(version)
                if not subnets:
                    continue
                subnet = subnets[0].subnet
                found = ip_interface(self._pools.address(self._network.ipam_pools[subnet], wanted, {}))
                prefix, gateway = subnets[0].network.prefixlen, self._network.gateways.get(subnet, "")
                if found.ip not in subnets[0].network:
                    raise InvalidArgument(f"plugin {self._pools.name} gave {found.ip}, which is not of {subnet}")
                if version == 4:
                    lease = lease._replace(ipv4=str(found.ip), prefix4=prefix, gateway4=gateway)
                else:
                    lease = lease._replace(ipv6=str(found.ip), prefix6=prefix, gateway6=gateway)
        except WherryError:
            self.release(lease)
            raise
        return lease

    def adopt(self, ipv4: str, ipv6: str) -> list[WherryError]:
        """The plugin knows them."""
        return []

    def release(self, lease: Lease) -> None:
        """Give both back."""
        for version, text in ((4, lease.ipv4), (6, lease.ipv6)):
            for subnet in self._network.of_version(version)[:1] if text else ():
                body = {"PoolID": self._network.ipam_pools.get(subnet.subnet, ""), "Address": text}
                try:
                    self._pools.call("ReleaseAddress", body)
                except WherryError:
                    continue
