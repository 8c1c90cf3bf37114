"""Which names a container finds: the same answers from every engine. One world of networks, asked all its questions."""

import contextlib
import ipaddress
import os
import socket
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from daemon import wait_until
from dns_client import Asker, Reply, reply_to, serving
from engine_client import Api

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to ask from within network namespaces"),
]

NETWORKS: dict[str, dict[str, Any]] = {
    "shop": {"EnableIPv6": True},
    "store": {"EnableIPv6": False},
    "vault": {"EnableIPv6": False, "Internal": True},
}
# container → network (its own first) → what is said of its place there
CONTAINERS: dict[str, dict[str, dict[str, Any]]] = {
    "anna": {"shop": {"Aliases": ["web"]}},
    "bert": {"shop": {"Aliases": ["web"], "Links": ["anna:linked"]}},
    "carl": {"store": {}},
    "both": {"shop": {}, "store": {"Aliases": ["onlystore"]}},
    "dora": {"vault": {}},
    "hans": {"bridge": {}},
}
NONE, EMPTY, FAILS = "unknown", "no records", "SERVFAIL"
# (who asks, name, type, whose addresses on which network | NONE: it is nobody's | EMPTY | FAILS)
MATRIX: list[tuple[str, str, str, Any]] = [
    ("anna", "{bert}", "A", [("bert", "shop")]),
    ("anna", "{bert}", "AAAA", [("bert", "shop")]),
    ("anna", "{anna}", "A", [("anna", "shop")]),
    ("anna", "{BERT}", "A", [("bert", "shop")]),
    ("anna", "{bert}.{shop}", "A", [("bert", "shop")]),
    ("anna", "{bert}.{store}", "A", NONE),
    ("anna", "{bert}.nowhere-at-all", "A", NONE),
    ("anna", "{bert:id}", "A", [("bert", "shop")]),
    ("anna", "bert-host", "A", [("bert", "shop")]),
    ("anna", "web", "A", [("anna", "shop"), ("bert", "shop")]),
    ("anna", "web", "AAAA", [("anna", "shop"), ("bert", "shop")]),
    ("anna", "web.{shop}", "A", [("anna", "shop"), ("bert", "shop")]),
    ("anna", "linked", "A", NONE),
    ("bert", "linked", "A", [("anna", "shop")]),
    ("bert", "linked", "AAAA", [("anna", "shop")]),
    ("anna", "{carl}", "A", NONE),
    ("carl", "{anna}", "A", NONE),
    ("carl", "{anna}.{shop}", "A", NONE),
    ("carl", "{both}", "A", [("both", "store")]),
    ("carl", "{both}", "AAAA", EMPTY),
    ("carl", "onlystore", "A", [("both", "store")]),
    ("anna", "onlystore", "A", NONE),
    ("anna", "{both}", "A", [("both", "shop")]),
    ("both", "{anna}", "A", [("anna", "shop")]),
    ("both", "{carl}", "A", [("carl", "store")]),
    ("both", "{both}.{store}", "A", [("both", "store")]),
    ("both", "{both}.{shop}", "A", [("both", "shop")]),
    ("anna", "{dora}", "A", NONE),
    ("anna", "{hans}", "A", NONE),
    ("anna", "{bert}", "MX", EMPTY),
    ("dora", "{dora}", "A", [("dora", "vault")]),
    ("dora", "{anna}", "A", FAILS),
    ("dora", "www.example.com", "A", FAILS),
    ("dora", "{dora}", "TXT", FAILS),
]


