from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from wherry.errors import Conflict, InvalidArgument, Unavailable
from wherry.network.ipam import AddressPool, mac_of

SUBNET = IPv4Network("10.1.2.0/28")
GATEWAY = IPv4Address("10.1.2.1")
GIVEABLE = {address for address in SUBNET.hosts() if address != GATEWAY}


class Allocation(RuleBasedStateMachine):
    """Against a model: the set of free addresses, of which the lowest goes first."""

    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.pool = AddressPool(SUBNET, GATEWAY)
        self.free = set(GIVEABLE)

    @rule(target=taken)
    def allocate(self) -> IPv4Address | None:
        if not self.free:
            with pytest.raises(Unavailable):
                self.pool.allocate()
            return None
        address = self.pool.allocate()
        assert isinstance(address, IPv4Address)
        assert address == min(self.free)
        self.free.remove(address)
        return address

    @rule(target=taken, address=st.sampled_from(sorted(GIVEABLE)))
    def reserve(self, address: IPv4Address) -> IPv4Address | None:
        if address not in self.free:
            with pytest.raises(Conflict):
                self.pool.reserve(address)
            return None
        self.pool.reserve(address)
        self.free.remove(address)
        return address

    @rule(address=consumes(taken))
    def release(self, address: IPv4Address | None) -> None:
        if address is not None:
            self.pool.release(address)
            self.free.add(address)

    @invariant()
    def gateway_is_never_free(self) -> None:
        with pytest.raises(Conflict):
            self.pool.reserve(GATEWAY)


TestAllocation = Allocation.TestCase
TestAllocation.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def test_addresses_stay_within_the_range_and_outside_can_be_released() -> None:
    pool = AddressPool(SUBNET, GATEWAY, IPv4Network("10.1.2.8/30"))
    assert [str(pool.allocate()) for _ in range(4)] == ["10.1.2.8", "10.1.2.9", "10.1.2.10", "10.1.2.11"]
    pool.release(IPv4Address("10.1.2.2"))
    with pytest.raises(Unavailable):
        pool.allocate()


@pytest.mark.parametrize("address", ["10.1.2.0", "10.1.2.15", "10.1.3.1"])
def test_what_is_no_host_of_the_subnet_cannot_be_reserved(address: str) -> None:
    with pytest.raises(InvalidArgument):
        AddressPool(SUBNET, GATEWAY).reserve(IPv4Address(address))


def test_hardware_address_follows_the_address() -> None:
    assert mac_of(IPv4Address("172.17.0.2")) == "02:42:ac:11:00:02"
