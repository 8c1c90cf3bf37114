"""Which address goes to whom within a network."""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from threading import Lock
from typing import NamedTuple

from wherry.errors import Conflict, InvalidArgument, Unavailable, WherryError
from wherry.network.network import Network, Subnet

AnyAddress = IPv4Address | IPv6Address
AnyNetwork = IPv4Network | IPv6Network


class AddressPool:
    """The addresses of a subnet, given out lowest first, as docker's allocator does.

    The network's own address, the broadcast address and the `reserved` ones are never given. `within` narrows what is
    given unasked.
    """

    def __init__(
        self,
        subnet: AnyNetwork,
        gateway: AnyAddress | None,
        within: AnyNetwork | None = None,
        reserved: Iterable[AnyAddress] = (),
    ) -> None:
        chosen = within or subnet
        if chosen.version != subnet.version or not chosen.subnet_of(subnet):  # type: ignore[arg-type]
            raise InvalidArgument(f"{chosen} is not part of the subnet {subnet}", object=str(chosen))
        self.subnet = subnet
        # Point-to-point subnets (RFC 3021, RFC 6164) have neither, IPv6 has no broadcast address.
        spare = 0 if subnet.prefixlen >= subnet.max_prefixlen - 1 else 1
        self._lowest = int(subnet.network_address) + spare
        self._highest = int(subnet.broadcast_address) - (spare if subnet.version == 4 else 0)
        self._first = max(int(chosen.network_address), self._lowest)
        self._last = min(int(chosen.broadcast_address), self._highest)
        self._used = {int(address) for address in reserved}
        if gateway is not None:
            self._used.add(int(gateway))
        # No address below this one is free.
        self._low = self._first
        self._lock = Lock()

    def allocate(self) -> AnyAddress:
        """The lowest free address; Unavailable when there is none."""
        with self._lock:
            while self._low in self._used:
                self._low += 1
            if self._low > self._last:
                version = self.subnet.version
                raise Unavailable(
                    f"no available IPv{version} addresses on this network's address pools: {self.subnet}",
                    object=str(self.subnet),
                    hint="remove containers, or give the network a larger subnet",
                )
            self._used.add(self._low)
            return type(self.subnet.network_address)(self._low)

    def reserve(self, address: AnyAddress) -> None:
        """Take this very address; Conflict when it is in use, InvalidArgument when the subnet does not hold it."""
        number = int(address)
        if not self.holds(address):
            raise InvalidArgument(f"no configured subnet contains IP address {address}", object=str(address))
        with self._lock:
            if number in self._used:
                raise Conflict("Address already in use", object=str(address))
            self._used.add(number)

    def holds(self, address: AnyAddress) -> bool:
        """Whether the address is one that this pool could give."""
        return address.version == self.subnet.version and self._lowest <= int(address) <= self._highest

    def release(self, address: AnyAddress) -> None:
        """Give an address back; one that was not taken is no error."""
        number = int(address)
        with self._lock:
            self._used.discard(number)
            if self._first <= number < self._low:
                self._low = number


class Lease(NamedTuple):
    """One container's addresses on one network, "" where it has none of a kind; prefixes in bits."""

    ipv4: str = ""
    prefix4: int = 0
    gateway4: str = ""
    ipv6: str = ""
    prefix6: int = 0
    gateway6: str = ""


class Addresses:
    """The addresses of one network: several subnets of both kinds. Every method may be called from any thread."""

    def __init__(self, network: Network) -> None:
        self._gateways = network.gateways
        self._pools = [_pool(subnet, network.gateways) for subnet in network.subnets]
        self._wants = {4: network.ipv4, 6: network.ipv6}

    def allocate(self, ipv4: str = "", ipv6: str = "") -> Lease:
        """Addresses of every kind the network has; `ipv4` and `ipv6` ask for very ones."""
        first = second = None
        try:
            if self._wants[4]:
                first = self._take(4, ipv4)
            if self._wants[6]:
                second = self._take(6, ipv6)
        except WherryError:
            if first is not None:
                first[0].release(first[1])
            raise
        return self._lease(first, second)

    def adopt(self, ipv4: str, ipv6: str) -> list[WherryError]:
        """Take what an endpoint has already; what is wrong with that."""
        failures = []
        for text in (ipv4, ipv6):
            if text:
                try:
                    self._reserve(ip_address(text))
                except WherryError as error:
                    failures.append(error)
        return failures

    def release(self, lease: Lease) -> None:
        """Give both back."""
        for text in (lease.ipv4, lease.ipv6):
            if text:
                address = ip_address(text)
                for pool in self._pools:
                    if pool.holds(address):
                        pool.release(address)

    def _take(self, version: int, wanted: str) -> tuple[AddressPool, AnyAddress] | None:
        if wanted:
            address = ip_address(wanted)
            return self._reserve(address), address
        pools = [pool for pool in self._pools if pool.subnet.version == version]
        for number, pool in enumerate(pools, 1):
            try:
                return pool, pool.allocate()
            except Unavailable:
                if number == len(pools):
                    raise
        return None

    def _reserve(self, address: AnyAddress) -> AddressPool:
        for pool in self._pools:
            if pool.holds(address):
                pool.reserve(address)
                return pool
        raise InvalidArgument(f"no configured subnet contains IP address {address}", object=str(address))

    def _lease(
        self, first: tuple[AddressPool, AnyAddress] | None, second: tuple[AddressPool, AnyAddress] | None
    ) -> Lease:
        lease = Lease()
        if first is not None:
            subnet = first[0].subnet
            gateway = self._gateways.get(str(subnet), "")
            lease = lease._replace(ipv4=str(first[1]), prefix4=subnet.prefixlen, gateway4=gateway)
        if second is not None:
            subnet = second[0].subnet
            gateway = self._gateways.get(str(subnet), "")
            lease = lease._replace(ipv6=str(second[1]), prefix6=subnet.prefixlen, gateway6=gateway)
        return lease


def _pool(subnet: Subnet, gateways: Mapping[str, str]) -> AddressPool:
    gateway = gateways.get(subnet.subnet)
    return AddressPool(
        subnet.network,
        ip_address(gateway) if gateway else None,
        ip_network(subnet.ip_range) if subnet.ip_range else None,
        [ip_address(address) for address in subnet.auxiliary.values()],
    )


def mac_of(address: IPv4Address) -> str:
    """The hardware address that goes with an IPv4 address: 02:42 and its four bytes, docker's scheme until version 27.

    Kept rather than random ones because a neighbour's cache stays right when an address comes back with another
    container, without an announcement to every port of the bridge.
    """
    return "02:42:" + address.packed.hex(":")
