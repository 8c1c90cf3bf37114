"""Who reaches a published port, and who must not."""

import socket
import struct
from contextlib import closing

import pytest
from networld import HOST, NEIGHBOUR, World

from daemon import wait_until
from wherry.errors import Conflict
from wherry.kernel import sysctl
from wherry.kernel.netlink import Netlink, add_address, add_route
from wherry.kernel.nftables import Nftables
from wherry.network import NetworkRequest, PortRequest

pytestmark = pytest.mark.root


def exchange(client: socket.socket, server: socket.socket) -> str:
    """Sends a word each way; the address the server saw."""
    with client:
        accepted, peer = server.accept()
        with accepted:
            client.sendall(b"ping")
            assert accepted.recv(4) == b"ping"
            accepted.sendall(b"pong")
            assert client.recv(4) == b"pong"
    return str(peer[0])


def filter_bridged(world: World, value: str) -> None:
    """Whether bridged packets pass the IPv4 rules; other software on the host decides that."""
    try:
        world.host.do(lambda: sysctl.write("net/bridge/bridge-nf-call-iptables", value))
    except FileNotFoundError:
        if value == "1":
            pytest.skip("this kernel has no br_netfilter, or it is not loaded")


@pytest.mark.parametrize("bridged", ["0", "1"])
def test_everyone_reaches_a_port_published_to_all_addresses(world: World, bridged: str) -> None:
    filter_bridged(world, bridged)
    networks = world.networks()
    _, web = world.connect(networks, "web", PortRequest(80, host_port_start=8080))
    _, other = world.connect(networks, "other")
    with web.serve(80) as server:
        assert exchange(world.neighbour.connect(HOST, 8080), server) == NEIGHBOUR
        assert exchange(world.host.connect("127.0.0.1", 8080), server) == networks.gateway
        assert exchange(world.host.connect("127.0.0.2", 8080), server) == networks.gateway
        assert exchange(world.host.connect(HOST, 8080), server) == HOST
        assert exchange(world.host.connect(networks.gateway, 8080), server) == networks.gateway
        assert exchange(other.connect(HOST, 8080), server) == networks.gateway
        assert exchange(other.connect(networks.gateway, 8080), server) == networks.gateway
        assert exchange(web.connect(HOST, 8080), server) == networks.gateway
    networks.disconnect("web")
    assert world.neighbour.misses(HOST, 8080)
    assert world.host.misses("127.0.0.1", 8080)


def test_ports_change_under_open_connections(world: World) -> None:
    networks = world.networks()
    world.connect(networks, "other", PortRequest(80, host_port_start=8090))
    before, web = world.connect(networks, "web", PortRequest(80, host_port_start=8080))
    with web.serve(80) as server, web.serve(81) as second, world.neighbour.connect(HOST, 8080) as lasting:
        accepted, _ = server.accept()
        rules_before = world.ruleset()
        with pytest.raises(Conflict):
            world.host.do(lambda: networks.change_ports("web", [PortRequest(80, host_port_start=8090)]))
        assert networks.endpoint("web") == before
        assert world.ruleset() == rules_before
        after = world.host.do(
            lambda: networks.change_ports(
                "web", [PortRequest(81, host_port_start=8080), PortRequest(80, host_port_start=8081)]
            )
        )
        assert [(port.host_port, port.container_port) for port in after.ports] == [(8080, 81), (8081, 80)]
        exchange(world.neighbour.connect(HOST, 8080), second)
        exchange(world.neighbour.connect(HOST, 8081), server)
        with accepted:
            accepted.sendall(b"still")
            assert lasting.recv(5) == b"still"
        assert world.host.do(lambda: networks.change_ports("web", [])).ports == ()
        assert world.neighbour.misses(HOST, 8080)
    networks.disconnect("web")
    assert "8080" not in world.ruleset()


def test_a_port_published_to_one_address_is_there_only(world: World) -> None:
    networks = world.networks()
    local = PortRequest(80, host_ip="127.0.0.1", host_port_start=8080)
    uplink = PortRequest(81, host_ip=HOST, host_port_start=8080)
    _, web = world.connect(networks, "web", local, uplink)
    with web.serve(80) as inner, web.serve(81) as outer:
        exchange(world.host.connect("127.0.0.1", 8080), inner)
        exchange(world.neighbour.connect(HOST, 8080), outer)
        assert world.host.misses(networks.gateway, 8080)