class World:
    def __init__(self, api: Api, image: str) -> None:
        self.api = api
        self.image = image
        self.mark = f"wd{uuid.uuid4().hex[:8]}"
        self.documents: dict[str, Any] = {}

    def name(self, short: str) -> str:
        return short if short == "bridge" else f"{self.mark}-{short}"

    def build(self) -> None:
        for network, options in NETWORKS.items():
            answer = self.api.post("/networks/create", {"Name": self.name(network), **options})
            assert answer.status == 201, answer.body
        for short in CONTAINERS:
            self.create(short)
            self.start(short)

    def create(self, short: str) -> None:
        places = CONTAINERS[short]
        endpoints = {self.name(network): dict(settings) for network, settings in places.items()}
        for settings in endpoints.values():
            if "Links" in settings:
                settings["Links"] = [f"{self.mark}-{link}" for link in settings["Links"]]
        self.api.create(
            self.name(short),
            Image=self.image,
            Hostname=f"{short}-host",
            Cmd=["sleep", "86400"],
            HostConfig={"NetworkMode": self.name(next(iter(places)))},
            NetworkingConfig={"EndpointsConfig": endpoints},
        )

    def start(self, short: str) -> None:
        answer = self.api.post(f"/containers/{self.name(short)}/start")
        assert answer.status == 204, answer.body
        self.look(short)

    def look(self, short: str) -> None:
        self.documents[short] = self.api.get(f"/containers/{self.name(short)}/json").json

    def asker(self, short: str) -> Asker:
        return Asker(self.documents[short]["State"]["Pid"])

    def text(self, pattern: str) -> str:
        for short, document in self.documents.items():
            pattern = pattern.replace(f"{{{short}:id}}", document["Id"][:12])
        for short in (*NETWORKS, *CONTAINERS):
            pattern = pattern.replace(f"{{{short}}}", self.name(short))
            pattern = pattern.replace(f"{{{short.upper()}}}", self.name(short).upper())
        return pattern

    def address(self, short: str, network: str, type: str = "A") -> str:
        settings = self.documents[short]["NetworkSettings"]["Networks"][self.name(network)]
        return str(settings["IPAddress" if type == "A" else "GlobalIPv6Address"])

    def tear_down(self) -> None:
        for short in CONTAINERS:
            self.api.request("DELETE", f"/containers/{self.name(short)}?force=1&v=1")
        for network in NETWORKS:
            self.api.request("DELETE", f"/networks/{self.name(network)}")


@pytest.fixture(scope="module")
def world(host: str, image: str) -> Iterator[World]:
    api = Api(host)
    made = World(api, image)
    try:
        made.build()
        yield made
    finally:
        made.tear_down()
        api.close()


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize(("asking", "pattern", "type", "expected"), MATRIX)
def test_names(world: World, asking: str, pattern: str, type: str, expected: Any, tcp: bool) -> None:
    if expected == NONE and tcp:
        pytest.skip("the host's own servers may not take TCP")
    reply = world.asker(asking).ask(world.text(pattern), type, tcp=tcp)
    if expected == NONE:
        assert (reply.rcode, reply.data) in [("NXDOMAIN", ()), ("SERVFAIL", ())]
    elif expected == FAILS:
        assert (reply.rcode, reply.data) == ("SERVFAIL", ())
    elif expected == EMPTY:
        assert (reply.rcode, reply.data) == ("NOERROR", ())
    else:
        addresses = {world.address(short, network, type) for short, network in expected}
        assert reply.rcode == "NOERROR"
        assert set(reply.data) == addresses
        assert len(reply.data) == len(addresses)
        assert set(reply.names) == {world.text(pattern)}
        assert set(reply.ttls) == {600}
        assert reply.flags == 0x8180


@pytest.mark.parametrize("type", ["A", "AAAA"])
def test_addresses_lead_back_to_names(world: World, type: str) -> None:
    address = world.address("bert", "shop", type)
    pointer = ipaddress.ip_address(address).reverse_pointer
    assert world.asker("anna").ask(pointer, "PTR").data == (f"{world.name('bert')}.{world.name('shop')}",)
    assert world.asker("dora").ask(pointer, "PTR").rcode == "SERVFAIL"


def test_the_first_address_changes(world: World) -> None:
    firsts = {world.asker("anna").ask("web").data[0] for _ in range(40)}
    assert len(firsts) == 2


