"""The contract of network drivers, the same for all: what connects, what is left, what survives."""

import os
from dataclasses import dataclass, field
from functools import partial

import pytest
from networld import World

from wherry.errors import InvalidArgument, Unavailable, Unimplemented, WherryError
from wherry.kernel.netlink import Netlink
from wherry.network import EndpointRequest, NetworkRequest, Networks, Subnet

pytestmark = pytest.mark.root


@dataclass(frozen=True)
class Kind:
    """A driver with what its networks need."""

    driver: str
    options: dict[str, str] = field(default_factory=dict)
    routed: bool = True

    def request(self, name: str = "shop") -> NetworkRequest:
        subnets = (Subnet("10.44.0.0/24", ip_range="10.44.0.0/25"), Subnet("fd44::/64"))
        return NetworkRequest(name=name, driver=self.driver, options=self.options, subnets=subnets, ipv6=True)


KINDS = [
    Kind("bridge"),
    Kind("bridge", {"com.docker.network.bridge.name": "shop0", "com.docker.network.driver.mtu": "1280"}),
    *(Kind("macvlan", {"parent": "eth0", "macvlan_mode": mode}) for mode in ("bridge", "vepa", "private")),
    Kind("ipvlan", {"parent": "eth0"}),
    Kind("ipvlan", {"parent": "eth0", "ipvlan_mode": "l3"}),
    Kind(
        "overlay",
        {"wherry.overlay.peers": "192.0.2.2", "com.docker.network.driver.overlay.vxlanid_list": "77"},
        routed=False,
    ),
]
PARTED = ("vepa", "private")


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join((kind.driver, *kind.options.values())))
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


def make(world: World, networks: Networks, kind: Kind) -> None:
    try:
        world.host.do(lambda: networks.create(kind.request()))
        # Only an interface tells whether the kernel has its kind.
        world.host.do(lambda: networks.connect("probe", EndpointRequest("shop")))
    except Unimplemented as error:
        pytest.skip(str(error))
    networks.disconnect("probe")
    assert networks.wait_drained(5)


def test_two_sandboxes_meet_and_nothing_is_left(world: World, kind: Kind) -> None:
    networks = world.networks()
    # The first network with IPv6 makes the host a router, between whose links the table then stands.
    world.host.do(lambda: networks.create(NetworkRequest(name="first", ipv6=True)))
    networks.remove("first")
    assert networks.wait_drained(5)
    before = (world.links(), world.ruleset())
    make(world, networks, kind)
    one, first = world.connect(networks, "one", network="shop")
    two, second = world.connect(networks, "two", network="shop")
    assert (one.ipv4, one.prefix, one.prefix6) == (one.ipv4, 24, 64)
    assert one.ipv4 != two.ipv4
    assert one.ipv6 != two.ipv6
    with first.do(Netlink) as inside:
        link = inside.link("eth0")
        assert link.up
        assert not one.mac or link.mac == one.mac
        held = {(a.address, a.prefix) for a in inside.addresses() if a.ifindex == link.ifindex}
        assert {(one.ipv4, 24), (one.ipv6, 64)} <= held
        defaults = [route for route in inside.routes() if route.destination is None]
        assert len(defaults) == (1 if kind.routed else 0)
    if not set(kind.options.values()) & set(PARTED):
        with second.serve(80), second.serve(81, "::"):
            assert first.reaches(two.ipv4, 80)
            assert first.reaches(two.ipv6, 81)
    with pytest.raises(WherryError, match="active endpoints"):
        networks.remove("shop")
    networks.disconnect("one", "shop")
    with first.do(Netlink) as inside:
        assert {link.name for link in inside.links() if link.name != "lo"} <= {"tunl0", "sit0"}
    networks.disconnect("one")
    networks.disconnect("two")
    assert networks.wait_drained(5)
    networks.remove("shop")
    assert networks.wait_drained(5)
    assert (world.links(), world.ruleset()) == before
    assert os.listdir(world.exec_root / "netns") == []


