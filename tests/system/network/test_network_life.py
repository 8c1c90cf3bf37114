"""Networks over the life of daemons: what survives, what is restored, what is cleaned away."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from networld import HOST, World

from wherry.errors import Conflict, FailedPrecondition, Internal, InvalidArgument, NotFound
from wherry.kernel import sysctl
from wherry.kernel.netlink import Netlink, add_address, delete_link, new_bridge, new_veth, set_link
from wherry.kernel.nftables import Nftables
from wherry.network import EndpointRequest, PortRequest

pytestmark = pytest.mark.root

MAC = "02:00:00:00:00:09"
FOREIGN = (
    "table ip foreign {\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n\t}\n}\n"
)


def wveths(world: World) -> set[str]:
    return {name for name in world.links() if name.startswith("wveth")}


def run_nft(world: World, commands: str) -> None:
    with closing(world.host.do(Nftables)) as nft:
        nft.run(commands)


def test_a_sandbox_has_what_a_container_expects(world: World) -> None:
    networks = world.networks()
    (world.exec_root / "netns" / "box").touch()  # left by a daemon that was killed
    endpoint, place = world.connect(networks, "box")
    assert endpoint.netns == world.exec_root / "netns" / "box"
    assert (endpoint.ipv4, endpoint.prefix, endpoint.gateway) == ("172.17.0.2", 16, "172.17.0.1")
    assert endpoint.mac == "02:42:ac:11:00:02"
    with place.do(Netlink) as inside:
        links = {link.name: link for link in inside.links() if link.up}
        assert set(links) == {"lo", "eth0"}
        assert (links["eth0"].mac, links["eth0"].mtu) == (endpoint.mac, 1400)
        mine = [a for a in inside.addresses() if a.ifindex == links["eth0"].ifindex]
        assert [(a.address, a.prefix) for a in mine] == [("172.17.0.2", 16)], "no IPv6 of its own making"
        assert [r.gateway for r in inside.routes() if r.destination is None] == ["172.17.0.1"]
    assert networks.inspect("bridge")["Containers"]["box"] == {
        "Name": "box",
        "EndpointID": endpoint.endpoint_id,
        "MacAddress": "02:42:ac:11:00:02",
        "IPv4Address": "172.17.0.2/16",
        "IPv6Address": "",
    }
    with pytest.raises(Conflict):
        world.connect(networks, "box")


def test_none_and_host_need_no_sandbox(world: World) -> None:
    networks = world.networks()
    none = networks.connect("a", EndpointRequest("none"))
    assert (none.netns, none.driver) == (None, "null")
    host = networks.connect("b", EndpointRequest(networks.inspect("host")["Id"][:12]))
    assert (host.netns, host.driver) == (None, "host")
    assert [list(document["Containers"]) for document in networks.list()] == [[], ["b"], ["a"]]
    for name in ("a", "b", "b", "never"):
        networks.disconnect(name)
    assert [list(document["Containers"]) for document in networks.list()] == [[], [], []]


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (EndpointRequest("nosuch"), NotFound),
        (EndpointRequest("bridge", ipv4="172.17.0.9"), InvalidArgument),
        (EndpointRequest("bridge", mac="01:00:00:00:00:01"), InvalidArgument),
        (EndpointRequest("bridge", ports=(PortRequest(80, "icmp"),)), InvalidArgument),
    ],
)
def test_bad_requests_change_nothing(world: World, request_: EndpointRequest, error: type[Exception]) -> None:
    networks = world.networks()
    with pytest.raises(error):
        networks.connect("box", request_)
    with pytest.raises(InvalidArgument):
        networks.connect("../box", EndpointRequest("none"))
    assert os.listdir(world.exec_root / "netns") == []
    assert networks.endpoint("box") is None


def test_the_next_daemon_keeps_the_living_and_removes_the_rest(world: World) -> None:
    networks = world.networks()
    world.connect(networks, "first")
    web, place = world.connect(networks, "web", PortRequest(80, host_port_start=8080))
    dead, _ = world.connect(networks, "dead", PortRequest(80, host_port_start=8081))
    networks.disconnect("first")
    ids = [document["Id"] for document in networks.list()]
    networks.close()
    with place.serve(80):
        assert world.neighbour.reaches(HOST, 8080), "connections do not need a daemon"
        again = world.networks(live=(type(web).from_json(web.to_json()),))
        assert wveths(world) == {web.host_ifname}
        assert os.listdir(world.exec_root / "netns") == [place.path.name]
        assert world.neighbour.reaches(HOST, 8080)
        assert "8081" not in world.ruleset()
    with pytest.raises(OSError, match="in use"):
        world.host.serve(8080)
    world.host.serve(8081).close()
    assert [document["Id"] for document in again.list()] == ids
    given = [world.connect(again, name)[0].ipv4 for name in ("x", "y")]
    assert web.ipv4 not in given
    assert dead.ipv4 in given


@pytest.mark.parametrize("damage", ["table", "veth", "bridge", "unplugged"])
def test_what_living_endpoints_lost_is_restored(world: World, damage: str) -> None:
    networks = world.networks()
    web, place = world.connect(networks, "web", PortRequest(80, host_port_start=8080))
    networks.close()
    with world.host.do(Netlink) as host:
        if damage == "table":
            run_nft(world, "delete table inet test")
        elif damage == "veth":
            host.request(delete_link(web.host_ifname))
        elif damage == "bridge":
            host.request(delete_link("br-test"))
        else:
            host.request(set_link(web.host_ifname, master=0, up=False))
    with place.serve(80):
        world.networks(live=(web,))
        assert world.neighbour.reaches(HOST, 8080)
        assert world.host.reaches("127.0.0.1", 8080)


def test_a_flush_of_all_rules_is_healed_at_the_next_change(world: World) -> None:
    networks = world.networks()
    _, place = world.connect(networks, "web", PortRequest(80, host_port_start=8080))
    run_nft(world, "flush ruleset")
    world.connect(networks, "two", PortRequest(81, host_port_start=8081))
    with place.serve(80):
        assert world.neighbour.reaches(HOST, 8080)
    run_nft(world, "flush ruleset")
    networks.disconnect("two")
    with place.serve(80):
        assert world.neighbour.reaches(HOST, 8080)


def test_other_tables_are_left_alone_and_a_dropping_one_is_named(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    run_nft(world, FOREIGN)
    networks = world.networks()
    assert "foreign" not in caplog.text
    world.connect(networks, "web", PortRequest(80, host_port_start=8080))
    networks.disconnect("web")
    networks.close()
    run_nft(world, FOREIGN.replace("accept", "drop"))
    networks = world.networks()
    assert "ip foreign" in caplog.text
    networks.close()
    assert world.ruleset() == FOREIGN.replace("accept", "drop")


def test_the_subnet_meets_nothing_the_host_has_and_stays(world: World) -> None:
    with world.host.do(Netlink) as host:
        host.request(new_bridge("docker0", mac=MAC))
        host.request(add_address(host.link("docker0").ifindex, "172.17.0.1", 16))
        networks = world.networks()
        assert networks.gateway == "172.18.0.1"
        networks.close()
        host.request(delete_link("docker0"))
        assert world.networks().gateway == "172.18.0.1"
    networks.close()
    other = world.networks(bip="10.9.0.1/24", mtu=1300, fixed_cidr="10.9.0.128/25")
    endpoint, _ = world.connect(other, "box")
    assert (endpoint.ipv4, endpoint.gateway) == ("10.9.0.128", "10.9.0.1")
    document = other.inspect("bridge")
    assert document["Options"]["com.docker.network.driver.mtu"] == "1300"
    assert document["IPAM"]["Config"] == [{"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.1", "IPRange": "10.9.0.128/25"}]


def test_a_start_that_cannot_be_says_why(world: World) -> None:
    with pytest.raises(InvalidArgument, match="invalid bridge address"):
        world.networks(bip="10.9.0.0/24")
    with world.host.do(Netlink) as host:
        wire = host.link("wire").ifindex
        here = os.open(world.host.path, os.O_RDONLY)
        host.request(new_veth("br-test", peer="x", peer_netns=here, mtu=1500, master=wire))
        os.close(here)
    with pytest.raises(FailedPrecondition, match="br-test is a veth, not a bridge"):
        world.networks()


def test_turning_forwarding_on_makes_the_host_no_router(world: World) -> None:
    read = "net/ipv4/ip_forward"
    world.host.do(lambda: sysctl.write(read, "0"))
    networks = world.networks()
    assert world.host.do(lambda: sysctl.read(read)) == "1"
    assert 'oifname "eth0" drop' in world.ruleset()
    networks.close()
    world.networks()
    assert 'oifname "eth0" drop' in world.ruleset(), "forgotten by the second daemon"


def test_an_address_is_not_given_again_while_its_old_owner_answers(world: World) -> None:
    """Another process (a container that joined this one's network) holds on to the namespace."""
    networks = world.networks()
    old, place = world.connect(networks, "old")
    with place.serve(80):
        networks.disconnect("old")
        new, _ = world.connect(networks, "new")
        assert new.ipv4 != old.ipv4
        assert networks.wait_drained(5)
        assert wveths(world) == {new.host_ifname}
        third, _ = world.connect(networks, "third")
        assert third.ipv4 == old.ipv4


def test_many_at_once_leave_nothing(world: World) -> None:
    networks = world.networks()
    assert networks.wait_drained(5)
    before = (world.links(), world.ruleset(), sorted(os.listdir("/proc/self/fd")))
    seen: set[str] = set()

    def cycle(number: int) -> None:
        def run() -> None:
            for turn in range(5):
                name = f"c{number}-{turn}"
                endpoint = networks.connect(name, EndpointRequest("bridge", ports=(PortRequest(80),)))
                assert endpoint.ipv4 not in seen
                seen.add(endpoint.ipv4)
                seen.remove(endpoint.ipv4)
                networks.disconnect(name)

        world.host.do(run)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(cycle, range(16)))
    assert networks.wait_drained(10)
    after = (world.links(), world.ruleset(), sorted(os.listdir("/proc/self/fd")))
    assert after == before
    assert os.listdir(world.exec_root / "netns") == []


