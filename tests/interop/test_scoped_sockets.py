"""Sockets that may only do what they name: with real clients, real containers, and those who want more."""

import contextlib
import json
import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cli_process import COMMAND, run

from daemon import PEER, Daemon, wait_until
from engine_client import Api, DockerCli

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(PEER), reason="about our own daemon"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


class Scoped(Api):
    """A client of a scoped socket; its audit log at hand."""

    def __init__(self, made: dict[str, object]) -> None:
        super().__init__(f"unix://{made['Path']}")
        self.audit = Path(str(made["AuditLog"]))

    def records(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.audit.read_text().splitlines()]

    def raw(self, data: bytes) -> bytes:
        """All that is answered until the connection is closed, or nothing more comes."""
        with socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(10)
            wire.connect(self.path)
            wire.sendall(data)
            wire.shutdown(socket.SHUT_WR)
            answer = b""
            while part := wire.recv(65536):
                answer += part
        return answer


@contextlib.contextmanager
def scoped(api: Api, name: str, *allow: str, **more: object) -> Iterator[Scoped]:
    """A scoped socket of this name, gone afterwards."""
    answer = api.post("/wherry/sockets/create", {"Name": name, "Allow": allow, **more})
    assert answer.status == 201, answer.body
    with Scoped(answer.json) as client:
        yield client
    assert api.delete(f"/wherry/sockets/{name}").status == 204


def test_reading(api: Api, image: str, name: str, docker: DockerCli) -> None:
    api.run(name, Image=image, Cmd=["sleep", "1000"])
    with scoped(api, name, "read") as reader:
        docker.environ["DOCKER_HOST"] = f"unix://{reader.path}"
        assert name in docker("ps", "--format", "{{.Names}}").out
        assert docker("inspect", "-f", "{{.Name}}", name).out == f"/{name}\n"
        docker("info")
        for command in (
            ("exec", name, "id"),
            ("rm", "-f", name),
            ("run", image),
            ("pull", image),
            ("cp", f"{name}:/", "-"),
        ):
            assert "may not do this" in docker(*command, code=None).err
        for method, path in (
            *(("POST", f"/containers/{name}/{word}") for word in ("start", "stop", "kill", "exec", "attach", "update")),
            *(("GET", f"/containers/{name}/{word}") for word in ("export", "archive?path=/", "attach/ws")),
            *(("POST", "/containers/create"), ("POST", "/containers/prune"), ("DELETE", f"/containers/{name}")),
            *(("POST", "/wherry/sockets/create"), ("GET", "/wherry/sockets"), ("DELETE", f"/wherry/sockets/{name}")),
            *(
                ("POST", "/build"),
                ("POST", "/auth"),
                ("PUT", f"/containers/{name}/archive?path=/"),
                ("GET", "/nothing"),
            ),
        ):
            assert reader.request(method, path).status == 403, path
        assert api.get(f"/containers/{name}/json").json["State"]["Running"]


