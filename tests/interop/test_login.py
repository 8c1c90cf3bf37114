"""Signing in, pulling and signing out, by the docker client and by ours, at the real registry server."""

import asyncio
import base64
import hashlib
import http.server
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from registry_server import Server, find_program, layer
from wherry_client import Wherry

from daemon import Daemon
from engine_client import Api, DockerCli
from wherry.content import ContentStore
from wherry.errors import WherryError
from wherry.images import Images, RegistryAuth, RegistryConfig
from wherry.snapshots import NativeSnapshotter
from wherry.state import MemoryStore

if TYPE_CHECKING:
    import docker as docker_py

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    return find_program(tmp_path_factory)


@pytest.fixture(params=["docker", "wherry"])
def client(request: pytest.FixtureRequest, host: str, tmp_path: Path) -> DockerCli:
    if request.param == "wherry":
        return Wherry(host, tmp_path)
    made: DockerCli = request.getfixturevalue("docker")
    return made


def publish(program: str, root: Path, name: str) -> str:
    """An image in a registry's directory, put there while nothing protects it; its id."""
    server = Server(program, root, protected=False)
    try:
        return server.push(name, "1", [layer("file", name.encode())])
    finally:
        server.stop()


def stored(client: DockerCli, server: str) -> dict[str, Any]:
    """What the client keeps of a registry."""
    config = json.loads(Path(client.environ["DOCKER_CONFIG"], "config.json").read_text())
    found: dict[str, Any] = (config.get("auths") or {}).get(server, {})
    return found


def pulled(client: DockerCli, api: Api, image: str) -> str:
    """Pull an image and remove it again; its id."""
    client("pull", image)
    id: str = api.get(f"/images/{image}/json").json["Id"]
    assert api.request("DELETE", f"/images/{image}").status == 200
    return id


def test_basic_authentication(program: str, tmp_path: Path, client: DockerCli, api: Api, name: str) -> None:
    id = publish(program, tmp_path, name)
    server = Server(program, tmp_path, protected=True)
    image = f"{server.address}/{name}:1"
    login = ("login", "-u", "joe", "--password-stdin", server.address)
    try:
        refused = client(*login, input="bad\n", code=1)
        assert f"login attempt to http://{server.address}/v2/ failed with status: 401 Unauthorized" in refused.err
        assert "no basic auth credentials" in client("pull", image, code=1).err
        assert "Login Succeeded" in client(*login, input="pw\n").out
        assert base64.b64decode(stored(client, server.address)["auth"]) == b"joe:pw"
        assert pulled(client, api, image) == id
        assert "Removing login credentials" in client("logout", server.address).out
        assert not stored(client, server.address)
        assert "no basic auth credentials" in client("pull", image, code=1).err
    finally:
        server.stop()


def make_certificate(directory: Path, host: str) -> tuple[Path, Path]:
    """A self-signed certificate for an address, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    certificate, key = directory / "own.crt", directory / "own.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=wherry test"),
            *("-addext", f"subjectAltName=IP:{host}", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return certificate, key


class TokenServer(http.server.ThreadingHTTPServer):
    """Gives out tokens as Docker's specification has it (registry/spec/auth): signed JWTs, and "identity" to keep."""

    daemon_threads = True

    def __init__(self, certificate: Path, key: Path) -> None:
        super().__init__(("127.0.0.1", 0), _TokenHandler)
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.asked: list[tuple[str, dict[str, str]]] = []
        self._key = key
        lines = certificate.read_text().splitlines()
        self._header = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(lines[1:-1])]}
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def sign(self, user: str, scope: str) -> str:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        access = [{"type": kind, "name": name, "actions": actions.split(",")}] if user and scope else []
        now = int(time.time())
        claims = {"iss": "tests", "sub": user, "aud": "tests", "exp": now + 300, "nbf": now - 60, "iat": now - 60}
        claims |= {"jti": hashlib.sha256(scope.encode()).hexdigest(), "access": access}
        text = b".".join(encode(json.dumps(part).encode()) for part in (self._header, claims))
        command = ["openssl", "dgst", "-sha256", "-sign", str(self._key)]
        signature = subprocess.run(command, input=text, capture_output=True, check=True, timeout=60).stdout
        return f"{text.decode()}.{encode(signature).decode()}"

    def close(self) -> None:
        self.shutdown()
        self.server_close()


def encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class _TokenHandler(http.server.BaseHTTPRequestHandler):
    server: TokenServer

    def _answer(self) -> None:
        text = self.path.partition("?")[2]
        if self.command == "POST":
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        asked = dict(urllib.parse.parse_qsl(text))
        self.server.asked.append((self.command, asked))
        given = self.headers.get("Authorization")
        known = given == f"Basic {base64.b64encode(b'joe:pw').decode()}" or asked.get("refresh_token") == "identity"
        if known or (self.command == "GET" and not given):
            token = self.server.sign("joe" if known else "", asked.get("scope", ""))
            self._send(200, {"token": token, "access_token": token, "refresh_token": "identity" if known else ""})
        else:
            self._send(401, {"details": "incorrect username or password"})

    def _send(self, status: int, document: dict[str, str]) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = _answer

    def log_message(self, *_arguments: object) -> None:
        pass


