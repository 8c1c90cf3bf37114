"""TCP, TLS and ssh to an engine, contexts, and engines that are older than the client."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cli_process import COMMAND, LAUNCHER, run
from engine_double import EngineDouble

pytestmark = pytest.mark.root


class Relay:
    """A TCP listener, with TLS when given a context, in front of an engine's unix socket; half-closes are passed on."""

    def __init__(self, target: str, context: ssl.SSLContext | None = None) -> None:
        self._target = target.removeprefix("unix://")
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(self._target)
            try:
                with self._context.wrap_socket(client, server_side=True) if self._context else client as near:
                    thread = threading.Thread(target=_copy, args=(near, engine), daemon=True)
                    thread.start()
                    _copy(engine, near)
            except OSError:
                client.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        if not isinstance(target, ssl.SSLSocket):
            target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    directory = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=directory,
        check=True,
        capture_output=True,
    )
    shutil.copy(directory / "cert.pem", directory / "ca.pem")
    return directory


@pytest.fixture
def tls(host: str, certificates: Path) -> Iterator[Relay]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    relay = Relay(host, context)
    yield relay
    relay.close()


def test_tcp(host: str, image: str, name: str) -> None:
    relay = Relay(host)
    arguments = ["-H", f"tcp://127.0.0.1:{relay.port}", "run", "-i", "--rm", "--name", name, image, "cat"]
    done = run(COMMAND, "", arguments, b"x" * 300000)
    relay.close()
    assert (done.returncode, len(done.stdout)) == (0, 300000), done.stderr


def test_tls(tls: Relay, certificates: Path, image: str, name: str) -> None:
    flags = ["-H", f"tcp://localhost:{tls.port}", "--tlsverify"]
    flags += [f"--tls{part}={certificates / part}.pem" for part in ("key", "cert")]
    flags += [f"--tlscacert={certificates}/ca.pem"]
    done = run(COMMAND, "", [*flags, "run", "-i", "--rm", "--name", name, image, "cat"], b"x" * 300000)
    assert (done.returncode, len(done.stdout)) == (0, 300000), done.stderr


def test_tls_is_verified(tls: Relay, certificates: Path, tmp_path: Path) -> None:
    done = run(COMMAND, "", ["--config", str(tmp_path), "-H", f"tcp://localhost:{tls.port}", "--tlsverify", "ps"])
    assert done.returncode == 1
    assert b"certificate verify failed" in done.stderr


def test_tls_by_context(tls: Relay, certificates: Path, tmp_path: Path) -> None:
    config = ["--config", str(tmp_path)]
    endpoint = f"host=tcp://localhost:{tls.port}," + ",".join(
        f"{part}={certificates / part}.pem" for part in ("ca", "cert", "key")
    )
    made = run(COMMAND, "", [*config, "context", "create", "far", "--docker", endpoint])
    assert (made.returncode, made.stdout) == (0, b"far\n"), made.stderr
    assert run(COMMAND, "", [*config, "--context", "far", "version"]).returncode == 0
    assert run(COMMAND, "", [*config, "context", "use", "far"]).returncode == 0
    if docker := shutil.which("docker"):
        listed = subprocess.run(
            [docker, *config, "context", "ls", "--format", "{{.Name}} {{.Current}} {{.DockerEndpoint}}"],
            capture_output=True,
            text=True,
            check=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")},
        )
        assert f"far true tcp://localhost:{tls.port}" in listed.stdout.splitlines()
    removed = run(COMMAND, "", [*config, "context", "rm", "-f", "far"])
    assert (removed.returncode, removed.stdout) == (0, b"far\n")
    assert not list((tmp_path / "contexts" / "meta").iterdir())


def test_ssh(host: str, image: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ssh` here is a script: it checks what it is asked, and runs our own dial-stdio."""
    script = tmp_path / "ssh"
    script.write_text(
        f"#!/bin/sh\n"
        f'[ "$*" = "-o ConnectTimeout=30 -T -l me -p 2222 -- far docker system dial-stdio" ] || exit 9\n'
        f'exec {sys.executable} -IS -c "{LAUNCHER}" -H {host} system dial-stdio\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    arguments = ["-H", "ssh://me@far:2222", "run", "-i", "--rm", "--name", name, image, "cat"]
    done = run(COMMAND, "", arguments, b"over ssh")
    assert (done.returncode, done.stdout) == (0, b"over ssh"), done.stderr


def test_an_older_engine(tmp_path: Path) -> None:
    """Refused at our version, the request is sent again at the engine's; what follows goes out at that at once."""
    engine = EngineDouble(tmp_path / "s.sock", "1.41")
    done = run(COMMAND, engine.address, ["create", "x"])
    assert (done.returncode, done.stdout) == (0, b"0123456789abcdef\n"), done.stderr
    assert [path for _, path, _ in engine.taken()] == ["/v1.50/containers/create", "/v1.41/containers/create"]
    done = run(COMMAND, engine.address, ["stop", "a", "b"])
    assert done.stdout == b"a\nb\n"
    # A streamed body cannot be sent twice: the version is asked for first.
    run(COMMAND, engine.address, ["load"], b"tar")
    assert engine.requests[-1][1].startswith("/v1.41/images/load")
    engine.shutdown()
    engine.server_close()


def test_version_by_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_API_VERSION", "1.30")
    engine = EngineDouble(tmp_path / "s.sock")
    environment = {**os.environ, "DOCKER_HOST": engine.address}
    subprocess.run([*COMMAND, "create", "x"], env=environment, check=True, capture_output=True)
    assert engine.taken()[0][1] == "/v1.30/containers/create"
    engine.shutdown()
    engine.server_close()