def test_only_its_own_containers(api: Api, image: str, name: str) -> None:
    mine, other = f"{name}-mine", f"{name}-other"
    api.run(mine, Image=image, Cmd=["sleep", "1000"], Labels={"team": "a"})
    other_id = api.run(other, Image=image, Cmd=["sleep", "1000"], Labels={"team": "b"})
    allow = ("read", "lifecycle", "containers.exec", "containers.create", "containers.rename", "containers.remove")
    with scoped(api, name, *allow, Labels=["team=a"], Names=[f"{name}-*"]) as client:
        for query in ("", "?all=1", "?limit=1", "?limit=50&all=0"):
            assert [item["Names"] for item in client.get(f"/containers/json{query}").json] == [[f"/{mine}"]]
        unknown = client.get(f"/containers/{name}-nobody/json")
        for reference in (other, other_id, other_id[:12], "/" + other, other_id[:1], ""):
            for method, word in (("GET", "json"), ("GET", "logs"), ("POST", "stop"), ("POST", "exec")):
                found = client.request(method, f"/containers/{reference}/{word}")
                # Nothing tells it from one that is not there.
                assert found.status in (403, 404)
                if reference == other:
                    assert (found.status, found.message) == (404, unknown.message.replace(f"{name}-nobody", other))
        noted = api.post(f"/containers/{other}/exec", {"Cmd": ["id"]}).json["Id"]
        assert client.post(f"/exec/{noted}/start", {"Detach": True}).status == 404
        assert client.get(f"/exec/{noted}/json").status == 404
        own = client.post(f"/containers/{mine}/exec", {"Cmd": ["true"]}).json["Id"]
        assert client.post(f"/exec/{own}/start", {"Detach": True}).status == 200
        assert client.post(f"/containers/{mine}/exec", {"Cmd": ["id"], "Privileged": True}).status == 403
        assert client.post(f"/containers/{mine}/rename?name=free").status == 403
        assert client.post(f"/containers/{mine}/restart?t=0").status == 204
        for body, asked in (
            ({"Labels": {"team": "b"}}, f"{name}-x"),
            ({}, f"{name}-x"),
            ({"Labels": {"team": "a"}}, "x"),
            ({"Labels": {"team": "a"}, "HostConfig": {"Privileged": True}}, f"{name}-x"),
            ({"Labels": {"team": "a"}, "hostconfig": {"privileged": True}}, f"{name}-x"),
            ({"Labels": {"team": "a"}, "HostConfig": {"Binds": ["/:/host"]}}, f"{name}-x"),
            ({"Labels": {"team": "a"}, "HostConfig": {"VolumesFrom": [other]}}, f"{name}-x"),
            ({"Labels": {"team": "a"}, "HostConfig": {"PidMode": f"container:{other}"}}, f"{name}-x"),
        ):
            refused = client.post(f"/containers/create?name={asked}", {"Image": image, **body})
            assert refused.status == 403, (body, refused.body)
        client.run(f"{name}-x", Image=image, Cmd=["sleep", "1000"], Labels={"team": "a"})
        assert client.delete(f"/containers/{name}-x?force=1").status == 204
        assert client.get("/info").status == client.get("/images/json").status == 403
    assert api.get(f"/containers/{other}/json").json["State"]["Running"]