def test_what_is_not_published_is_not_reached(world: World) -> None:
    networks = world.networks()
    web, place = world.connect(networks, "web", PortRequest(80, host_ip="127.0.0.1", host_port_start=8080))
    # A route of its own to the containers, as any neighbour on the wire may have.
    world.neighbour.do(lambda: route(web.ipv4))
    world.neighbour.do(lambda: route(networks.gateway))
    with place.serve(80), place.serve(81), world.host.serve(9000, networks.gateway):
        assert world.neighbour.misses(HOST, 81)
        assert world.neighbour.misses(HOST, 8080)
        assert world.neighbour.misses(web.ipv4, 80)
        assert world.neighbour.misses(web.ipv4, 81)
        assert world.neighbour.misses(networks.gateway, 9000)
        assert place.reaches(networks.gateway, 9000)


def route(address: str) -> None:
    with Netlink() as here:
        here.request(add_route(address, 32, gateway=HOST))


def test_the_hosts_loopback_is_not_asked_from_elsewhere(world: World) -> None:
    """CVE-2020-8558 and its kin: frames with 127.0.0.1 in them, written by hand, from a container and from a neighbour.

    Towards a service of the host that listens there only, and towards a port published there only.
    """
    networks = world.networks()
    local = PortRequest(53, "udp", host_ip="127.0.0.1", host_port_start=5353)
    open_ = PortRequest(54, "udp", host_port_start=5354)
    _, web = world.connect(networks, "web", local, open_)
    _, attacker = world.connect(networks, "attacker")
    with world.host.do(Netlink) as host:
        gateway_mac, host_mac = host.link("br-test").mac, host.link("eth0").mac
    sources = ((attacker, gateway_mac, networks.gateway), (world.neighbour, host_mac, HOST))
    with (
        closing(world.host.datagrams(9000)) as service,
        closing(web.datagrams(53)) as published,
        closing(web.datagrams(54)) as everywhere,
    ):
        for source, mac, reachable in sources:
            for target, port in (("127.0.0.1", 9000), ("127.0.0.1", 5353), ("127.0.0.1", 5354)):
                source.do(lambda a=mac, t=target, p=port: send_frame(a, t, p, b"attack"))
            # The same by rights, later: when these are there and the others are not, the others have been dropped.
            source.do(lambda a=mac, t=reachable: send_frame(a, t, 9000, b"control"))
            source.do(lambda a=mac, t=reachable: send_frame(a, t, 5354, b"control"))
            assert service.recv(100) == b"control"
            assert everywhere.recv(100) == b"control"
        published.setblocking(False)
        with pytest.raises(BlockingIOError):
            published.recv(100)


def send_frame(mac: str, target: str, port: int, data: bytes) -> None:
    """A UDP datagram to `target`, in a frame to `mac`, from the eth0 of here and its own address."""
    with Netlink() as here:
        link = here.link("eth0")
        own = next(a.address for a in here.addresses(socket.AF_INET) if a.ifindex == link.ifindex)
    udp = struct.pack(">HHHH", 40000, port, 8 + len(data), 0) + data
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, socket.IPPROTO_UDP, 0)
    ip += socket.inet_aton(own) + socket.inet_aton(target)
    total = sum(struct.unpack(">10H", ip))
    total = (total & 0xFFFF) + (total >> 16)
    ip = ip[:10] + struct.pack(">H", ~total & 0xFFFF) + ip[12:]
    ethernet = bytes.fromhex((mac + link.mac).replace(":", "")) + struct.pack(">H", 0x0800)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        raw.send(ethernet + ip + udp)


def test_containers_reach_out_and_are_not_seen(world: World) -> None:
    networks = world.networks()
    _, one = world.connect(networks, "one")
    with world.neighbour.serve(7000) as server:
        assert exchange(one.connect(NEIGHBOUR, 7000), server) == HOST
    with world.host.serve(7001) as server:
        one.connect(networks.gateway, 7001).close()


