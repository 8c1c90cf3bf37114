"""The registry server's modes, in processes of their own: accounts, tokens, caches, several workers, notifications."""

import contextlib
import http.server
import json
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from registry_process import MANIFEST, RegistryClient, RegistryProcess, digest_of, with_query


@pytest.fixture
def accounts(tmp_path: Path) -> list[str]:
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    (tmp_path / "htpasswd").write_text(f"alice:{hashed}\n")
    (tmp_path / "access").write_text(
        '[[access]]\nrepositories = "team/*"\nusers = ["alice"]\nactions = ["*"]\n'
        '[[access]]\nrepositories = "*"\nusers = ["anonymous"]\nactions = ["pull"]\n'
        '[[quota]]\nrepositories = "team/small"\nsize = "1K"\n'
    )
    return ["--htpasswd", str(tmp_path / "htpasswd"), "--access", str(tmp_path / "access")]


BASIC = {"Authorization": "Basic YWxpY2U6c2VjcmV0"}


def test_accounts_and_quotas(tmp_path: Path, accounts: list[str]) -> None:
    with RegistryProcess(tmp_path / "r", *accounts) as process:
        alice, nobody = RegistryClient(process.address, **BASIC), RegistryClient(process.address)
        alice.push_image("team/app", "v1", b"content")
        assert alice.ask("POST", "/v2/other/app/blobs/uploads/", b"").status == 403
        assert nobody.ask("GET", "/v2/team/app/manifests/v1").status == 200
        refused = nobody.ask("POST", "/v2/team/app/blobs/uploads/", b"")
        assert (refused.status, refused.headers["www-authenticate"][:5]) == (401, "Basic")
        assert nobody.ask("GET", "/v2/", Authorization="Basic YWxpY2U6d3Jvbmc=").status == 401
        alice.push_blob("team/small", b"x" * 1000)
        over = alice.ask("PUT", with_query(alice.begin("team/small"), digest=digest_of(b"y" * 100)), b"y" * 100)
        assert (over.status, over.code) == (403, "DENIED")


def test_tokens(tmp_path: Path, accounts: list[str]) -> None:
    flags = ["--issue-tokens", "--token-realm", "http://registry/token"]
    with RegistryProcess(tmp_path / "r", *accounts, *flags) as process:
        nobody, alice = RegistryClient(process.address), RegistryClient(process.address, **BASIC)
        asked = nobody.ask("POST", "/v2/team/app/blobs/uploads/", b"")
        assert asked.status == 401
        assert 'scope="repository:team/app:pull,push"' in asked.headers["www-authenticate"]
        given = alice.ask("GET", "/token?service=wherry-registry&scope=repository:team/app:pull,push,delete")
        bearer = RegistryClient(process.address, Authorization=f"Bearer {given.json['token']}")
        bearer.push_image("team/app", "v1", b"content")
        assert bearer.ask("POST", "/v2/team/other/blobs/uploads/", b"").status == 401
        assert RegistryClient(process.address, Authorization="Bearer x.y.z").ask("GET", "/v2/").status == 401
        form = b"grant_type=password&username=alice&password=wrong"
        assert nobody.ask("POST", "/token", form, Content_Type="application/x-www-form-urlencoded").status == 401


def test_a_cache_serves_what_upstream_had_when_that_is_gone(tmp_path: Path) -> None:
    layer = secrets.token_bytes(3 << 20)
    flags = ("--proxy-fresh", "0")
    with contextlib.ExitStack() as stack:
        with RegistryProcess(tmp_path / "upstream") as upstream:
            origin = RegistryClient(upstream.address)
            digest = origin.push_image("lib/app", "v1", layer)
            cache = stack.enter_context(
                RegistryProcess(tmp_path / "cache", "--proxy", f"http://{upstream.address}", *flags)
            )
            client = RegistryClient(cache.address)
            assert client.ask("GET", "/v2/lib/app/manifests/v1").headers["docker-content-digest"] == digest
            assert client.ask("GET", f"/v2/lib/app/blobs/{digest_of(layer)}").body == layer
            moved = origin.push_image("lib/app", "v1", b"newer")
            assert client.ask("GET", "/v2/lib/app/manifests/v1").headers["docker-content-digest"] == moved
            assert client.ask("GET", "/v2/lib/app/manifests/absent").status == 404
            assert client.ask("POST", "/v2/lib/app/blobs/uploads/", b"").status == 405
        assert client.ask("GET", "/v2/lib/app/manifests/v1").headers["docker-content-digest"] == moved
        assert client.ask("GET", f"/v2/lib/app/blobs/{digest_of(layer)}").body == layer
        assert client.ask("GET", f"/v2/lib/app/blobs/{digest_of(b'newer')}").status == 502


