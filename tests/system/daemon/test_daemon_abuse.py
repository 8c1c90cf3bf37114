"""Clients and containers that mean harm: whatever they send or do, the daemon answers everyone else."""

import base64
import contextlib
import json
import socket
import time
import urllib.parse
from pathlib import Path

import pytest
from wreck import IMAGE, Wreck, wait_until

from engine_client import Answer

pytestmark = pytest.mark.root


def post(wreck: Wreck, target: str, body: bytes) -> Answer:
    return wreck.api.request("POST", target, body, {"Content-Type": "application/json"})


def is_refused(answer: Answer) -> bool:
    """With docker's error document, and not because something unforeseen happened."""
    return 400 <= answer.status < 500 and bool(answer.message) and "internal error" not in answer.message


def memory(wreck: Wreck) -> int:
    return wreck.memory()["daemon"]


def test_bodies(wreck: Wreck) -> None:
    before = memory(wreck)
    deep = 200_000
    bodies = [
        b"[" * deep,
        b'{"a":' * deep,
        b'{"Image":"x","Labels":' + b'{"a":' * deep + b"1" + b"}" * deep + b"}",
        b'{"Image":"x","Cmd":' + b"[" * deep + b"]" * deep + b"}",
        b'{"Image":"x","HostConfig":{"Memory":1' + b"0" * 100_000 + b"}}",
        b'{"Image":"x","HostConfig":{"Memory":1e400}}',
        b'{"Image":"x","HostConfig":{"Memory":NaN}}',
        b'{"Image":"' + b"x" * (16 << 20) + b'"}',
        b'{"Image":"x","Env":[' + b'"A=b",' * (3 << 20) + b'"A=b"]}',
        b'{"Image":"\\ud800"}',
        b'{"Image":"a\\u0000b"}',
        b"\xff\xfe{}",
        b'{"Image":"x"}' + b" " * (17 << 20),
    ]
    for body in bodies:
        for target in ("/containers/create", "/volumes/create"):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                answer = post(wreck, target, body)
                # A volume may be made of a document whose fields are all unknown.
                assert is_refused(answer) or (target == "/volumes/create" and answer.status == 201), (body[:60], answer)
    for volume in wreck.api.get("/volumes").json["Volumes"]:
        wreck.api.delete(f"/volumes/{volume['Name']}")
    assert wreck.api.get("/_ping").status == 200
    assert memory(wreck) < before + (150 << 10)


def connect(wreck: Wreck, data: bytes = b"") -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.connect(str(wreck.daemon.socket))
    made.settimeout(20)
    made.sendall(data)
    return made


def test_heads(wreck: Wreck) -> None:
    """100,000 header fields, one of 32 MB, a first line without end, and nonsense."""
    head = b"GET /_ping HTTP/1.1\r\nHost: d\r\n"
    before = memory(wreck)
    for data in (
        head + b"".join(b"x-%d: y\r\n" % number for number in range(100_000)) + b"\r\n",
        head + b"x: " + b"y" * (32 << 20) + b"\r\n\r\n",
        b"GET /" + b"x" * (32 << 20),
        b"POST /containers/x/attach" + b"y" * (32 << 20),
        b"POST /containers/x/attach HTTP/1.1\r\n" + b"x: y\r\n" * 1_000_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 1000,
        head + b"Content-Length: -1\r\n\r\n",
        head + b"Content-Length: 99999999999999999999\r\n\r\n",
        head + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"\r\n" * 100_000,
    ):
        with contextlib.closing(connect(wreck)) as client, contextlib.suppress(OSError):
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            client.recv(1000)
        assert wreck.api.get("/_ping").status == 200
    assert memory(wreck) < before + (100 << 10)


def test_connections_that_do_nothing(wreck: Wreck) -> None:
    """A thousand that say nothing or never end their request; then they are gone, with all that they held."""
    wreck.api.get("/_ping")
    before = wreck.descriptors()["daemon"]
    starts = (
        b"",
        b"GET ",
        b"POST /containers/create HTTP/1.1\r\nHost: d\r\n",
        b"POST /containers/x/attach HTTP/1.1\r\n",
    )
    bodies = b"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: 1000\r\n\r\n"
    clients = [connect(wreck, start) for start in starts for _ in range(250)]
    clients += [connect(wreck, bodies) for _ in range(40)]
    try:
        wait_until(lambda: wreck.descriptors()["daemon"] >= before + 1000, 10, "they are connected")
        started = time.monotonic()
        assert wreck.api.get("/_ping").status == 200
        id = wreck.run("true")
        assert wreck.api.post(f"/containers/{id}/wait").json["StatusCode"] == 0
        assert time.monotonic() - started < 10
    finally:
        for client in clients:
            client.close()
    wait_until(lambda: wreck.descriptors()["daemon"] <= before + 2, 10, "their descriptors are closed")


