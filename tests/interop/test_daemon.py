"""The daemon as a process: beginnings, ends, and what lies between them."""

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import PEER, Daemon, busybox_tar, wait_until
from engine_client import Api, DockerCli

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(PEER), reason="about our own daemon"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
CERTIFICATES = Path(__file__).parents[1] / "unit/api"


@pytest.fixture
def own() -> Iterator[Daemon]:
    """A daemon of the test's own, not started yet."""
    made = Daemon()
    yield made
    stuck = made.remove()
    assert not stuck


def load_image(api: Api) -> None:
    query = "fromSrc=-&repo=bb&tag=latest&changes=CMD+%5B%22sh%22%5D"
    assert api.request("POST", f"/images/create?{query}", busybox_tar().read_bytes()).status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_containers_outlive_the_daemon(own: Daemon, number: int) -> None:
    own.start()
    api = Api(own.host)
    load_image(api)
    script = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done"
    id = api.run("lives", Image="bb", Cmd=["sh", "-c", script])
    api.run("ends", Image="bb", Cmd=["sh", "-c", "read x; exit 6"], OpenStdin=True)
    pid = api.get(f"/containers/{id}/json").json["State"]["Pid"]
    ends = api.get("/containers/ends/json").json["State"]["Pid"]
    api.close()
    assert own.signal(number) == (0 if number == signal.SIGTERM else -9)
    # What ends meanwhile is learned of afterwards.
    os.kill(ends, signal.SIGKILL)
    own.start()
    api = Api(own.host)
    state = api.get(f"/containers/{id}/json").json["State"]
    assert (state["Running"], state["Pid"]) == (True, pid)
    assert api.wait("ends") == 137
    assert api.post(f"/containers/{id}/stop?t=0").status == 204
    log = api.get(f"/containers/{id}/logs?stdout=1").body
    numbers = [int(line.rsplit(b" ", 1)[1]) for line in log.splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))
    for name in ("lives", "ends"):
        assert api.delete(f"/containers/{name}").status == 204
    api.close()
    own.stop()
    wait_until(lambda: not own.leaks(), 5, f"nothing is left: {own.leaks()}")
    assert not own.socket.exists()
    assert not (own.exec_root / "daemon.pid").exists()


def test_a_second_daemon_on_the_same_roots_is_refused(own: Daemon) -> None:
    own.start()
    second = Daemon()
    second.exec_root, second.data_root = own.exec_root, own.root / "other"
    assert own.process is not None
    try:
        with pytest.raises(RuntimeError, match=rf"another daemon \(process {own.process.pid}\) uses"):
            second.start()
    finally:
        shutil.rmtree(second.root)
    with Api(own.host) as api:
        assert api.get("/_ping").body == b"OK"


def test_open_streams_do_not_delay_the_end(own: Daemon) -> None:
    own.start()
    with Api(own.host) as api:
        load_image(api)
        api.run("c1", Image="bb", Cmd=["sleep", "1000"])
        with contextlib.ExitStack() as stack:
            attached = stack.enter_context(api.hijack("/containers/c1/attach?stream=1&stdout=1"))
            for request in ("GET /events", "POST /containers/c1/wait", "GET /containers/c1/logs?stdout=1&follow=1"):
                wire = stack.enter_context(socket.socket(socket.AF_UNIX))
                wire.settimeout(20)
                wire.connect(str(own.socket))
                wire.sendall(f"{request} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
                assert wire.recv(4096).startswith(b"HTTP/1.1 200")
            start = time.monotonic()
            own.stop()
            assert time.monotonic() - start < 8
            assert attached.rest() == b""
            assert wire.recv(4096) == b""
    own.start()
    with Api(own.host) as api:
        assert api.delete("/containers/c1?force=1").status == 204


def test_tls_with_the_real_client(own: Daemon, docker: DockerCli, tmp_path: Path) -> None:
    certificate, key = CERTIFICATES / "tls-cert.pem", CERTIFICATES / "tls-key.pem"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own.flags = (
        *("-H", f"tcp://127.0.0.1:{port}", "--tlsverify", "--tlscacert", str(certificate)),
        *("--tlscert", str(certificate), "--tlskey", str(key)),
    )
    own.start()
    with Api(own.host) as api:
        load_image(api)
    tls = ("--tlsverify", "--tlscacert", str(certificate), "--tlscert", str(certificate), "--tlskey", str(key))
    docker.environ["DOCKER_HOST"] = f"tcp://127.0.0.1:{port}"
    data = "".join(f"{number}\n" for number in range(100_000))
    assert docker(*tls, "run", "--rm", "-i", "bb", "cat", input=data).out == data
    # Without a certificate nobody gets in.
    context = ssl.create_default_context(cafile=str(certificate))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="localhost") as stranger:
                stranger.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
                answer = stranger.recv(100)
        except (ssl.SSLError, ConnectionError):
            answer = b""
        assert answer == b""


def test_signals_and_the_service_manager(own: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    file = own.root / "daemon.json"
    file.write_text("{}")
    own.flags = ("--config-file", str(file))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(20)
        manager.bind(str(own.root / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(own.root / "notify"))
        own.start()
        assert manager.recv(100) == b"READY=1"
        assert own.process is not None
        file.write_text('{"mtu": 900}')
        own.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "needing a restart: mtu" in own.log_text(), 10, "the reload is noticed")
        assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", manager.recv(100))
        assert manager.recv(100) == b"READY=1"
        file.write_text("{")
        own.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "Error reconfiguring the daemon" in own.log_text(), 10, "the mistake is noticed")
        assert manager.recv(100).startswith(b"RELOADING=1")
        assert manager.recv(100) == b"READY=1"
        own.stop()
        assert manager.recv(100) == b"STOPPING=1"
    assert own.process.returncode == 0


def test_the_watchdog_hears_of_the_daemon(own: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(20)
        manager.bind(str(own.root / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(own.root / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        own.start()
        assert [manager.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        own.stop()


def test_socket_activation(own: Daemon) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(own.root / "activated"))
        listening.listen()
        own.flags = ("-H", "fd://")
        manager = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); "
            "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); os.execv(sys.argv[2], sys.argv[2:])"
        )
        number = listening.fileno()
        with own.log.open("ab") as log:
            own.process = subprocess.Popen(
                [sys.executable, "-c", manager, str(number), *own.command()], pass_fds=[number], stdout=log, stderr=log
            )
        with Api(f"unix://{own.root / 'activated'}") as api:
            assert api.get("/_ping").body == b"OK"
        own.stop()
    assert (own.root / "activated").exists()
