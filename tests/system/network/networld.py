"""A world of its own: a host and a neighbour, both network namespaces, and the networks of a daemon on that host."""

import os
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from wherry.kernel import netns, sysctl
from wherry.kernel.netlink import Netlink, add_address, add_route, new_bridge, new_veth, set_link
from wherry.kernel.nftables import Nftables
from wherry.network import Endpoint, EndpointRequest, NetworkConfig, Networks, PortRequest
from wherry.state import MemoryStore

T = TypeVar("T")
HOST, NEIGHBOUR = "192.0.2.1", "192.0.2.2"
DEADLINE = 5.0


class Place:
    """A network namespace to do things in. What is opened there may be used anywhere."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def do(self, work: Callable[[], T]) -> T:
        return netns.enter(str(self.path), work)

    def serve(self, port: int, host: str = "0.0.0.0") -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = self.do(lambda: socket.create_server((host, port), family=family))
        server.settimeout(DEADLINE)
        return server

    def datagrams(self, port: int = 0) -> socket.socket:
        made = self.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.settimeout(DEADLINE)
        made.bind(("0.0.0.0", port))
        return made

    def connect(self, host: str, port: int, timeout: float = DEADLINE) -> socket.socket:
        return self.do(lambda: socket.create_connection((host, port), timeout))

    def reaches(self, host: str, port: int) -> bool:
        """Whether a connection is made, if need be with packets sent again."""
        try:
            self.connect(host, port).close()
        except OSError:
            return False
        return True

    def misses(self, host: str, port: int) -> bool:
        """Whether a connection is refused, or its first packet gets no answer."""
        try:
            self.connect(host, port, 0.3).close()
        except OSError:
            return True
        return False


class World:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.host, self.neighbour = Place(root / "host"), Place(root / "neighbour")
        self.store = MemoryStore()
        self.exec_root = root / "exec"
        self._started: list[Networks] = []

    def build(self) -> None:
        netns.create(str(self.host.path), self._make_host)
        with self.host.do(Netlink) as host:
            netns.create(str(self.neighbour.path), lambda: self._make_neighbour(host))
            host.request(
                set_link("eth0", up=True, master=0),
                add_address(host.link("eth0").ifindex, HOST, 24),
                add_route(None, 0, gateway=NEIGHBOUR),
            )

    def networks(self, live: tuple[Endpoint, ...] = (), warm: int = 0, **options: object) -> Networks:
        """A daemon's networks, started on the host. All share the store, as one daemon after the other does."""
        config = NetworkConfig(bridge="br-test", table="test", exec_root=self.exec_root, warm=warm, **options)  # type: ignore[arg-type]

        def start() -> Networks:
            made = Networks(config, self.store)
            made.start(live)
            return made

        started = self.host.do(start)
        self._started.append(started)
        return started

    def networks_of(self, place: Place) -> Networks:
        """Those of a second daemon, on another host."""
        config = NetworkConfig(bridge="br-other", table="test", exec_root=self.root / "other", warm=0)

        def start() -> Networks:
            made = Networks(config, MemoryStore())
            made.start(())
            return made

        started = place.do(start)
        self._started.append(started)
        return started

    def connect(
        self, networks: Networks, name: str, *ports: PortRequest, network: str = "bridge", on: Place | None = None
    ) -> tuple[Endpoint, Place]:
        request = EndpointRequest(network, name=name, ports=ports)
        endpoint = (on or self.host).do(lambda: networks.connect(name, request))
        assert endpoint.netns is not None
        return endpoint, Place(endpoint.netns)

    def ruleset(self) -> str:
        with closing(self.host.do(Nftables)) as nft:
            return nft.run("list ruleset")

    def links(self) -> set[str]:
        with self.host.do(Netlink) as host:
            return {link.name for link in host.links()}

    def tear_down(self) -> None:
        for networks in self._started:
            networks.close()
        for root in (self.exec_root, self.root / "other"):
            netns.remove_directory(str(root / "netns"))
        for place in (self.host, self.neighbour):
            netns.delete(str(place.path))

    @staticmethod
    def _make_host() -> None:
        with Netlink() as here:
            here.request(set_link("lo", up=True), new_bridge("wire", mac="02:00:00:00:00:01"))

    @staticmethod
    def _make_neighbour(host: Netlink) -> None:
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        wire = host.link("wire").ifindex
        pair = new_veth("eth0", peer="eth0", peer_netns=here, mtu=1400, master=wire)
        host.request(pair)
        os.close(here)
        with Netlink() as inside:
            eth0 = inside.link("eth0").ifindex
            inside.request(set_link("lo", up=True), set_link(eth0, up=True), add_address(eth0, NEIGHBOUR, 24))
        sysctl.write("net/ipv4/ip_forward", "0")
