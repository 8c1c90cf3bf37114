"""Questions passed on: to whom, how often, and what is taken for an answer."""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dns_client
from dns_client import query, reply_to, serving
from wherry.dns import message, upstream
from wherry.dns.upstream import HostServers, Source, Upstream
from wherry.ipc.poller import Poller

RECORD = b"\1\2\3\4"


class Nowhere:
    def visit(self, netns: str, work: Callable[[], Any]) -> Any:
        return work()


class Bench:
    """An Upstream, and what it answered."""

    def __init__(self, port: int) -> None:
        self.poller = Poller()
        self.upstream = Upstream(self.poller, Nowhere(), HostServers("/nonexistent"), port)  # type: ignore[arg-type]
        self.replies: list[bytes] = []

    def ask(self, source: Source, data: bytes, *, tcp: bool = False, asker: object = 1) -> None:
        self.upstream.ask(source, data, message.parse(data).end, tcp, asker, self.replies.append)

    def wait(self, count: int = 1) -> list[dns_client.Reply]:
        deadline = time.monotonic() + 15
        while len(self.replies) < count:
            assert time.monotonic() < deadline, "no answer"
            self.poller.call_later(0.01, lambda: None)  # a round that only runs timers ends too
            self.poller.run_once()
        return [dns_client.decode(reply) for reply in self.replies]


@pytest.fixture
def port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def bench(port: int) -> Bench:
    return Bench(port)


@pytest.mark.parametrize("tcp", [False, True])
def test_the_same_question_is_asked_once(bench: Bench, port: int, tcp: bool) -> None:
    source = Source("", ("127.0.0.1",))
    with serving("127.0.0.1", lambda data, tcp: reply_to(data, records=(RECORD,)), port=port) as server:
        for number in range(5):
            bench.ask(source, query("example.org", id=number), tcp=tcp, asker=number)
        replies = bench.wait(5)
        assert len(server.queries) == 1
    assert {reply.raw[:2] for reply in replies} == {bytes((0, number)) for number in range(5)}
    assert {reply.data for reply in replies} == {("1.2.3.4",)}
    assert not source.lookups
    assert len(bench.poller) == 0


def test_what_does_not_answer_the_question_is_not_taken(bench: Bench, port: int) -> None:
    def answer(data: bytes, tcp: bool) -> list[bytes]:
        lie = reply_to(data, records=(b"\6\6\6\6",))
        other = reply_to(query("evil.org", id=int.from_bytes(data[:2], "big")), records=(b"\6\6\6\6",))
        guessed = bytes((data[0] ^ 1, data[1])) + lie[2:]
        return [guessed, other, data, lie[:11], reply_to(data, records=(RECORD,))]

    with serving("127.0.0.1", answer, port=port) as server:
        bench.ask(Source("", ("127.0.0.1",)), query("example.org"))
        assert bench.wait()[0].data == ("1.2.3.4",)
        assert server.queries[0][:2] != b"\x42\x42", "the id is the client's"


def test_a_question_goes_out_from_a_port_of_its_own(bench: Bench, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", port))
        source = Source("", ("127.0.0.1",))
        for number in range(8):
            bench.ask(source, query(f"host{number}.example.org"))
        sent = [server.recvfrom(512) for _ in range(8)]
        assert len({peer for _, peer in sent}) == 8
        assert len({data[:2] for data, _ in sent}) > 4
    bench.upstream.forget(source)
    assert len(bench.poller) == 0
    assert bench.replies == []


def test_a_silent_server_does_not_hold_up_the_next(bench: Bench, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "_NEXT_AFTER", 0.05)
    monkeypatch.setattr(upstream, "_PATIENCE", 0.2)
    source = Source("", ("127.0.0.1", "127.0.0.2"))
    with (
        serving("127.0.0.1", lambda data, tcp: None, port=port) as silent,
        serving("127.0.0.2", lambda data, tcp: reply_to(data, records=(RECORD,)), port=port),
    ):
        bench.ask(source, query("example.org"))
        assert bench.wait()[0].data == ("1.2.3.4",)
        bench.ask(source, query("example.net"))
        assert bench.wait(2)[1].data == ("1.2.3.4",)
        assert len(silent.queries) == 1, "who was silent is asked last"
    with serving("127.0.0.1", lambda data, tcp: None, port=port):
        bench.ask(Source("", ("127.0.0.1",)), query("example.com"))
        assert bench.wait(3)[2].rcode == "SERVFAIL"


def test_too_much_at_a_time_is_refused(bench: Bench, port: int) -> None:
    greedy, modest = Source("", ("127.0.0.1",)), Source("", ("127.0.0.1",))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", port))
        for number in range(300):
            bench.ask(greedy, query(f"host{number}.example.org"))
        assert {reply.rcode for reply in bench.wait(44)} == {"REFUSED"}
        assert len(bench.replies) == 300 - 256
        bench.ask(modest, query("example.org"))
        assert len(bench.replies) == 44
        # Round a loop each question comes back as another of the same words; its sender again and again.
        for number in range(500):
            bench.ask(modest, query("example.org", id=number), asker=number)
        for _ in range(500):
            bench.ask(modest, query("example.org"))
        assert len(modest.lookups) == 1
        assert len(next(iter(modest.lookups.values())).waiters) <= 64
    bench.upstream.forget(greedy)
    bench.upstream.forget(modest)
    assert len(bench.poller) == 0


def test_nobody_to_ask(bench: Bench) -> None:
    bench.ask(Source("", ()), query("example.org"))
    bench.ask(Source("", ("not an address",)), query("example.org"))
    # Its own address: the question would come back for ever.
    bench.ask(Source("", ("127.0.0.11",)), query("example.org"))
    assert [reply.rcode for reply in bench.wait(3)] == ["SERVFAIL"] * 3
    assert len(bench.poller) == 0


def test_a_connection_that_breaks_off(bench: Bench, port: int) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        server.listen()
        bench.ask(Source("", ("127.0.0.1",)), query("example.org"), tcp=True)
        stream, _ = server.accept()
        stream.close()
        assert bench.wait()[0].rcode == "SERVFAIL"


def test_the_hosts_servers_are_those_of_now(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    host = HostServers(str(file))
    assert host.servers() == ("8.8.8.8", "8.8.4.4")
    file.write_text("# nameserver 1.1.1.1\nnameserver 127.0.0.53\nsearch x\nnameserver fe80::1%eth0 # two\n")
    assert host.servers() == ("127.0.0.53", "fe80::1%eth0")
    other = tmp_path / "other"
    other.write_text("nameserver 10.0.0.1\n")
    other.rename(file)
    assert host.servers() == ("10.0.0.1",)
    file.unlink()
    assert host.servers() == ("10.0.0.1",)