@pytest.mark.parametrize("bridged", ["0", "1"])
@pytest.mark.parametrize("icc", [True, False])
def test_containers_reach_each_other_unless_told_otherwise(world: World, icc: bool, bridged: str) -> None:
    filter_bridged(world, bridged)
    networks = world.networks(icc=icc)
    endpoint, a = world.connect(networks, "a", PortRequest(80, host_port_start=8080))
    _, b = world.connect(networks, "b")
    with a.serve(80) as server:
        if icc:
            exchange(b.connect(endpoint.ipv4, 80), server)
        else:
            assert b.misses(endpoint.ipv4, 80)
        if icc or bridged == "0":
            exchange(b.connect(HOST, 8080), server)


def test_datagrams_find_their_way_though_the_client_never_stops(world: World) -> None:
    networks = world.networks()
    with closing(world.neighbour.datagrams()) as client:
        with closing(world.host.datagrams(5353)) as before:
            client.sendto(b"too early", (HOST, 5353))
            assert before.recv(100) == b"too early"
        for name in ("first", "second"):
            published = (PortRequest(53, "udp", host_port_start=5353), PortRequest(54, "sctp", host_port_start=5354))
            _, place = world.connect(networks, name, *published)
            with closing(place.datagrams(53)) as server, closing(world.host.datagrams()) as near:
                client.sendto(name.encode(), (HOST, 5353))
                data, sender = server.recvfrom(100)
                assert data.decode() == name
                assert sender[0] == NEIGHBOUR
                server.sendto(b"answer", sender)
                assert client.recvfrom(100) == (b"answer", (HOST, 5353))
                near.sendto(b"near", ("127.0.0.1", 5353))
                data, sender = server.recvfrom(100)
                assert (data, sender[0]) == (b"near", networks.gateway)
                server.sendto(b"answer", sender)
                assert near.recvfrom(100) == (b"answer", ("127.0.0.1", 5353))
            assert "sctp . 5354" in world.ruleset()
            networks.disconnect(name)
            assert "sctp . 5354" not in world.ruleset()


def test_other_programs_keep_and_lose_their_ports_as_with_docker(world: World) -> None:
    networks = world.networks()
    before = world.ruleset()
    with world.host.serve(8080):
        with pytest.raises(Conflict, match=r"bind host port for 0.0.0.0:8080:172\S*:80/tcp: address already in use"):
            world.connect(networks, "web", PortRequest(80, host_port_start=8080))
    assert networks.wait_drained(5)
    assert world.ruleset() == before
    assert not [name for name in world.links() if name.startswith("wveth")]
    web, _ = world.connect(networks, "web", PortRequest(80, host_port_start=8080))
    assert web.ipv4.endswith(".0.2")
    with pytest.raises(OSError, match="in use"):
        world.host.serve(8080)
    with pytest.raises(
        Conflict, match=r"endpoint two \([0-9a-f]{64}\): Bind for 0.0.0.0:8080 failed: port is already alloc"
    ):
        world.connect(networks, "two", PortRequest(80, host_port_start=8080))


def test_what_becomes_of_a_packet_is_explained(world: World) -> None:
    networks = world.networks()
    local = PortRequest(81, host_ip="127.0.0.1", host_port_start=8081)
    web, place = world.connect(networks, "web", PortRequest(80, host_port_start=8080), local)

    def explained(address: str, port: int) -> tuple[bool, str]:
        passes, steps = world.host.do(lambda: networks.explain(address, port))
        return passes, "\n".join(steps)

    passes, text = explained(HOST, 8080)
    assert passes
    assert f"map ports4 of table inet test leads it to {web.ipv4} port 80" in text
    assert "nothing in web listens" in text
    with place.serve(80):
        assert "web listens on port 80" in explained(HOST, 8080)[1]
    with place.serve(80, "127.0.0.1"):
        assert "its own loopback only" in explained(HOST, 8080)[1]
    passes, text = explained(HOST, 8081)
    assert not passes
    assert "published at 127.0.0.1:8081 only" in text
    passes, text = explained(web.ipv4, 80)
    assert not passes
    assert "chain guard_" in text
    with world.host.serve(9000):
        assert "a program of the host listens" in explained(HOST, 9000)[1]
    assert "not an address of this host" in explained("198.51.100.7", 80)[1]