def test_names_that_are_ways(wreck: Wreck) -> None:
    """Ids and names in URLs and documents never become paths."""

    def tree() -> set[str]:
        roots = [wreck.daemon.root, wreck.daemon.data_root, wreck.daemon.exec_root, wreck.daemon.data_root / "volumes"]
        return {str(path) for root in roots for path in root.iterdir() if path.name != "log"}

    id = wreck.run("sleep", "1000")
    before = tree()
    for name in (
        "..",
        "../..",
        "../../../etc",
        "/etc/passwd",
        ".",
        "a/../../b",
        f"../{id}",
        "\0",
        "a\0b",
        "\n",
        "%2e%2e",
    ):
        quoted = urllib.parse.quote(name, safe="")
        for way in (quoted, name.replace("\0", "%00").replace("\n", "%0a").replace("%2e", "%252e")):
            for method, target in (
                ("GET", f"/containers/{way}/json"),
                ("DELETE", f"/containers/{way}?force=1&v=1"),
                ("GET", f"/containers/{way}/logs?stdout=1"),
                ("GET", f"/containers/{way}/export"),
                ("POST", f"/containers/{id}/rename?name={quoted}"),
                ("GET", f"/exec/{way}/json"),
                ("GET", f"/images/{way}/json"),
                ("DELETE", f"/images/{way}"),
                ("GET", f"/volumes/{way}"),
                ("DELETE", f"/volumes/{way}?force=1"),
                ("GET", f"/networks/{way}"),
                ("POST", f"/images/{IMAGE}/tag?repo={quoted}"),
            ):
                answer = wreck.api.request(method, target)
                # "..%2f" apart, dots may make another request of it, for a list or a name that is not there.
                assert answer.status in (204, 200, 400, 404, 405, 409), (method, target[:80], answer)
                assert answer.status not in (200, 204) or answer.body == b"" or b"root:" not in answer.body
        for document in ({"Name": name}, {"Name": "ok", "Driver": name}):
            assert is_refused(wreck.api.post("/volumes/create", document)), document
        assert is_refused(wreck.api.post(f"/containers/create?name={quoted}", {"Image": IMAGE}))
        for host in (
            {"Binds": [f"{name}:/x"]} if not name.startswith("/") else {"VolumeDriver": name},
            {"NetworkMode": name},
            {"CgroupParent": f"/../../{name}"},
            {"LogConfig": {"Type": name}},
            {"Runtime": name},
        ):
            made = wreck.api.post("/containers/create", {"Image": IMAGE, "Cmd": ["true"], "HostConfig": host})
            if made.status == 201:
                started = wreck.api.post(f"/containers/{made.json['Id']}/start")
                assert started.status in (204, 400, 404, 409, 500), started
                wreck.api.delete(f"/containers/{made.json['Id']}?force=1&v=1")
    assert tree() == before
    assert wreck.state(id)["Status"] == "running"
    # Parents that were asked for stay, as with docker: they are somebody's.
    for parent in ("etc/passwd", "etc", "b", "%2e%2e", id):
        for hierarchy in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
            with contextlib.suppress(OSError):
                (hierarchy / parent).rmdir()


def test_filters_and_credentials(wreck: Wreck) -> None:
    filters: list[object] = [
        [],
        5,
        {"label": 5},
        {"label": [5]},
        {"label": {"a": {"b": 1}}},
        {"name": ["(" * 100]},
        {"name": ["(a+)+$"]},
        {"before": ["\0"]},
        {"until": ["99999999999999999999999h"]},
        {"a" * 100_0: ["x"] * 1000},
        {"status": [None]},
    ]
    for path in ("/containers/json", "/images/json", "/volumes", "/networks", "/events?until=1", "/system/df"):
        for found in filters:
            mark = "&" if "?" in path else "?"
            answer = wreck.api.get(f"{path}{mark}filters={urllib.parse.quote(json.dumps(found))}")
            assert answer.status == 200 or is_refused(answer), (path, found, answer)
    for path in ("/containers/prune", "/images/prune", "/volumes/prune"):
        for found in filters[:4]:
            answer = wreck.api.post(f"{path}?filters={urllib.parse.quote(json.dumps(found))}")
            assert is_refused(answer), (path, found, answer)
    for path in ("/containers/json", "/images/json", "/events"):
        assert is_refused(wreck.api.get(f"{path}?filters={'[' * 60_000}"))
    for auth in (
        "garbage",
        "=" * 1000,
        base64.urlsafe_b64encode(b"[1,2]").decode(),
        base64.urlsafe_b64encode(b'{"username":5}').decode(),
        base64.urlsafe_b64encode(b"[" * 20_000).decode(),
        base64.urlsafe_b64encode(b'{"username":"a\\r\\nX: y","password":"b"}').decode(),
    ):
        answer = wreck.api.request(
            "POST", "/images/create?fromImage=127.0.0.1:1/x&tag=y", b"", {"X-Registry-Auth": auth}
        )
        assert answer.status in (200, 400, 404, 500, 503), answer
        assert b"internal error" not in answer.body


