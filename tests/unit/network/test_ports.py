import socket
from collections.abc import Iterator

import pytest

from wherry.errors import Conflict, InvalidArgument
from wherry.network.endpoint import PortRequest, PublishedPort
from wherry.network.ports import Ports, Target, without


@pytest.fixture
def ports() -> Iterator[Ports]:
    made = Ports()
    yield made
    made.close()


def free_port(kind: int = socket.SOCK_STREAM, host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def serve(port: int, reuse: int) -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        server.bind(("127.0.0.1", port))
        server.listen()


def ask(port: int, *, end: int = 0, host: str = "127.0.0.1", proto: str = "tcp") -> PortRequest:
    return PortRequest(80, proto, host, port, end)


def test_a_held_port_is_refused_to_others_and_free_again_after_release(ports: Ports) -> None:
    port = free_port()
    (published,) = ports.reserve([ask(port)], Target("10.0.0.2"))
    assert published == PublishedPort(80, "tcp", "127.0.0.1", port)
    for reuse in (0, 1):
        with pytest.raises(OSError, match="Address already in use"):
            serve(port, reuse)
    ports.release([published])
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))


def test_nobody_is_answered_on_a_held_port(ports: Ports) -> None:
    port = free_port()
    ports.reserve([ask(port)], Target("10.0.0.2"))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)


def test_a_port_of_another_container_is_refused_in_dockers_words(ports: Ports) -> None:
    port = free_port()
    ports.reserve([ask(port)], Target("10.0.0.2"))
    for host in ("127.0.0.1", "0.0.0.0"):
        with pytest.raises(Conflict, match=f"^Bind for {host}:{port} failed: port is already allocated$"):
            ports.reserve([ask(port, host=host)], Target("10.0.0.3"))
    ports.reserve([ask(port, host="127.0.0.2")], Target("10.0.0.3"))
    ports.reserve([ask(port, proto="udp")], Target("10.0.0.3"))


def test_a_port_of_another_program_is_refused_in_dockers_words(ports: Ports) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        text = f"failed to bind host port for 127.0.0.1:{port}:10.0.0.2:80/tcp: address already in use"
        with pytest.raises(Conflict, match=f"^{text}$"):
            ports.reserve([ask(port)], Target("10.0.0.2"))


def test_a_port_can_be_held_just_after_its_server_ended(ports: Ports) -> None:
    """Connections that the server closed first linger in TIME_WAIT, which refuses a plain bind."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()
            assert client.recv(1) == b""
    ports.reserve([ask(port)], Target("10.0.0.2"))
    with pytest.raises(OSError, match="Address already in use"):
        serve(port, reuse=1)


def test_all_requests_or_none(ports: Ports) -> None:
    first, taken = free_port(), free_port()
    ports.reserve([ask(taken)], Target("10.0.0.2"))
    with pytest.raises(Conflict):
        ports.reserve([ask(first), ask(taken)], Target("10.0.0.3"))
    ports.reserve([ask(first)], Target("10.0.0.3"))


def test_a_range_gives_its_first_free_port_until_there_is_none(ports: Ports) -> None:
    with socket.create_server(("127.0.0.5", 0)) as other:
        port = other.getsockname()[1]
        if port > 65530:
            pytest.skip("no room for a range above the port the kernel chose")
        wanted = ask(port, end=port + 2, host="127.0.0.5")
        assert [ports.reserve([wanted], Target("10.0.0.2"))[0].host_port for _ in range(2)] == [port + 1, port + 2]
        with pytest.raises(Conflict, match="all ports are allocated"):
            ports.reserve([wanted], Target("10.0.0.2"))


def test_no_port_asked_gives_ephemeral_ones_in_turn(ports: Ports) -> None:
    first, second = ports.reserve([ask(0, host="127.0.0.6")] * 2, Target("10.0.0.2"))
    ports.release([first])
    (third,) = ports.reserve([ask(0, host="127.0.0.6")], Target("10.0.0.2"))
    assert first.host_port < second.host_port < third.host_port


def test_a_lost_port_is_adopted_nevertheless(ports: Ports) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = PublishedPort(80, "tcp", "127.0.0.1", other.getsockname()[1])
        ports.adopt([port])
    with pytest.raises(Conflict, match="already allocated"):
        ports.reserve([ask(port.host_port)], Target("10.0.0.2"))
    ports.release([port])
    ports.reserve([ask(port.host_port)], Target("10.0.0.2"))


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (PortRequest(0), InvalidArgument),
        (PortRequest(80, "icmp"), InvalidArgument),
        (PortRequest(80, host_port_start=65536), InvalidArgument),
        (PortRequest(80, host_port_start=65535, host_port_end=65536), InvalidArgument),
        (PortRequest(80, host_ip="localhost"), InvalidArgument),
        (PortRequest(80, host_ip="203.0.113.77"), InvalidArgument),
        (PortRequest(80, host_ip="::1"), InvalidArgument),
    ],
)
def test_bad_requests(ports: Ports, request_: PortRequest, error: type[Exception]) -> None:
    with pytest.raises(error):
        ports.reserve([request_], Target("10.0.0.2"))


def test_changing_keeps_what_fits_and_takes_the_rest_or_nothing(ports: Ports) -> None:
    one, two, busy = free_port(), free_port(), free_port()
    ports.reserve([ask(busy)], Target("10.0.0.9"))
    before = ports.reserve([ask(one), PortRequest(81, "tcp", "127.0.0.1")], Target("10.0.0.2"))
    with pytest.raises(Conflict):
        ports.change(before, [ask(two), ask(busy)], Target("10.0.0.2"))
    serve(two, 0)
    # The same port of the host to another of the container; any port of the host where there is one already.
    wanted = [PortRequest(8080, "tcp", "127.0.0.1", one), ask(two), PortRequest(81, "tcp", "127.0.0.1")]
    after = ports.change(before, wanted, Target("10.0.0.2"))
    assert after == (
        PublishedPort(8080, "tcp", "127.0.0.1", one),
        PublishedPort(80, "tcp", "127.0.0.1", two),
        before[1],
    )
    assert without(after, before) == (after[1],)
    with pytest.raises(OSError, match="Address already in use"):
        serve(one, 0)