def test_resolv_conf_names_the_resolver(world: World) -> None:
    for short in ("anna", "dora", "both"):
        lines = [line for line in _exec(world, short, "cat /etc/resolv.conf").splitlines() if line[:1] not in ("#", "")]
        assert lines[0] == "nameserver 127.0.0.11"
        assert "options ndots:0" in lines
    assert "127.0.0.11" not in _exec(world, "hans", "cat /etc/resolv.conf")


def test_a_program_finds_another_by_its_name(world: World) -> None:
    out = _exec(world, "carl", f"ping -c 1 -w 5 {world.name('both')}")
    assert world.address("both", "store") in out
    assert "1 packets received" in out


def test_port_53_is_the_containers_own(world: World) -> None:
    asker = world.asker("carl")
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with asker.socket(kind) as own:
            own.bind(("0.0.0.0", 53))
    assert asker.ask(world.name("both")).rcode == "NOERROR"


def test_names_follow_what_becomes_of_a_container(world: World) -> None:
    """Renamed, restarted, taken out of a network and put in again, stopped: no answer is of before."""
    asker, short = world.asker("carl"), world.name("both")
    assert asker.ask(short).data == (world.address("both", "store"),)
    answer = world.api.post(f"/containers/{short}/rename?name={short}-new")
    assert answer.status == 204, answer.body
    assert _is_nobodys(asker.ask(short))
    assert asker.ask(f"{short}-new").data == (world.address("both", "store"),)
    world.api.post(f"/containers/{short}-new/rename?name={short}")
    assert asker.ask(short).data == (world.address("both", "store"),)

    assert world.api.post(f"/containers/{short}/restart?t=0").status == 204
    world.look("both")
    assert asker.ask(short).data == (world.address("both", "store"),)
    assert world.asker("both").ask(world.name("anna")).data == (world.address("anna", "shop"),)

    store = world.name("store")
    assert world.api.post(f"/networks/{store}/disconnect", {"Container": short}).status == 200
    assert _is_nobodys(asker.ask(short))
    assert _is_nobodys(asker.ask("onlystore"))
    assert _is_nobodys(world.asker("both").ask(world.name("carl")))
    settings = {"Container": short, "EndpointConfig": {"Aliases": ["late"]}}
    assert world.api.post(f"/networks/{store}/connect", settings).status == 200
    world.look("both")
    assert asker.ask("late").data == (world.address("both", "store"),)
    assert world.asker("both").ask(world.name("carl")).data == (world.address("carl", "store"),)

    assert world.api.post(f"/containers/{short}/stop?t=0").status == 204
    wait_until(lambda: _is_nobodys(asker.ask(short)), 5, "the name of what was stopped is gone")
    assert asker.ask("late").data == ()
    assert world.api.post(f"/containers/{short}/start").status == 204
    world.look("both")
    assert asker.ask(short).data == (world.address("both", "store"),)


def _is_nobodys(reply: Reply) -> bool:
    return reply.rcode in ("NXDOMAIN", "SERVFAIL") and not reply.data


def test_a_container_of_the_default_bridge_gets_names_when_it_is_connected(world: World) -> None:
    store = world.name("store")
    assert world.api.post(f"/networks/{store}/connect", {"Container": world.name("hans")}).status == 200
    try:
        assert "nameserver 127.0.0.11" in _exec(world, "hans", "cat /etc/resolv.conf")
        assert world.asker("hans").ask(world.name("carl")).data == (world.address("carl", "store"),)
    finally:
        world.api.post(f"/networks/{store}/disconnect", {"Container": world.name("hans")})
    assert _is_nobodys(world.asker("hans").ask(world.name("carl")))


