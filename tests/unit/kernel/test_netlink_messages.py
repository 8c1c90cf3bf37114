import struct

from hypothesis import given
from hypothesis import strategies as st

from wherry.kernel.netlink import add_address, add_route, new_veth
from wherry.kernel.netlink._messages import attribute
from wherry.kernel.netlink._parse import Link, attributes, parse_address, parse_link, parse_route


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40))))
def test_attributes_come_back(pairs: list[tuple[int, bytes]]) -> None:
    encoded = b"".join(attribute(kind, data) for kind, data in pairs)
    assert len(encoded) % 4 == 0
    assert list(attributes(encoded)) == pairs


@given(st.binary(max_size=200))
def test_garbage_ends_the_attributes_and_nothing_else(data: bytes) -> None:
    for _, value in attributes(data):
        assert len(value) <= len(data)


def test_a_veth_pair_is_one_message_with_its_peer_inside() -> None:
    message = new_veth("a0", peer="eth0", peer_netns=7, mtu=1400, master=5)
    info = dict(attributes(dict(attributes(message.body[16:]))[18]))
    assert info[1] == b"veth\0"
    peer = dict(attributes(info[2]))[1]
    inside = dict(attributes(peer[16:]))
    assert inside[3] == b"eth0\0"
    assert struct.unpack("=I", inside[28]) == (7,)
    assert parse_link(message.body) == Link(0, "a0", "veth", False, 1400, "", 5, 0, False, False)


def test_addresses_and_routes_read_back() -> None:
    assert parse_address(add_address(3, "172.17.0.2", 16).body) == (3, "172.17.0.2", 16)
    assert parse_address(add_address(3, "fd00::2", 64).body) == (3, "fd00::2", 64)
    default = parse_route(add_route(None, 0, gateway="172.17.0.1").body)
    assert (default.destination, default.gateway, default.table) == (None, "172.17.0.1", 254)
    assert parse_route(add_route("10.0.0.0", 8, index=4).body).ifindex == 4
