"""Which address goes to whom, within one subnet."""

from ipaddress import IPv4Address, IPv4Network
from threading import Lock

from wherry.errors import Conflict, InvalidArgument, Unavailable


class AddressPool:
    """The addresses of a subnet, given out lowest first, as docker's allocator does.

    The network's own address, the broadcast address and the gateway are never given. `within` narrows the choice.
    """

    def __init__(self, subnet: IPv4Network, gateway: IPv4Address, within: IPv4Network | None = None) -> None:
        chosen = within or subnet
        if not chosen.subnet_of(subnet):
            raise InvalidArgument(f"{chosen} is not part of the subnet {subnet}", object=str(chosen))
        self.subnet = subnet
        self._first = max(int(chosen.network_address), int(subnet.network_address) + 1)
        self._last = min(int(chosen.broadcast_address), int(subnet.broadcast_address) - 1)
        self._used = {int(gateway)}
        # No address below this one is free.
        self._low = self._first
        self._lock = Lock()

    def allocate(self) -> IPv4Address:
        """The lowest free address; Unavailable when there is none."""
        with self._lock:
            while self._low in self._used:
                self._low += 1
            if self._low > self._last:
                raise Unavailable(
                    f"no available IPv4 addresses on this network's address pools: {self.subnet}",
                    object=str(self.subnet),
                    hint="remove containers, or give the daemon a larger --bip",
                )
            self._used.add(self._low)
            return IPv4Address(self._low)

    def reserve(self, address: IPv4Address) -> None:
        """Take this very address; Conflict when it is in use, InvalidArgument when the subnet does not hold it."""
        number = int(address)
        if not int(self.subnet.network_address) < number < int(self.subnet.broadcast_address):
            raise InvalidArgument(f"no configured subnet contains IP address {address}", object=str(address))
        with self._lock:
            if number in self._used:
                raise Conflict("Address already in use", object=str(address))
            self._used.add(number)

    def release(self, address: IPv4Address) -> None:
        """Give an address back; one that was not taken is no error."""
        number = int(address)
        with self._lock:
            self._used.discard(number)
            if self._first <= number < self._low:
                self._low = number


def mac_of(address: IPv4Address) -> str:
    """The hardware address that goes with an IPv4 address: 02:42 and its four bytes, docker's scheme until version 27.

    Kept rather than random ones because a neighbour's cache stays right when an address comes back with another
    container, without an announcement to every port of the bridge.
    """
    return "02:42:" + address.packed.hex(":")