def test_several_processes_serve_one_store(tmp_path: Path) -> None:
    """An upload goes on in whichever process its next chunk meets; any of them may die."""
    with (
        RegistryProcess(tmp_path / "r", "--workers", "2") as first,
        RegistryProcess(tmp_path / "r") as second,
    ):
        a, b = RegistryClient(first.address), RegistryClient(second.address)
        data = secrets.token_bytes(200_000)
        location = a.begin("x/y")
        for number, client in enumerate((a, b, a, b)):
            part = data[number * 50_000 : (number + 1) * 50_000]
            answer = client.ask("PATCH", location, part)
            assert answer.status == 202, answer
        assert b.ask("PUT", with_query(location, digest=digest_of(data)), b"").status == 201
        assert a.ask("GET", f"/v2/x/y/blobs/{digest_of(data)}").body == data
        children = Path(f"/proc/{first.process.pid}/task/{first.process.pid}/children").read_text().split()
        assert len(children) == 2


def test_read_only(tmp_path: Path) -> None:
    with RegistryProcess(tmp_path / "r") as process:
        RegistryClient(process.address).push_image("a/b", "v1", b"content")
    with RegistryProcess(tmp_path / "r", "--read-only") as process:
        client = RegistryClient(process.address)
        assert client.ask("GET", "/v2/a/b/manifests/v1").status == 200
        for method, path in (("POST", "/v2/a/b/blobs/uploads/"), ("DELETE", "/v2/a/b/manifests/v1")):
            assert (client.ask(method, path, b"").status, client.ask(method, path, b"").code) == (405, "UNSUPPORTED")


class _Listener(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server: Any = self.server
        # The first delivery fails: it must be tried again.
        status = 500 if not server.told and not server.failed else 200
        server.failed = True
        if status == 200:
            server.told += json.loads(body)["events"]
        self.send_response(status)
        self.end_headers()
        if len(server.told) >= 4:
            server.enough.set()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def listener() -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Listener)
    server.told, server.failed, server.enough = [], False, threading.Event()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_events_are_told_and_metrics_counted(tmp_path: Path, listener: Any) -> None:
    address = f"http://127.0.0.1:{listener.server_port}/"
    with RegistryProcess(tmp_path / "r", "--webhook", address) as process:
        client = RegistryClient(process.address)
        client.push_image("a/b", "v1", b"content")
        client.ask("GET", "/v2/a/b/manifests/v1")
        assert listener.enough.wait(20)
    told = [(event["action"], event["target"]["mediaType"], event["target"].get("tag")) for event in listener.told]
    assert told[2:4] == [("push", MANIFEST, "v1"), ("pull", MANIFEST, "v1")]
    assert all(event["target"]["repository"] == "a/b" for event in listener.told)


def test_collect_is_a_command_too(tmp_path: Path) -> None:
    with RegistryProcess(tmp_path / "r") as process:
        RegistryClient(process.address).push_blob("a/b", b"orphan")
        command = [sys.executable, "-m", "wherry.registry", "collect", "--root", str(tmp_path / "r"), "--grace", "-1"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == {"links": 1, "blobs": 1, "bytes": 6, "uploads": 0}
        assert RegistryClient(process.address).ask("GET", f"/v2/a/b/blobs/{digest_of(b'orphan')}").status == 404


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--listen", "nowhere"], "ADDRESS:PORT"),
        (["--tls-cert", "x"], "belong together"),
        (["--issue-tokens"], "--htpasswd"),
        (["--proxy", "ftp://x"], "http(s)"),
        (["--access", "/nonexistent"], "cannot read"),
        (["--storage", "nonsense://x"], "cannot be used"),
    ],
)
def test_flags_that_make_no_sense_are_refused(tmp_path: Path, flags: list[str], told: str) -> None:
    command = [sys.executable, "-m", "wherry.registry", "serve", "--root", str(tmp_path), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, told in done.stderr, "Traceback" in done.stderr) == (1, True, False), done.stderr