def test_a_sandbox_that_cannot_be_made_leaves_nothing(world: World) -> None:
    networks = world.networks()
    before = world.ruleset()
    with world.host.do(Netlink) as host:
        host.request(delete_link("br-test"))
    with pytest.raises(Internal, match="newlink veth"):
        world.connect(networks, "box", PortRequest(80, host_port_start=8080))
    assert networks.wait_drained(5)
    assert world.ruleset() == before
    assert os.listdir(world.exec_root / "netns") == []
    world.host.serve(8080).close()


def test_sandboxes_made_ahead_are_used_and_do_not_outlive_their_daemon(world: World) -> None:
    networks = world.networks(warm=3)
    assert networks.wait_warm(5)
    ready = wveths(world)
    assert len(ready) == 3
    web, place = world.connect(networks, "web", PortRequest(80, host_port_start=8080))
    assert web.host_ifname in ready
    with place.serve(80):
        assert world.neighbour.reaches(HOST, 8080)
    assert networks.wait_warm(5)
    # As after kill -9: nobody closes them.
    world.networks(live=(web,), warm=0)
    assert wveths(world) == {web.host_ifname}
    assert os.listdir(world.exec_root / "netns") == [place.path.name]


DAEMON = """
import os, sys
from pathlib import Path
from wherry.kernel import namespaces
from wherry.network import EndpointRequest, NetworkConfig, Networks, PortRequest
from wherry.state import MemoryStore

host, exec_root = sys.argv[1:]
namespaces.setns(os.open(host, os.O_RDONLY), namespaces.CLONE_NEWNET)
networks = Networks(NetworkConfig(bridge="br-test", table="test", exec_root=Path(exec_root), warm=2), MemoryStore())
networks.start([])
for turn in range(1000):
    for name in ("a", "b", "c"):
        networks.connect(name, EndpointRequest("bridge", ports=(PortRequest(80, host_port_start=0),)))
        print(turn, name, flush=True)
        if turn % 2:
            networks.disconnect(name)
    for name in ("b", "a", "c"):
        networks.disconnect(name)
"""