def test_events_of_its_own(api: Api, image: str, name: str) -> None:
    with scoped(api, name, "read", Labels=["wt-scope"]) as client, socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(20)
        wire.connect(client.path)
        wire.sendall(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
        assert wire.recv(4096).startswith(b"HTTP/1.1 200")
        api.create(f"{name}-other", Image=image)
        api.post("/volumes/create", {"Name": f"{name}-v"})
        api.create(f"{name}-mine", Image=image, Labels={"wt-scope": "1"})
        seen = b""
        while b'"create"' not in seen:
            seen += wire.recv(65536)
    assert b"-mine" in seen
    assert b"-other" not in seen
    assert b"-v" not in seen


@pytest.mark.parametrize(
    "line",
    [
        "POST //containers/{name}/kill",
        "POST /./containers/{name}/kill",
        "POST /containers/../containers/{name}/kill",
        "POST /v1.44//containers/{name}/kill",
        "POST /v1.44/../containers/{name}/kill",
        "POST /containers/{name}/%6bill",
        "POST /%63ontainers/{name}/kill",
        "POST /containers/{name}%2fkill",
        "POST /containers/{name}/kill/",
        "POST /containers/{name}/kill?x=/containers/json",
        "POST /containers/{name}/kill#/containers/json",
        "POST /containers/{name}/kill;json",
        "POST http://d/containers/{name}/kill",
        "POST http://d//containers/{name}/kill",
        "POST /v1.44/containers/{name}/kill",
        "POST /v1.24/containers/{name}/kill",
        "post /containers/{name}/kill",
        "GET /containers/{name}/kill",
        "POST /\\containers/{name}/kill",
        "POST /containers/{name}/kill%00",
        "POST /containers/json%2f..%2f{name}/kill",
        "DELETE /containers/{name}?force=1&x=/json",
    ],
)
def test_no_spelling_of_a_path_gets_past(api: Api, image: str, name: str, line: str) -> None:
    api.run(name, Image=image, Cmd=["sleep", "1000"])
    with scoped(api, name, "read") as reader:
        head = f"{line.format(name=name)} HTTP/1.1\r\nHost: d\r\n"
        answer = reader.raw(f"{head}X-HTTP-Method-Override: POST\r\nConnection: close\r\n\r\n".encode())
        assert answer.split()[1] in (b"400", b"403", b"404")
    assert api.get(f"/containers/{name}/json").json["State"]["Running"]


def test_nothing_is_smuggled(api: Api, image: str, name: str) -> None:
    """Each request on a connection is a request to this socket, however it came in."""
    api.run(name, Image=image, Cmd=["sleep", "1000"])
    kill = f"POST /containers/{name}/kill HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n".encode()
    attach = f"POST /containers/{name}/attach?stream=1 HTTP/1.1\r\nHost: d\r\n"
    upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
    with scoped(api, name, "read") as reader:
        for data in (
            b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n" + kill,
            b"GET /_ping HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n" % len(kill) + kill + kill,
            b"GET /_ping HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + kill,
            b"GET /_ping HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
            + kill,
            b"GET /_ping HTTP/1.1\r\nHost: d\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + kill,
            b"GET /_ping HTTP/1.1\nHost: d\n\n" + kill,
            b"GET /_ping HTTP/1.1\r\nHost: d\r\n" + upgrade.encode() + b"\r\n" + kill,
            b"GET /_ping HTTP/1.1\r\nHost: d\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n" + kill,
            f"{attach}{upgrade}Content-Length: 0\r\n\r\n".encode() + kill,
            f"{attach}{upgrade}Content-Length: 12345678\r\n\r\n".encode() + kill,
            f"{attach}{upgrade}\r\n".encode() + kill,
            f"{attach}Content-Length: {len(kill)}\r\nContent-Length: 0\r\n\r\n".encode() + kill,
        ):
            reader.raw(data)
        assert not [
            record for record in reader.records() if record.get("operation") != "ping" and record.get("allowed")
        ]
    assert api.get(f"/containers/{name}/json").json["State"]["Running"]


def test_an_upgraded_connection_stays_what_it_was_allowed_to_be(api: Api, image: str, name: str) -> None:
    api.run(name, Image=image, Cmd=["cat"], OpenStdin=True)
    with scoped(api, name, "containers.attach") as client:
        with client.hijack(f"/containers/{name}/attach?stream=1&stdin=1&stdout=1") as stream:
            assert b"101 UPGRADED" in stream.head
            stream.send(f"POST /containers/{name}/kill HTTP/1.1\r\nHost: d\r\n\r\n".encode())
            assert b"/kill HTTP/1.1" in stream.receive(b"Host: d")
    assert api.get(f"/containers/{name}/json").json["State"]["Running"]


def test_the_audit_log(api: Api, image: str, name: str) -> None:
    id = api.create(name, Image=image)
    with scoped(api, name, "containers.inspect") as client:
        assert client.get(f"/containers/{name}/json").status == 200
        assert client.delete(f"/containers/{name}").status == 403
        assert client.get(f"/containers/{name}/json?x=%22%0a%7b").status == 200
        first, answered, second, refused, *_ = client.records()
        assert (first["event"], first["operation"], first["allowed"], first["name"]) == (
            *("request", "containers.inspect", True, name),
        )
        assert (first["pid"], first["uid"]) == (os.getpid(), 0)
        assert (answered["event"], answered["number"], answered["status"]) == ("answer", first["number"], 200)
        assert (second["allowed"], second["method"], refused["status"]) == (False, "DELETE", 403)
        assert len(client.records()) == 6
        assert stat.S_IMODE(client.audit.stat().st_mode) == 0o600
        assert stat.S_IMODE(client.audit.parent.stat().st_mode) == 0o700
    assert api.get(f"/containers/{id}/json").status == 200
    assert client.audit.exists()


def test_what_cannot_be_written_down_is_not_done(api: Api, image: str, name: str) -> None:
    api.create(name, Image=image)
    with scoped(api, name, "containers.remove") as client:
        client.audit.mkdir(parents=True)
        refused = client.delete(f"/containers/{name}")
        assert (refused.status, "cannot write the audit log" in refused.message) == (503, True)
        client.audit.rmdir()
    assert api.get(f"/containers/{name}/json").status == 200


def test_its_file(api: Api, name: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with scoped(api, name, "read", Path=str(path), User="65534", Group="65534", Mode="0600") as client:
        found = path.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o600, 65534, 65534)
        assert client.get("/_ping").body == b"OK"
        again = api.post("/wherry/sockets/create", {"Name": name, "Allow": ["read"]})
        assert (again.status, again.message) == (409, f"a socket named {name} exists already")
        taken = api.post("/wherry/sockets/create", {"Name": f"{name}2", "Allow": ["read"], "Path": str(path)})
        assert taken.status == 409
    assert not path.exists()
    path.write_text("a file")
    refused = api.post("/wherry/sockets/create", {"Name": name, "Allow": ["read"], "Path": str(path)})
    assert (refused.status, path.read_text()) == (409, "a file")
    assert api.get(f"/wherry/sockets/{name}").status == 404


def test_sockets_come_back_with_the_daemon(tmp_path: Path) -> None:
    daemon = Daemon()
    try:
        daemon.start()
        with Api(daemon.host) as api:
            made = [api.post("/wherry/sockets/create", {"Name": n, "Allow": ["read"]}).json for n in ("one", "two")]
        daemon.process.kill()  # type: ignore[union-attr]
        daemon.process.wait()  # type: ignore[union-attr]
        # Meanwhile somebody else sits there.
        Path(str(made[1]["Path"])).unlink()
        Path(str(made[1]["Path"])).write_text("")
        daemon.start()
        with Scoped(made[0]) as client:
            assert client.get("/version").status == 200
            assert client.post("/containers/prune").status == 403
            assert len(client.records()) == 4
        with Api(daemon.host) as api:
            one, two = api.get("/wherry/sockets").json
            assert (one["Listening"], two["Listening"]) == (True, False)
            assert "is not a socket" in two["Error"]
            assert api.delete("/wherry/sockets/two").status == 204
            assert api.delete("/wherry/sockets/one").status == 204
            assert api.get("/wherry/sockets").json == []
        assert not Path(str(made[0]["Path"])).exists()
    finally:
        stuck = daemon.remove()
    assert not stuck


def test_by_command(host: str, image: str, name: str, api: Api, tmp_path: Path) -> None:
    path = tmp_path / "s"
    flags = ["--allow", "lifecycle,containers.list", "--allow", "GET /containers/{id}/top", "--label", "team=a"]
    made = run(COMMAND, host, ["socket", "create", name, *flags, "--path", str(path), "--mode", "0600"])
    assert (made.returncode, made.stdout) == (0, f"{path}\n".encode()), made.stderr
    api.run(f"{name}-1", Image=image, Cmd=["sleep", "1000"], Labels={"team": "a"})
    assert run(COMMAND, f"unix://{path}", ["ps", "--format", "{{.Names}}"]).stdout == f"{name}-1\n".encode()
    assert run(COMMAND, f"unix://{path}", ["top", f"{name}-1"]).returncode == 0
    refused = run(COMMAND, f"unix://{path}", ["exec", f"{name}-1", "true"])
    assert (refused.returncode, b"may not do this" in refused.stderr) == (1, True)
    listed = run(COMMAND, host, ["socket", "ls"]).stdout.decode().splitlines()
    assert listed[0].split() == ["NAME", "ALLOW", "SCOPE", "PATH", "STATUS"]
    assert any(line.split()[0] == name and line.endswith("listening") for line in listed[1:])
    shown = json.loads(run(COMMAND, host, ["socket", "inspect", name]).stdout)[0]
    assert (shown["Labels"], shown["Mode"]) == (["team=a"], "0600")
    assert b"containers.restart" in run(COMMAND, host, ["socket", "operations"]).stdout
    wrong = run(COMMAND, host, ["socket", "create", f"{name}2", "--allow", "containers.fly"])
    assert (wrong.returncode, b"no operation 'containers.fly'" in wrong.stderr) == (1, True)
    gone = run(COMMAND, host, ["socket", "rm", name, f"{name}3"])
    assert (gone.returncode, gone.stdout) == (1, f"{name}\n".encode())
    assert not path.exists()


def test_removing_it_ends_its_connections(api: Api, name: str) -> None:
    made = api.post("/wherry/sockets/create", {"Name": name, "Allow": ["read"]}).json
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(20)
        wire.connect(str(made["Path"]))
        wire.sendall(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
        assert wire.recv(4096).startswith(b"HTTP/1.1 200")
        assert api.delete(f"/wherry/sockets/{name}").status == 204
        while wire.recv(4096):
            pass
    wait_until(lambda: not Path(str(made["Path"])).exists(), 5, "its file is gone")