def test_a_log_that_is_a_link(wreck: Wreck) -> None:
    outside = wreck.daemon.root / "elsewhere"
    outside.write_text("before\n")
    id = wreck.api.create("linked", Image=IMAGE, Cmd=["echo", "PLANTED"])
    log = wreck.daemon.data_root / "containers" / id / f"{id}-json.log"
    log.unlink(missing_ok=True)
    log.symlink_to(outside)
    answer = wreck.api.post(f"/containers/{id}/start")
    assert answer.status == 500
    assert wreck.state(id)["Status"] == "created"
    assert outside.read_text() == "before\n"
    wreck.clear()
    outside.unlink()


def test_logs_stay_within_their_limit(wreck: Wreck) -> None:
    host = {"LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}}
    id = wreck.run("sh", "-c", "yes 0123456789 | head -c 10000000; head -c 3000000 /dev/zero", host=host)
    wreck.api.post(f"/containers/{id}/wait")
    directory = wreck.daemon.data_root / "containers" / id
    assert sum(path.stat().st_size for path in directory.glob("*.log*")) < 2_500_000
    assert memory(wreck) < 200 << 10
    assert wreck.memory()["logger"] < 50 << 10


@pytest.mark.parametrize("config", [{"Env": ["A=" + "x" * 200_000]}, {"Cmd": ["true", *["y" * 1000] * 7000]}])
def test_arguments_beyond_what_the_kernel_takes(wreck: Wreck, config: dict[str, object]) -> None:
    made = wreck.api.post("/containers/create", {"Image": IMAGE, "Cmd": ["true"], **config})
    assert made.status == 201, made.body
    answer = wreck.api.post(f"/containers/{made.json['Id']}/start")
    assert answer.status in (400, 500)
    assert "rgument list too long" in answer.message
    assert "x" * 1000 not in answer.message
    assert wreck.state(made.json["Id"])["Status"] == "created"
    id = wreck.run("sleep", "1000")
    document = {"Cmd": ["true"], "AttachStdout": True, **config}
    made = wreck.api.post(f"/containers/{id}/exec", document)
    with wreck.api.hijack(f"/exec/{made.json['Id']}/start", b"{}") as stream:
        assert b"rgument list too long" in stream.head + stream.rest()
    assert wreck.execute(id, "echo", "on") == (0, "on\n")


def test_a_fork_bomb(wreck: Wreck) -> None:
    id = wreck.run("sleep", "1000", host={"PidsLimit": 30})
    document = {"Cmd": ["sh", "-c", "while :; do sleep 1000 & done"], "AttachStdout": True, "AttachStderr": True}
    made = wreck.api.post(f"/containers/{id}/exec", document)
    with wreck.api.hijack(f"/exec/{made.json['Id']}/start", b"{}") as stream:
        stream.receive(b"fork")
    assert len(wreck.api.get(f"/containers/{id}/top").json["Processes"]) <= 30
    # One more is not possible, which is said; everyone else goes on.
    made = wreck.api.post(f"/containers/{id}/exec", {"Cmd": ["true"], "AttachStdout": True})
    with wreck.api.hijack(f"/exec/{made.json['Id']}/start", b"{}") as stream:
        stream.rest()
    other = wreck.run("true")
    assert wreck.api.post(f"/containers/{other}/wait").json["StatusCode"] == 0
    assert wreck.api.post(f"/containers/{id}/stop?t=0").status == 204


def test_a_container_out_of_memory(wreck: Wreck) -> None:
    host = {"Memory": 16 << 20, "MemorySwap": 16 << 20}
    id = wreck.run("sh", "-c", "exec tail -c 100m /dev/zero", host=host)
    assert wreck.api.post(f"/containers/{id}/wait").json["StatusCode"] == 137
    assert wreck.state(id)["OOMKilled"] is True
    assert wreck.state(id)["Status"] == "exited"
    # Nor do its own files take more than it may have, in memory that is not its processes'.
    host["Tmpfs"] = {"/t": ""}  # type: ignore[assignment]
    id = wreck.run("sh", "-c", "head -c 100m /dev/zero >/t/x; echo on", host=host)
    assert wreck.api.post(f"/containers/{id}/wait").json["StatusCode"] in (0, 137)
    assert wreck.api.get("/_ping").status == 200
