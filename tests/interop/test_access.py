"""Who may use the daemon, and who watches it: authorization plugins, client certificates, metrics, units of systemd."""

import base64
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import pytest

from daemon import PEER, Daemon, busybox_tar, wait_until
from engine_client import Api, DockerCli
from wherry.daemon.notify import watchdog_seconds

CONTRIB = Path(__file__).parents[2] / "contrib/systemd"


def real(test: Any) -> Any:
    """It needs a daemon of its own."""
    for mark in (
        pytest.mark.root,
        pytest.mark.skipif(bool(PEER), reason="about our own daemon"),
        pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    ):
        test = mark(test)
    return test


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def load_image(api: Api) -> None:
    query = "fromSrc=-&repo=bb&tag=latest&changes=CMD+%5B%22sh%22%5D"
    assert api.request("POST", f"/images/create?{query}", busybox_tar().read_bytes()).status == 200


class Plugin(ThreadingUnixStreamServer):
    """An authorization plugin that refuses what its `forbidden` is found in; where plugins are looked for."""

    daemon_threads = True

    def __init__(self) -> None:
        self.name = f"wt-{uuid.uuid4().hex[:8]}"
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.forbidden = b"\0"
        places = Path("/run/docker/plugins")
        places.mkdir(parents=True, exist_ok=True)
        self.path = places / f"{self.name}.sock"
        plugin = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                answer: dict[str, Any] = {"Implements": ["authz"]}
                if self.path != "/Plugin.Activate":
                    document = json.loads(body)
                    sent = base64.b64decode(document.get("RequestBody", "")) + document["RequestUri"].encode()
                    plugin.asked.append((self.path.rpartition(".")[2], document))
                    answer = {"Allow": plugin.forbidden not in sent, "Msg": "by rule"}
                data = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def address_string(self) -> str:
                return ""

        super().__init__(str(self.path), Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
        self.path.unlink(missing_ok=True)


@pytest.fixture
def plugin() -> Iterator[Plugin]:
    made = Plugin()
    yield made
    made.close()


@pytest.fixture
def own() -> Iterator[Daemon]:
    made = Daemon()
    yield made
    stuck = made.remove()
    assert not stuck


def certificates(directory: Path) -> None:
    """An authority, a server and the client "alice"."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
    for name, subject, more in (("server", "/CN=localhost", "IP:127.0.0.1"), ("alice", "/O=us/CN=alice", "DNS:alice")):
        openssl("req", *key, "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (directory / "more").write_text(f"subjectAltName={more}\n")
        sign = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "more")
        openssl("x509", "-req", "-in", f"{name}.csr", *sign, "-out", f"{name}.pem")


@real
def test_a_plugin_knows_who_asks(own: Daemon, plugin: Plugin, docker: DockerCli, tmp_path: Path) -> None:
    certificates(tmp_path)
    port = free_port()
    own.flags = (
        *("-H", f"tcp://127.0.0.1:{port}", "--tlsverify", "--tlscacert", str(tmp_path / "ca.pem")),
        *("--tlscert", str(tmp_path / "server.pem"), "--tlskey", str(tmp_path / "server.key")),
        *("--authorization-plugin", plugin.name),
    )
    own.start()
    with Api(own.host) as api:
        load_image(api)
        assert api.get("/info").json["Plugins"]["Authorization"] == [plugin.name]
        assert api.get("/info").json["Warnings"] is None
        docker.environ["DOCKER_HOST"] = f"tcp://127.0.0.1:{port}"
        alice = [f"--tls{part}={tmp_path / file}" for part, file in (("cert", "alice.pem"), ("key", "alice.key"))]
        alice += ["--tlsverify", f"--tlscacert={tmp_path / 'ca.pem'}"]
        plugin.asked.clear()
        assert docker(*alice, "run", "--rm", "bb", "echo", "hello").out == "hello\n"
        asked = [document for method, document in plugin.asked if method == "AuthZReq"]
        assert {(document["User"], document["UserAuthNMethod"]) for document in asked} == {("alice", "TLS")}
        pem = base64.b64decode(asked[0]["RequestPeerCertificates"][0])
        assert pem.splitlines()[1] in (tmp_path / "alice.pem").read_bytes()
        plugin.forbidden = b'Privileged":true'
        refused = docker(*alice, "run", "--rm", "--privileged", "bb", "true", code=None)
        assert f"authorization denied by plugin {plugin.name}: by rule" in refused.err
        # The unix socket is asked about as well, and so is a scoped one.
        plugin.forbidden = b"/containers/json"
        assert api.get("/containers/json").status == 403
        made = api.post("/wherry/sockets/create", {"Name": "s", "Allow": ["read"]}).json
        with Api(f"unix://{made['Path']}") as scoped:
            assert scoped.get("/containers/json").message.startswith("authorization denied by plugin")


@real
def test_a_certificate_is_exchanged_while_running(own: Daemon, tmp_path: Path) -> None:
    port = free_port()

    def write() -> bytes:
        certificates(tmp_path)
        return ssl.PEM_cert_to_DER_cert((tmp_path / "server.pem").read_text())

    def seen() -> bytes:
        context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        context.load_cert_chain(tmp_path / "alice.pem", tmp_path / "alice.key")
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as layer:
                layer.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
                assert layer.recv(64).startswith(b"HTTP/1.1 200")
                return layer.getpeercert(binary_form=True) or b""

    first = write()
    own.flags = (
        *("-H", f"tcp://127.0.0.1:{port}", "--tlsverify", "--tlscacert", str(tmp_path / "ca.pem")),
        *("--tlscert", str(tmp_path / "server.pem"), "--tlskey", str(tmp_path / "server.key")),
    )
    own.start()
    assert seen() == first
    second = write()
    assert own.process is not None
    own.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "Reloaded configuration" in own.log_text(), 10, "the reload")
    assert seen() == second != first


@real
def test_without_its_plugin_the_daemon_allows_nothing(own: Daemon, tmp_path: Path) -> None:
    plugin = Plugin()
    own.flags = ("--authorization-plugin", plugin.name)
    try:
        # The start asks for a ping, so the plugin is needed for that too.
        own.start()
    finally:
        plugin.close()
    with Api(own.host) as api:
        for path in ("/_ping", "/containers/json", "/v1.44/info"):
            refused = api.get(path)
            assert refused.status == 500
            assert refused.message.startswith(f"plugin {plugin.name} failed with error: AuthZPlugin.AuthZReq: ")
    own.stop()
    with pytest.raises(RuntimeError, match="Error validating authorization plugin"):
        own.start()


@real
def test_metrics(own: Daemon) -> None:
    port = free_port()
    own.flags = ("--metrics-addr", f"127.0.0.1:{port}")
    own.start()
    with Api(own.host) as api:
        load_image(api)
        api.run("c1", Image="bb", Cmd=["sleep", "1000"], Labels={"a": "b"})
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as client:
            client.request("GET", "/metrics")
            answer = client.getresponse()
            assert (answer.status, answer.headers["Content-Type"].partition(";")[0]) == (200, "text/plain")
            text = answer.read().decode()
        found = parse(text)
        assert found['engine_daemon_container_states_containers{state="running"}'] == 1
        assert found['engine_daemon_container_actions_seconds_count{action="start"}'] == 1
        assert found['engine_daemon_container_actions_seconds_bucket{action="start",le="+Inf"}'] == 1
        assert found["engine_daemon_events_total"] >= 2
        id = api.get("/containers/c1/json").json["Id"]
        labels = f'{{id="{id}",name="c1",image="bb"}}'
        assert found[f"wherry_container_pids{labels}"] == 1
        assert found[f"wherry_container_memory_usage_bytes{labels}"] > 0
        # dockerd 28.5's, but for those of parts that are not here (builder, swarm, Go).
        for name in DOCKERD_METRICS.split():
            assert re.search(rf"^# TYPE {name} ", text, re.MULTILINE), name
        for path, status in (("/", 404), ("/containers/json", 404), ("/metrics/x", 404)):
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as client:
                client.request("GET", path)
                assert client.getresponse().status == status
        assert api.delete("/containers/c1?force=1").status == 204


DOCKERD_METRICS = """
engine_daemon_container_actions_seconds engine_daemon_container_states_containers engine_daemon_engine_cpus_cpus
engine_daemon_engine_info engine_daemon_engine_memory_bytes engine_daemon_events_subscribers_total
engine_daemon_events_total engine_daemon_health_checks_failed_total engine_daemon_health_checks_total
process_cpu_seconds_total process_max_fds process_open_fds process_resident_memory_bytes process_start_time_seconds
process_virtual_memory_bytes
"""


def parse(text: str) -> dict[str, float]:
    """The text form, held to its grammar."""
    found: dict[str, float] = {}
    line_form = re.compile(r'([a-z_]+(?:\{[a-z_]+="(?:[^"\\\n]|\\.)*"(?:,[a-z_]+="(?:[^"\\\n]|\\.)*")*\})?) (\S+)')
    for line in text.splitlines():
        if not line.startswith("# "):
            match = line_form.fullmatch(line)
            assert match, line
            assert match[1] not in found, line
            found[match[1]] = float(match[2])
    return found


@real
def test_structured_logs(own: Daemon) -> None:
    own.flags = ("--log-format", "json")
    own.start()
    own.stop()
    records = [json.loads(line) for line in own.log_text().splitlines()]
    assert {"time", "level", "msg"} <= set(records[0])
    assert any(record["msg"] == "Daemon has completed initialization" for record in records)


@real
def test_the_network_must_be_wanted(own: Daemon) -> None:
    port = free_port()
    own.flags = ("-H", f"tcp://0.0.0.0:{port}")
    with pytest.raises(RuntimeError, match="refusing to listen"):
        own.start()
    own.flags = ("-H", f"tcp://0.0.0.0:{port}", "--tls=false")
    own.start()
    with Api(own.host) as api:
        (warning,) = api.get("/info").json["Warnings"]
    assert warning.startswith(f"[DEPRECATION NOTICE]: API is accessible on http://0.0.0.0:{port} without encryption.")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for path in CONTRIB.iterdir():
        text = path.read_text()
        # The check wants every program to be there.
        (tmp_path / path.name).write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    units = sorted(str(path) for path in tmp_path.iterdir())
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_units_fit_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What systemd is told is what the daemon does."""
    from wherry.daemon.options import DEFAULT_HOST
    from wherry.daemon.settings import parse_flags

    service = dict(re.findall(r"^(\w+)=(.*)$", (CONTRIB / "wherry.service").read_text(), re.MULTILINE))
    program, command, *flags = service["ExecStart"].split()
    assert (Path(program).name, command, parse_flags(flags)) == ("wherry", "daemon", {"host": ["fd://"]})
    # Stopping or restarting the daemon must not touch monitor, logger and containers.
    assert (service["Type"], service["KillMode"], service["Delegate"]) == ("notify", "process", "yes")
    monkeypatch.setenv("WATCHDOG_USEC", str(int(service["WatchdogSec"]) * 1_000_000))
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert watchdog_seconds() == int(service["WatchdogSec"]) / 2
    listening = dict(re.findall(r"^(\w+)=(.*)$", (CONTRIB / "wherry.socket").read_text(), re.MULTILINE))
    assert DEFAULT_HOST.endswith(listening["ListenStream"])