def test_tokens(program: str, tmp_path: Path, client: DockerCli, api: Api, name: str) -> None:
    id = publish(program, tmp_path, name)
    certificate, key = make_certificate(tmp_path, "127.0.0.1")
    tokens = TokenServer(certificate, key)
    realm = {"realm": f"http://{tokens.address}/token", "service": "tests", "issuer": "tests"}
    auth = {"auth": {"token": realm | {"rootcertbundle": str(certificate)}}}
    server = Server(program, tmp_path, protected=False, more=auth)
    image = f"{server.address}/{name}:1"
    login = ("login", "-u", "joe", "--password-stdin", server.address)
    try:
        refused = client(*login, input="bad\n", code=1)
        assert f'Get "http://{server.address}/v2/": unauthorized: incorrect username or password' in refused.err
        assert "repository does not exist or may require 'docker login'" in client("pull", image, code=1).err
        assert "Login Succeeded" in client(*login, input="pw\n").out
        kept = stored(client, server.address)
        assert kept["identitytoken"] == "identity"
        assert base64.b64decode(kept["auth"]) == b"joe:"
        tokens.asked.clear()
        assert pulled(client, api, image) == id
        asked = tokens.asked[0][1]
        assert asked["grant_type"] == "refresh_token"
        assert (asked["refresh_token"], asked["service"]) == ("identity", "tests")
        assert asked["scope"] == f"repository:{name}:pull"
        client("logout", server.address)
        assert "repository does not exist or may require 'docker login'" in client("pull", image, code=1).err
    finally:
        server.stop()
        tokens.close()


@pytest.fixture
def outside() -> str:
    """An address of this machine's own where TLS is verified: one that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        found: str = probe.getsockname()[0]
        return found


@pytest.fixture
def trusting(tmp_path: Path, outside: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A daemon whose system trusts one more authority."""
    monkeypatch.setenv("SSL_CERT_FILE", str(make_certificate(tmp_path, outside)[0]))
    made = Daemon()
    try:
        made.start()
        yield made
        made.stop()
    finally:
        made.remove()


def test_tls(program: str, tmp_path: Path, outside: str, trusting: Daemon, docker: DockerCli, name: str) -> None:
    id = publish(program, tmp_path, name)
    server = Server(program, tmp_path, protected=True, host=outside, tls=(tmp_path / "own.crt", tmp_path / "own.key"))
    image = f"{server.address}/{name}:1"
    login = ("login", "-u", "joe", "--password-stdin", server.address)
    try:
        for command, input in ((login, "pw\n"), (("pull", image), "")):
            assert "tls: failed to verify certificate" in docker(*command, input=input, code=1).err
        docker.environ["DOCKER_HOST"] = trusting.host
        refused = docker(*login, input="bad\n", code=1)
        assert f"login attempt to https://{server.address}/v2/ failed with status: 401 Unauthorized" in refused.err
        assert "Login Succeeded" in docker(*login, input="pw\n").out
        docker("pull", image)
        assert docker("images", "-q", "--no-trunc").out.strip() == id
    finally:
        server.stop()


def test_tls_without_verification(program: str, tmp_path: Path, docker: DockerCli, api: Api, name: str) -> None:
    """Loopback needs no certificate; but what went over TLS is not sent again in the clear, as dockerd does."""
    id = publish(program, tmp_path, name)
    server = Server(program, tmp_path, protected=True, tls=make_certificate(tmp_path, "127.0.0.1"))
    login = ("login", "-u", "joe", "--password-stdin", server.address)
    try:
        refused = docker(*login, input="bad\n", code=1)
        assert f"login attempt to https://{server.address}/v2/ failed with status: 401 Unauthorized" in refused.err
        docker(*login, input="pw\n")
        assert pulled(docker, api, f"{server.address}/{name}:1") == id
    finally:
        server.stop()


def test_docker_py(program: str, tmp_path: Path, sdk: "docker_py.DockerClient", name: str) -> None:
    from docker.errors import APIError

    id = publish(program, tmp_path, name)
    server = Server(program, tmp_path, protected=True)
    image = f"{server.address}/{name}"
    try:
        with pytest.raises(APIError, match="failed with status: 401 Unauthorized"):
            sdk.login("joe", "bad", registry=server.address, dockercfg_path=str(tmp_path / "none"))
        answer = sdk.login("joe", "pw", registry=server.address, dockercfg_path=str(tmp_path / "none"))
        assert answer == {"IdentityToken": "", "Status": "Login Succeeded"}
        assert sdk.images.pull(image, tag="1").id == id
        sdk.images.remove(f"{image}:1")
    finally:
        server.stop()


def test_an_authority_for_one_registry(program: str, tmp_path: Path, outside: str, name: str) -> None:
    certificate, key = make_certificate(tmp_path, outside)
    server = Server(program, tmp_path, protected=True, host=outside, tls=(certificate, key))
    joe = RegistryAuth("joe", "pw", server=server.address)

    def login() -> str:
        store = MemoryStore()
        snapshots = NativeSnapshotter(tmp_path / "snapshots")
        config = RegistryConfig(certificates=(tmp_path / "certs.d",))
        images = Images(tmp_path, store, ContentStore(tmp_path / "content", store), snapshots, registries=config)
        try:
            return asyncio.run(images.login(joe))
        finally:
            snapshots.close()

    try:
        with pytest.raises(WherryError, match="tls: failed to verify certificate"):
            login()
        own = tmp_path / "certs.d" / server.address
        own.mkdir(parents=True)
        shutil.copy(certificate, own / "ca.crt")
        assert login() == ""
    finally:
        server.stop()