def test_a_network_outlives_its_daemon_with_and_without_its_sandboxes(world: World, kind: Kind) -> None:
    networks = world.networks()
    make(world, networks, kind)
    one, first = world.connect(networks, "one", network="shop")
    networks.close()
    again = world.networks(live=(type(one).from_json(one.to_json()),))
    two, second = world.connect(again, "two", network="shop")
    assert two.ipv4 != one.ipv4
    if not set(kind.options.values()) & set(PARTED):
        with first.serve(80):
            assert second.reaches(one.ipv4, 80)
    for name in ("one", "two"):
        again.disconnect(name)
    assert again.wait_drained(5)
    again.close()
    third = world.networks()
    assert [network["Name"] for network in third.list()] == ["bridge", "host", "none", "shop"]
    assert world.connect(third, "three", network="shop")[0].ipv4 in (one.ipv4, two.ipv4)


def test_unknown_options_are_refused_by_name(world: World, kind: Kind) -> None:
    networks = world.networks()
    for option in ("no.such", "com.docker.network.bridge.nosuch", "macvlan_mod"):
        with pytest.raises(InvalidArgument, match=option):
            networks.create(NetworkRequest(name="x", driver=kind.driver, options={**kind.options, option: "1"}))
    assert [network["Name"] for network in networks.list()] == ["bridge", "host", "none"]


@pytest.mark.parametrize(
    ("driver", "options", "error", "text"),
    [
        ("macvlan", {"parent": "nosuch"}, InvalidArgument, "nosuch does not exist"),
        ("macvlan", {"parent": "eth0.9999"}, InvalidArgument, "eth0.9999 does not exist"),
        ("macvlan", {"macvlan_mode": "hub"}, InvalidArgument, "mode 'hub'"),
        ("overlay", {}, Unavailable, "not a swarm manager"),
        ("overlay", {"wherry.overlay.peers": "192.0.2.2"}, InvalidArgument, "vxlanid_list"),
        ("bridge", {"com.docker.network.bridge.name": "eth0"}, WherryError, "eth0 is a"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    world: World, driver: str, options: dict[str, str], error: type[Exception], text: str
) -> None:
    networks = world.networks()
    before = (world.links(), world.ruleset())
    with pytest.raises(error, match=text):
        world.host.do(lambda: networks.create(NetworkRequest(name="x", driver=driver, options=options)))
    assert networks.wait_drained(5)
    assert (world.links(), world.ruleset()) == before
    assert "x" not in [network["Name"] for network in networks.list()]


@pytest.mark.parametrize("parent", ["eth0.50", ""])
def test_links_a_macvlan_needs_are_made_or_refused_clearly(world: World, parent: str) -> None:
    networks = world.networks()
    options = {"parent": parent} if parent else {}
    try:
        world.host.do(lambda: networks.create(NetworkRequest(name="x", driver="macvlan", options=options)))
    except Unimplemented as error:
        missing = str(error)
    else:
        missing = ""
    if missing:
        assert ("8021q" if parent else "dummy") in missing
        assert "x" not in [network["Name"] for network in networks.list()]
        return
    world.connect(networks, "one", network="x")
    networks.disconnect("one")
    networks.remove("x")
    assert networks.wait_drained(5)
    assert parent not in world.links()


def test_an_overlay_joins_two_hosts(world: World) -> None:
    """The neighbour is a second host, with a daemon of its own: frames cross the wire in VXLAN."""
    options = {"com.docker.network.driver.overlay.vxlanid_list": "77"}
    ours = world.networks()
    theirs = world.networks_of(world.neighbour)
    for networks, place, peer, part in (
        (ours, world.host, "192.0.2.2", "10.45.0.0/25"),
        (theirs, world.neighbour, "192.0.2.1", "10.45.0.128/25"),
    ):
        request = NetworkRequest(
            name="wide",
            driver="overlay",
            options={**options, "wherry.overlay.peers": peer},
            subnets=(Subnet("10.45.0.0/24", ip_range=part),),
        )
        place.do(partial(networks.create, request))
    one, here = world.connect(ours, "one", network="wide")
    two, there = world.connect(theirs, "two", network="wide", on=world.neighbour)
    with there.serve(80), here.serve(81):
        assert here.reaches(two.ipv4, 80)
        assert there.reaches(one.ipv4, 81)