@pytest.fixture
def guest(world: World) -> Iterator[Any]:
    """Makes a container whose name servers are its own loopback addresses."""
    made: list[str] = []

    def make(*servers: str, **host: Any) -> Asker:
        name = f"{world.mark}-guest{len(made)}"
        made.append(name)
        settings = {"NetworkMode": world.name("store"), "Dns": list(servers), **host}
        id = world.api.run(name, Image=world.image, Cmd=["sleep", "86400"], HostConfig=settings)
        return Asker(world.api.get(f"/containers/{id}/json").json["State"]["Pid"])

    try:
        yield make
    finally:
        for name in made:
            world.api.request("DELETE", f"/containers/{name}?force=1")


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_what_is_no_containers_is_passed_on(world: World, guest: Any, tcp: bool) -> None:
    record = b"\x00\x01\x00\x02\x1f\x90\x04host\x00"
    asker = guest("127.0.0.1")
    with serving("127.0.0.1", lambda data, tcp: reply_to(data, records=(record,)), asker=asker) as server:
        for name, type in (
            ("_http._tcp.example.org", "SRV"),
            (world.name("carl"), "TXT"),
            ("3.2.1.10.in-addr.arpa", "SRV"),
        ):
            reply = asker.ask(name, type, tcp=tcp)
            assert (reply.rcode, reply.data) == ("NOERROR", (record,))
        assert asker.ask(world.name("carl"), tcp=tcp).data == (world.address("carl", "store"),)
        assert len(server.queries) == 3


def test_a_server_that_fails_is_passed_over(guest: Any) -> None:
    asker = guest("127.0.0.1", "127.0.0.2", "127.0.0.3")
    with (
        serving("127.0.0.1", lambda data, tcp: reply_to(data, 2), asker=asker) as fails,
        serving("127.0.0.2", lambda data, tcp: reply_to(data, 5), asker=asker) as refuses,
        serving("127.0.0.3", lambda data, tcp: reply_to(data, records=(b"\1\2\3\4",)), asker=asker),
    ):
        assert asker.ask("example.org").data == ("1.2.3.4",)
        assert (len(fails.queries), len(refuses.queries)) == (1, 1)
    with serving("127.0.0.1", lambda data, tcp: reply_to(data, 3), asker=asker):
        assert asker.ask("example.net").rcode == "NXDOMAIN"
    assert asker.ask("example.com").rcode == "SERVFAIL"


def test_who_sets_ndots_keeps_single_words_at_home(guest: Any) -> None:
    asker = guest("127.0.0.1", DnsOptions=["ndots:2"])
    with serving("127.0.0.1", lambda data, tcp: reply_to(data, 3), asker=asker) as server:
        reply = asker.ask("single")
        assert (reply.rcode, reply.data, server.queries) == ("NOERROR", (), [])
        assert asker.ask("two.words").rcode == "NXDOMAIN"
        assert asker.ask("single", "TXT").rcode == "NXDOMAIN"


def test_dns_options_are_in_resolv_conf(world: World, guest: Any) -> None:
    guest("127.0.0.1", DnsSearch=["one.example", "two.example"], DnsOptions=["timeout:3", "rotate"])
    text = _exec(world, "guest0", "grep -v ^# /etc/resolv.conf")
    assert text.splitlines() == [
        "",
        "nameserver 127.0.0.11",
        "search one.example two.example",
        "options timeout:3 rotate ndots:0",
        "",
    ]


def test_what_is_no_query_is_refused(world: World) -> None:
    asker = world.asker("anna")
    assert asker.send(b"\x11\x22\x09\x00" + bytes(8))[:4] == b"\x11\x22\x89\x04"
    two = b"\x11\x22\x01\x00\0\2" + bytes(6) + b"\1a\0\0\1\0\1" * 2
    assert asker.send(two)[3] & 15 == 1
    with contextlib.suppress(TimeoutError):
        asker.send(b"\x11\x22\x81\x00\0\1" + bytes(6) + b"\1a\0\0\1\0\1", seconds=0.3)
        pytest.fail("an answer was answered")


def _exec(world: World, short: str, script: str) -> str:
    body = {"Cmd": ["sh", "-c", script], "AttachStdout": True, "Tty": True}
    made = world.api.post(f"/containers/{world.name(short)}/exec", body)
    answer = world.api.post(f"/exec/{made.json['Id']}/start", {"Detach": False, "Tty": True})
    return answer.body.decode(errors="replace").replace("\r\n", "\n")