@pytest.mark.parametrize("lines", [0, 1, 5, 11])
def test_a_killed_daemon_leaves_nothing_after_the_next_start(world: World, lines: int) -> None:
    networks = world.networks()
    clean = (world.links(), world.ruleset())
    networks.close()
    command = [sys.executable, "-c", DAEMON, str(world.host.path), str(world.exec_root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        for _ in range(lines):
            assert daemon.stdout.readline()
        daemon.kill()
    networks = world.networks()
    assert (world.links(), world.ruleset()) == clean
    assert os.listdir(world.exec_root / "netns") == []
    assert world.connect(networks, "box")[0].ipv4 == "172.17.0.2"


def test_the_last_daemon_leaves_nothing_unless_containers_run(world: World) -> None:
    before = (world.links(), world.ruleset())
    networks = world.networks(warm=2)
    web, _ = world.connect(networks, "web")
    networks.close()
    assert {"br-test", web.host_ifname} <= world.links()
    networks = world.networks(live=(web,), warm=2)
    networks.disconnect("web")
    assert networks.wait_drained(5)
    networks.close()
    going = wveths(world)  # with their namespaces, in the kernel's own time: so looked at first
    assert (world.links() - going, world.ruleset()) == before
    assert list(world.exec_root.iterdir()) == []


def test_a_bridge_of_the_administrators_is_used_and_left(world: World) -> None:
    with world.host.do(Netlink) as host:
        host.request(new_bridge("br-test", mac=MAC))
        host.request(add_address(host.link("br-test").ifindex, "10.7.0.1", 24))
    for _ in range(2):
        networks = world.networks()
        assert networks.gateway == "10.7.0.1"
        networks.close()
    assert "br-test" in world.links()


def test_nothing_works_before_the_start(world: World) -> None:
    networks = world.networks()
    networks.close()
    with pytest.raises(FailedPrecondition):
        networks.connect("box", EndpointRequest("bridge"))
