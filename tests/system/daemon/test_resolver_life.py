"""The resolver: killed, left alone, started anew; what containers send it; what is left of it."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon import Daemon, busybox_tar, wait_until
from dns_client import Asker, query, read_stream, reply_to, serving
from engine_client import Api

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


class Place:
    """A daemon of its own with two containers, anna and bert, on the network shop."""

    def __init__(self) -> None:
        self.daemon = Daemon("--bridge-dns")
        self.daemon.start()
        self.api = Api(self.daemon.host)
        with busybox_tar().open("rb") as tar:
            answer = self.api.request("POST", "/images/create?fromSrc=-&repo=busybox", tar.read())
        assert answer.status == 200
        assert self.api.post("/networks/create", {"Name": "shop", "EnableIPv6": False}).status == 201
        self.pids = {name: self.run(name, "shop") for name in ("anna", "bert")}

    def run(self, name: str, network: str, **host: Any) -> int:
        config = {"Image": "busybox", "Cmd": ["sleep", "86400"], "HostConfig": {"NetworkMode": network, **host}}
        self.api.run(name, **config)
        return int(self.api.get(f"/containers/{name}/json").json["State"]["Pid"])

    def address(self, name: str, network: str = "shop") -> str:
        document = self.api.get(f"/containers/{name}/json").json
        return str(document["NetworkSettings"]["Networks"][network]["IPAddress"])

    def asker(self, name: str) -> Asker:
        return Asker(self.pids[name])

    @property
    def resolver(self) -> int:
        return int((self.daemon.exec_root / "resolver.lock").read_text())

    def kill_daemon(self) -> None:
        self.daemon.signal(signal.SIGKILL)

    def start_daemon(self) -> None:
        self.api.close()
        self.daemon.start()

    def kill_resolver(self) -> None:
        pid = self.resolver
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), 5, "it is dead")

    def answers(self, asking: str, name: str) -> bool:
        with contextlib.suppress(OSError):
            return self.asker(asking).ask(name, seconds=0.5).data == (self.address(name),)
        return False

    def tear_down(self) -> None:
        for container in self.api.get("/containers/json?all=1").json:
            self.api.delete(f"/containers/{container['Id']}?force=1")
        self.api.delete("/networks/shop")


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    made = Place()
    try:
        yield made
        made.tear_down()
        pid = made.resolver
        made.daemon.stop()
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), 5, "the resolver ends with its last container and client")
        leaks = made.daemon.leaks()
        log = made.daemon.log_text()
        errors = (made.daemon.exec_root / "resolver.log").read_text()
    finally:
        made.api.close()
        stuck = made.daemon.remove()
    assert not leaks + stuck, log[-3000:]
    assert not errors


def test_killed_it_is_started_anew_with_all_it_knew(place: Place) -> None:
    for _ in range(2):
        place.kill_resolver()
        wait_until(lambda: place.answers("anna", "bert"), 10, "it answers again")
        assert place.asker("bert").ask("anna", tcp=True).data == (place.address("anna"),)


def test_it_answers_while_the_daemon_is_away_and_learns_what_was_missed(place: Place) -> None:
    place.pids["carl"] = place.run("carl", "shop")
    before, carl = place.resolver, place.address("carl")
    place.kill_daemon()
    try:
        assert place.asker("anna").ask("carl").data == (carl,)
        os.kill(place.pids["carl"], signal.SIGKILL)
    finally:
        place.start_daemon()
    assert place.resolver == before
    assert place.asker("anna").ask("carl").data == ()
    assert place.answers("anna", "bert")
    place.api.delete("/containers/carl?force=1")


def test_both_die(place: Place) -> None:
    place.kill_daemon()
    place.kill_resolver()
    place.start_daemon()
    assert place.answers("anna", "bert")


def test_a_container_on_no_network_keeps_its_resolver(place: Place) -> None:
    pid = place.run("dora", "shop")
    assert place.api.post("/networks/shop/disconnect", {"Container": "dora"}).status == 200
    assert Asker(pid).ask("anna").rcode == "SERVFAIL"
    place.kill_daemon()
    place.start_daemon()
    assert Asker(pid).ask("anna").rcode == "SERVFAIL"
    assert place.api.post("/networks/shop/connect", {"Container": "dora"}).status == 200
    assert Asker(pid).ask("anna").data == (place.address("anna"),)
    place.api.delete("/containers/dora?force=1")


def test_names_on_the_default_bridge_when_the_daemon_is_told_so(place: Place) -> None:
    place.pids["emil"], place.pids["fran"] = place.run("emil", "default"), place.run("fran", "default")
    assert place.asker("emil").ask("fran").data == (place.address("fran", "bridge"),)
    assert place.asker("emil").ask("anna").data == ()
    assert place.asker("anna").ask("emil").data == ()
    for name in ("emil", "fran"):
        place.api.delete(f"/containers/{name}?force=1")
        del place.pids[name]


def test_what_was_edited_in_resolv_conf_stays(place: Place) -> None:
    place.run("gerd", "none")
    place.run("hans", "container:anna")
    place.api.delete("/containers/gerd?force=1")
    place.api.delete("/containers/hans?force=1")
    pid = place.run("ines", "shop")
    file = Path(f"/proc/{pid}/root/etc/resolv.conf")
    file.write_text("nameserver 192.0.2.1\n")
    assert place.api.post("/networks/create", {"Name": "more", "EnableIPv6": False}).status == 201
    assert place.api.post("/networks/more/connect", {"Container": "ines"}).status == 200
    assert file.read_text() == "nameserver 192.0.2.1\n"
    place.api.delete("/containers/ines?force=1")
    place.api.delete("/networks/more")


def test_hostile_senders_hold_up_nobody_else(place: Place) -> None:
    """Garbage, unread answers, idle and half-open connections, thousands of questions that nobody answers."""
    pid = place.run("mallory", "shop", Dns=["127.0.0.1"])
    mallory = Asker(pid)
    memory = _memory(place.resolver)
    with contextlib.ExitStack() as stack:
        stack.enter_context(serving("127.0.0.1", lambda data, tcp: None, asker=mallory))
        flood = stack.enter_context(mallory.socket(socket.SOCK_DGRAM))
        flood.connect(("127.0.0.11", 53))
        for number in range(4000):
            with contextlib.suppress(OSError):
                flood.send(os.urandom(number % 600))
                flood.send(query(f"host{number}.example.org", id=number))
                flood.send(query("anna", edns=512 + number))
        for number in range(150):
            stream = stack.enter_context(mallory.socket(socket.SOCK_STREAM))
            stream.settimeout(5)
            stream.connect(("127.0.0.11", 53))
            with contextlib.suppress(OSError):
                stream.send((b"\0", b"\xff\xff" + b"x" * 3000, b"\0\x1d" + query("anna")[:20])[number % 3])
        begin = time.monotonic()
        assert place.answers("anna", "bert")
        assert time.monotonic() - begin < 5
    assert place.answers("bert", "anna")
    assert mallory.ask("anna", tcp=True).data == (place.address("anna"),)
    assert _memory(place.resolver) - memory < 16 << 20
    place.api.delete("/containers/mallory?force=1")
    wait_until(lambda: _descriptors(place.resolver) < 40, 15, "nothing of it is left open")


def test_many_questions_on_one_connection(place: Place) -> None:
    with place.asker("anna").socket(socket.SOCK_STREAM) as stream:
        stream.settimeout(10)
        stream.connect(("127.0.0.11", 53))
        asked = b"".join(len(q).to_bytes(2, "big") + q for q in (query("bert", id=n) for n in range(200)))
        for at in range(0, len(asked), 7):
            stream.sendall(asked[at : at + 7])
        answers = [read_stream(stream) for _ in range(200)]
    assert [int.from_bytes(answer[:2], "big") for answer in answers] == list(range(200))


def test_a_loop_of_servers_ends(place: Place) -> None:
    """A forwarder inside asks the resolver, which asks the forwarder."""
    pid = place.run("loop", "shop", Dns=["127.0.0.1", "127.0.0.11"])
    asker = Asker(pid)

    def forward(data: bytes, tcp: bool) -> bytes | None:
        with contextlib.suppress(OSError):
            with asker.socket(socket.SOCK_DGRAM) as again:
                again.connect(("127.0.0.11", 53))
                again.send(os.urandom(2) + data[2:])
        return None

    with serving("127.0.0.1", forward, asker=asker) as server:
        assert asker.ask("example.org").rcode == "SERVFAIL"
        assert len(server.queries) < 10
    place.api.delete("/containers/loop?force=1")


def test_the_hosts_servers_are_asked_from_the_host(place: Place) -> None:
    """A server on the host's loopback interface serves containers: here on whatever the host's resolv.conf names."""
    named = re.findall(r"^nameserver\s+(\S+)", Path("/etc/resolv.conf").read_text(), re.MULTILINE)
    if not named:
        pytest.skip("the host names no server")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(2)
        asking.sendto(query("localhost"), (named[0], 53))
        try:
            own = asking.recv(4096)
        except OSError:
            pytest.skip("the host's server does not answer")
    assert place.asker("anna").ask("localhost").flags & 15 == own[3] & 15


def test_a_server_behind_another_container(place: Place) -> None:
    place.pids["dns"] = place.run("dns", "shop")
    server = place.address("dns")
    with serving(server, lambda data, tcp: reply_to(data, records=(b"\1\2\3\4",)), asker=place.asker("dns")):
        client = Asker(place.run("client", "shop", Dns=[server]))
        assert client.ask("example.org").data == ("1.2.3.4",)
        assert client.ask("example.org", tcp=True).data == ("1.2.3.4",)
    for name in ("client", "dns"):
        place.api.delete(f"/containers/{name}?force=1")
    del place.pids["dns"]


def test_it_stays_small() -> None:
    code = "import wherry.dns.resolver, sys; print(*sorted(set(sys.modules) & set(sys.argv[1:])))"
    source = str(Path(__file__).parents[3] / "src")
    heavy = ["asyncio", "dataclasses", "inspect", "json", "re", "typing", "socket", "enum", "selectors", "logging"]
    out = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {source!r}); {code}", *heavy],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    assert out.stdout.strip() == ""


def _memory(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) << 10


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
