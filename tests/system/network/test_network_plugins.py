"""Plugins as drivers of networks and of addresses, spoken to as docker does."""

import json
import os
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from networld import World

from wherry.errors import Internal, NotFound, Unavailable, WherryError
from wherry.kernel.netlink import Netlink, new_veth, set_link
from wherry.network import EndpointRequest, NetworkRequest, Subnet
from wherry.plugins import Places

pytestmark = pytest.mark.root
SUBNETS = (Subnet("10.66.0.0/24"),)
Answers = dict[str, Callable[[dict[str, Any]], Any]]


class Plugin:
    """A plugin that keeps what it was asked, and answers by a table."""

    def __init__(self, directory: Path, answers: Answers) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        directory.mkdir(exist_ok=True)
        plugin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                method = self.path[1:]
                plugin.asked.append((method, json.loads(body or b"{}") or {}))
                known = answers.get(method)
                answer = known(plugin.asked[-1][1]) if known is not None else {}
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def address_string(self) -> str:
                return "unix"

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = socketserver.ThreadingUnixStreamServer(str(directory / "plug.sock"), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def methods(self) -> list[str]:
        return [method.partition(".")[2] for method, _ in self.asked]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def plugin(directory: Path, **answers: Callable[[dict[str, Any]], Any]) -> Iterator[tuple[Plugin, Places]]:
    table: Answers = {name.replace("__", "."): answer for name, answer in answers.items()}
    table.setdefault("Plugin.Activate", lambda _: {"Implements": ["NetworkDriver", "IpamDriver"]})
    made = Plugin(directory / "plugins", table)
    try:
        yield made, Places(sockets=(directory / "plugins",), files=())
    finally:
        made.close()


def veth(world: World) -> None:
    """What the plugin does at a join: an interface on the host, to be moved into the sandbox."""

    def make() -> None:
        with Netlink() as host:
            here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            host.request(
                new_veth("plug0", peer="plug1", peer_netns=here, mtu=1400, master=host.link("br-test").ifindex)
            )
            os.close(here)
            host.request(set_link("plug0", up=True))

    world.host.do(make)


def test_a_plugin_connects_sandboxes(world: World, tmp_path: Path) -> None:
    def join(body: dict[str, Any]) -> dict[str, Any]:
        veth(world)
        return {"InterfaceName": {"SrcName": "plug1", "DstPrefix": "eth"}, "Gateway": "10.66.0.1"}

    answers = {
        "NetworkDriver__GetCapabilities": lambda _: {"Scope": "local"},
        "NetworkDriver__CreateEndpoint": lambda _: {"Interface": {"MacAddress": "02:00:00:00:00:42"}},
        "NetworkDriver__Join": join,
    }
    with plugin(tmp_path, **answers) as (made, places):
        networks = world.networks(plugins=places)
        before = world.links()
        request = NetworkRequest(name="far", driver="plug", options={"any.thing": "goes"}, subnets=SUBNETS)
        world.host.do(lambda: networks.create(request))
        body = dict(made.asked)["NetworkDriver.CreateNetwork"]
        assert body["Options"]["com.docker.network.generic"] == {"any.thing": "goes"}
        assert len(body["IPv4Data"]) == 1
        assert body["IPv6Data"] == []
        endpoint, place = world.connect(networks, "box", network="far")
        assert (endpoint.mac, endpoint.gateway, endpoint.ifname) == ("02:00:00:00:00:42", "10.66.0.1", "eth0")
        with place.do(Netlink) as inside:
            link = inside.link("eth0")
            assert (link.mac, link.up) == (endpoint.mac, True)
        networks.disconnect("box")
        networks.remove("far")
        assert made.methods() == [
            *("Activate", "GetCapabilities", "CreateNetwork", "CreateEndpoint", "Join"),
            *("Leave", "DeleteEndpoint", "DeleteNetwork"),
        ]
        # The pair goes with the sandbox, in the kernel's own time.
        assert world.links() - {"plug0", "plug1"} == before


def test_a_plugin_gives_addresses(world: World, tmp_path: Path) -> None:
    given = iter(("10.77.0.1/24", "10.77.0.40/24"))
    answers = {
        "IpamDriver__GetDefaultAddressSpaces": lambda _: {"LocalDefaultAddressSpace": "here"},
        "IpamDriver__RequestPool": lambda _: {"PoolID": "p1", "Pool": "10.77.0.0/24"},
        "IpamDriver__RequestAddress": lambda _: {"Address": next(given)},
    }
    with plugin(tmp_path, **answers) as (made, places):
        networks = world.networks(plugins=places)
        document = world.host.do(
            lambda: networks.create(NetworkRequest(name="far", ipam_driver="plug", ipam_options={"a": "b"}, ipv6=False))
        )
        assert document["IPAM"] == {
            "Driver": "plug",
            "Options": {"a": "b"},
            "Config": [{"Subnet": "10.77.0.0/24", "Gateway": "10.77.0.1"}],
        }
        endpoint, _ = world.connect(networks, "box", network="far")
        assert (endpoint.ipv4, endpoint.prefix, endpoint.gateway) == ("10.77.0.40", 24, "10.77.0.1")
        networks.disconnect("box")
        assert networks.wait_drained(5)
        networks.remove("far")
        assert [m for m in made.methods() if m.startswith("Release")] == [
            "ReleaseAddress",
            "ReleaseAddress",
            "ReleasePool",
        ]


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ({"NetworkDriver__CreateNetwork": lambda _: {"Err": "no room"}}, Internal),
        ({"NetworkDriver__GetCapabilities": lambda _: {"Scope": "galaxy"}}, Internal),
        ({"NetworkDriver__CreateNetwork": lambda _: b"[1]"}, Unavailable),
        ({"NetworkDriver__Join": lambda _: {}}, Internal),
        ({"NetworkDriver__Join": lambda _: {"InterfaceName": {"SrcName": "nosuch"}}}, Internal),
        ({"NetworkDriver__CreateEndpoint": lambda _: {"Interface": {"MacAddress": "02"}}}, WherryError),
    ],
)
def test_a_plugin_that_refuses_or_lies_leaves_nothing(
    world: World, tmp_path: Path, answers: dict[str, Callable[[dict[str, Any]], Any]], error: type[Exception]
) -> None:
    answers = {"NetworkDriver__GetCapabilities": lambda _: {"Scope": "local"}, **answers}
    with plugin(tmp_path, **answers) as (_, places):
        networks = world.networks(plugins=places)
        before = (world.links(), world.ruleset())

        def attempt() -> None:
            networks.create(NetworkRequest(name="far", driver="plug", ipv6=False))
            networks.connect("box", EndpointRequest("far"))

        with pytest.raises(error):
            world.host.do(attempt)
        assert networks.endpoints("box") == ()
        if "far" in [network["Name"] for network in networks.list()]:
            networks.remove("far")
        assert (world.links(), world.ruleset()) == before
        assert os.listdir(world.exec_root / "netns") == []


def test_no_such_plugin(world: World, tmp_path: Path) -> None:
    networks = world.networks(plugins=Places(sockets=(tmp_path,), files=()))
    for request in (NetworkRequest(name="x", driver="nosuch"), NetworkRequest(name="x", ipam_driver="nosuch")):
        with pytest.raises(NotFound, match='plugin "nosuch" not found'):
            networks.create(request)
    assert [network["Name"] for network in networks.list()] == ["bridge", "host", "none"]