def test_a_range_is_one_element_and_keeps_its_ports(world: World) -> None:
    networks = world.networks()
    everything = tuple(PortRequest(port, host_port_start=port) for port in range(1000, 61000))
    web, place = world.connect(networks, "web", *everything)
    assert [port.count for port in web.ports] == [60000]
    assert "tcp . 1000-60999 : 172.17.0.2" in world.ruleset()
    with place.serve(1000) as first, place.serve(60999) as last:
        exchange(world.neighbour.connect(HOST, 1000), first)
        exchange(world.host.connect("127.0.0.1", 60999), last)
    with pytest.raises(Conflict, match=r"Bind for 0.0.0.0:8080 failed: port is already allocated"):
        world.connect(networks, "two", PortRequest(80, host_port_start=8080))
    networks.disconnect("web")
    assert networks.wait_drained(5)
    with world.host.serve(8080), pytest.raises(Conflict, match="address already in use"):
        world.connect(networks, "web", *everything)
    shifted = tuple(PortRequest(port + 5, host_port_start=port) for port in range(7000, 7050))
    _, place = world.connect(networks, "three", *shifted)
    with place.serve(7054) as server:
        exchange(world.neighbour.connect(HOST, 7049), server)


def test_ports_are_published_over_ipv6_too(world: World) -> None:
    world.host.do(lambda: address_of_wire("2001:db8::1"))
    world.neighbour.do(lambda: address_of_wire("2001:db8::2"))
    networks = world.networks(ipv6=True, fixed_cidr_v6="fd77::/64")
    web, place = world.connect(networks, "web", PortRequest(80, host_port_start=8080))
    assert [(port.host_ip, port.host_port) for port in web.ports] == [("0.0.0.0", 8080), ("::", 8080)]
    with place.serve(80, "::") as server:
        assert exchange(world.neighbour.connect("2001:db8::1", 8080), server) == "2001:db8::2"
        assert exchange(world.host.connect("2001:db8::1", 8080), server) == "2001:db8::1"
        with pytest.raises(ConnectionRefusedError):
            world.host.connect("::1", 8080)
        assert exchange(place.connect("2001:db8::1", 8080), server) == "fd77::1"
        world.neighbour.do(lambda: route6(web.ipv6))
        assert world.neighbour.misses(web.ipv6, 80)
    with world.neighbour.serve(7000, "::") as outside:
        assert exchange(place.connect("2001:db8::2", 7000), outside) == "2001:db8::1"


def address_of_wire(address: str) -> None:
    with Netlink() as here:
        here.request(add_address(here.link("eth0").ifindex, address, 64))


def route6(address: str) -> None:
    with Netlink() as here:
        here.request(add_route(address, 128, gateway="2001:db8::1"))


def test_a_flush_by_somebody_else_is_healed_at_once(world: World) -> None:
    networks = world.networks()
    _, place = world.connect(networks, "web", PortRequest(80, host_port_start=8080))
    with closing(world.host.do(Nftables)) as nft, place.serve(80):
        nft.run("flush ruleset")
        wait_until(lambda: "tcp . 8080" in nft.run("list ruleset"), 5, "the rules are back")
        assert world.neighbour.reaches(HOST, 8080)


@pytest.mark.parametrize(
    ("mode", "outside", "published", "other"),
    [("nat", False, True, False), ("routed", False, False, True), ("nat-unprotected", True, True, True)],
)
def test_gateway_modes(world: World, mode: str, outside: bool, published: bool, other: bool) -> None:
    """Who reaches a container at its own address: any port, a published one; and by a port of the host."""
    networks = world.networks()
    options = {"com.docker.network.bridge.gateway_mode_ipv4": mode}
    world.host.do(lambda: networks.create(NetworkRequest(name="shop", options=options, ipv6=False)))
    web, place = world.connect(networks, "web", PortRequest(80, host_port_start=8080), network="shop")
    world.neighbour.do(lambda: route(web.ipv4))
    with place.serve(80), place.serve(81):
        assert (not world.neighbour.misses(web.ipv4, 81)) is outside
        assert (not world.neighbour.misses(web.ipv4, 80)) is other
        assert (not world.neighbour.misses(HOST, 8080)) is published
