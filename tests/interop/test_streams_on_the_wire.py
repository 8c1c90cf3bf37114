"""Streams on the wire: attach, exec, logs, events, archives."""

import contextlib
import io
import json
import socket
import tarfile
import threading
import time

import pytest

from engine_client import Api, unframe

CAT = {"Cmd": ["cat"], "OpenStdin": True, "StdinOnce": True, "AttachStdin": True, "AttachStdout": True}


@pytest.mark.parametrize("upgrade", [True, False])
def test_attach_before_start(api: Api, image: str, name: str, upgrade: bool) -> None:
    api.create(name, Image=image, **CAT)
    with api.hijack(f"/containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1", upgrade=upgrade) as streams:
        status = b"HTTP/1.1 101 UPGRADED" if upgrade else b"HTTP/1.1 200 OK"
        assert streams.head.split(b"\r\n")[0] == status
        # Who did not ask for an upgrade is told of the old type, whatever is in it.
        kind = b"multiplexed" if upgrade else b"raw"
        assert b"application/vnd.docker.%b-stream" % kind in streams.head
        assert api.post(f"/containers/{name}/start").status == 204
        streams.send(b"hello\n")
        assert streams.receive(b"hello\n") == b"\x01\0\0\0\0\0\0\x06hello\n"
        data = b"x" * 3_000_000
        writer = threading.Thread(target=lambda: (streams.send(data), streams.end_input()))
        writer.start()
        out = unframe(streams.rest())
        writer.join()
        assert out["stdout"] == data
    assert api.wait(name) == 0


def test_attach_to_a_terminal_is_raw_and_can_be_left(api: Api, image: str, name: str) -> None:
    api.run(name, Image=image, Cmd=["sh"], Tty=True, OpenStdin=True)
    with api.hijack(f"/containers/{name}/attach?stream=1&stdin=1&stdout=1&detachKeys=ctrl-x,x") as streams:
        assert b"raw-stream" in streams.head
        assert api.post(f"/containers/{name}/resize?h=33&w=99").status == 200
        streams.send(b"stty size; echo do''ne\n")
        assert b"33 99" in streams.receive(b"done\r\n")
        streams.send(b"\x18x")
        streams.rest()
    assert api.get(f"/containers/{name}/json").json["State"]["Running"]


def test_attach_shows_both_outputs_and_past_logs(api: Api, image: str, name: str) -> None:
    api.create(name, Image=image, Cmd=["sh", "-c", "echo out; echo err >&2"])
    with api.hijack(f"/containers/{name}/attach?stream=1&stdout=1&stderr=1") as streams:
        api.post(f"/containers/{name}/start")
        assert unframe(streams.rest()) == {"stdout": b"out\n", "stderr": b"err\n"}
    with api.hijack(f"/containers/{name}/attach?logs=1&stdout=1&stderr=1") as streams:
        assert unframe(streams.rest()) == {"stdout": b"out\n", "stderr": b"err\n"}


def test_exec_with_input_and_exit_code(api: Api, image: str, name: str) -> None:
    api.run(name, Image=image, Cmd=["sleep", "1000"])
    config = {
        "Cmd": ["sh", "-c", "cat; echo $A >&2; pwd; id -u; exit 7"],
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Env": ["A=b"],
        "WorkingDir": "/tmp",
        "User": "nobody",
    }
    id = api.post(f"/containers/{name}/exec", config).json["Id"]
    before = api.get(f"/exec/{id}/json").json
    assert (before["Running"], before["ExitCode"], before["Pid"]) == (False, None, 0)
    with api.hijack(f"/exec/{id}/start", b'{"Detach":false,"Tty":false}') as streams:
        streams.send(b"in")
        streams.end_input()
        assert unframe(streams.rest()) == {"stdout": b"in/tmp\n65534\n", "stderr": b"b\n"}
    after = api.get(f"/exec/{id}/json").json
    assert (after["Running"], after["ExitCode"]) == (False, 7)
    again = api.post(f"/exec/{id}/start", {})
    assert again.status == 409 or b"has already run" in again.body


def test_exec_detached_and_on_a_terminal(api: Api, image: str, name: str) -> None:
    api.run(name, Image=image, Cmd=["sh", "-c", "mkfifo /tmp/f; cat /tmp/f; sleep 1000"])
    id = api.post(f"/containers/{name}/exec", {"Cmd": ["sh", "-c", "until [ -p /tmp/f ]; do :; done; echo x >/tmp/f"]})
    detached = api.post(f"/exec/{id.json['Id']}/start", {"Detach": True})
    assert (detached.status, detached.body) == (200, b"")
    followed = api.get(f"/containers/{name}/logs?stdout=1&follow=0")
    assert followed.status == 200
    id = api.post(f"/containers/{name}/exec", {"Cmd": ["sh"], "Tty": True, "AttachStdin": True, "AttachStdout": True})
    with api.hijack(f"/exec/{id.json['Id']}/start", b'{"Tty":true,"ConsoleSize":[21,77]}') as streams:
        streams.send(b"stty size; exit 3\n")
        assert b"21 77" in streams.rest()
    assert api.get(f"/exec/{id.json['Id']}/json").json["ExitCode"] == 3


def test_the_keys_that_detach_from_an_exec(api: Api, image: str, name: str) -> None:
    api.run(name, Image=image, Cmd=["sleep", "600"])
    config = {"Cmd": ["cat"], "Tty": True, "AttachStdin": True, "AttachStdout": True, "DetachKeys": "ctrl-a,x"}
    id = api.post(f"/containers/{name}/exec", config).json["Id"]
    assert api.get(f"/exec/{id}/json").json["DetachKeys"] == "AXg="
    with api.hijack(f"/exec/{id}/start", b'{"Tty":true}') as streams:
        streams.send(b"\x10\x11ok\r")
        streams.receive(b"ok")
        streams.send(b"\x01x")
        assert b"\x18" not in streams.rest()


@pytest.mark.parametrize("created", [True, False])
def test_the_start_of_an_exec_says_whether_its_output_is_framed(api: Api, image: str, name: str, created: bool) -> None:
    api.run(name, Image=image, Cmd=["sleep", "600"])
    for start in (True, False):
        config = {"Cmd": ["echo", "hi"], "Tty": created, "AttachStdout": True, "AttachStderr": True}
        id = api.post(f"/containers/{name}/exec", config).json["Id"]
        with api.hijack(f"/exec/{id}/start", b'{"Tty":%s}' % (b"true" if start else b"false")) as streams:
            output = streams.rest()
        output = output if start else unframe(output)["stdout"]
        assert output == (b"hi\r\n" if created else b"hi\n")


@pytest.mark.parametrize(("command", "code"), [("nosuch", 127), ("/etc/passwd", 126)])
def test_exec_of_what_cannot_be_run(api: Api, image: str, name: str, command: str, code: int) -> None:
    api.run(name, Image=image, Cmd=["sleep", "1000"])
    id = api.post(f"/containers/{name}/exec", {"Cmd": [command], "AttachStdout": True}).json["Id"]
    with api.hijack(f"/exec/{id}/start", b"{}") as streams:
        whole = streams.head + streams.rest()
        assert b"exec failed" in whole or b"exec:" in whole
    assert api.get(f"/exec/{id}/json").json["ExitCode"] == code


def test_logs(api: Api, image: str, name: str) -> None:
    api.create(
        name, Image=image, Cmd=["sh", "-c", "for i in 1 2 3; do echo o$i; done; sleep 0.02; echo e >&2; printf end"]
    )
    start = time.time()
    api.post(f"/containers/{name}/start")
    api.wait(name)

    def logs(query: str) -> dict[str, bytes]:
        answer = api.get(f"/containers/{name}/logs?{query}")
        assert answer.status == 200, answer
        return unframe(answer.body)

    assert logs("stdout=1&stderr=1") == {"stdout": b"o1\no2\no3\nend", "stderr": b"e\n"}
    # The last lines are counted before the streams are told apart.
    assert logs("stdout=1&tail=2") == {"stdout": b"end", "stderr": b""}
    assert logs("stdout=1&stderr=1&tail=2") == {"stdout": b"end", "stderr": b"e\n"}
    assert logs("stdout=1&tail=0")["stdout"] == b""
    assert logs("stdout=1&follow=1")["stdout"] == b"o1\no2\no3\nend"
    assert logs(f"stdout=1&since={start + 100:.3f}")["stdout"] == b""
    assert logs(f"stdout=1&until={start - 100:.3f}")["stdout"] == b""
    stamped = logs("stdout=1&timestamps=1&tail=1")["stdout"]
    assert stamped.endswith(b"Z end")
    assert len(stamped) == len("2026-11-21T22:55:17.123456789Z end")


def test_logs_follow_ends_with_the_container_and_with_the_client(api: Api, image: str, name: str) -> None:
    api.run(name, Image=image, Cmd=["sh", "-c", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"])
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as wire:
        wire.settimeout(30)
        wire.connect(api.path)
        wire.sendall(f"GET /containers/{name}/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        seen = b""
        while b"up\n" not in seen:
            seen += wire.recv(65536)
        api.post(f"/containers/{name}/stop")
        while not seen.endswith(b"0\r\n\r\n"):
            seen += wire.recv(65536)
        assert b"bye\n" in seen


def test_events_tell_a_container_s_life(api: Api, image: str, name: str) -> None:
    since = int(time.time()) - 1
    id = api.run(name, Image=image, Cmd=["true"], Labels={"wt": name})
    api.wait(name)
    api.delete(f"/containers/{name}")
    filters = json.dumps({"container": [id], "type": ["container"]}, separators=(",", ":"))
    until = int(time.time()) + 1
    found = api.get(f"/v1.50/events?since={since}&until={until}&filters={filters}").lines
    assert [event["Action"] for event in found] == ["create", "start", "die", "destroy"]
    die = found[2]
    assert die["status"] == "die"
    assert die["id"] == die["Actor"]["ID"] == id
    assert die["from"] == image
    attributes = die["Actor"]["Attributes"]
    assert (attributes["exitCode"], attributes["name"], attributes["image"]) == ("0", name, image)
    assert attributes["wt"] == name
    assert die["timeNano"] // 10**9 == die["time"]


def test_wait_conditions(api: Api, image: str, name: str) -> None:
    api.create(name, Image=image, Cmd=["sh", "-c", "exit 5"], HostConfig={"AutoRemove": True})
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as wire:
        wire.settimeout(30)
        wire.connect(api.path)
        wire.sendall(f"POST /containers/{name}/wait?condition=removed HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        # The head comes before the container is even started.
        head = wire.recv(65536)
        assert head.startswith(b"HTTP/1.1 200")
        api.post(f"/containers/{name}/start")
        assert b'"StatusCode":5' in wire.recv(65536)
    assert api.get(f"/containers/{name}/json").status == 404


def test_archives(api: Api, image: str, name: str) -> None:
    api.create(name, Image=image)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo("d/file")
        entry.size, entry.mode, entry.uid = 5, 0o640, 1000
        tar.addfile(entry, io.BytesIO(b"hello"))
    put = api.request("PUT", f"/containers/{name}/archive?path=/tmp", packed.getvalue())
    assert (put.status, put.body) == (200, b"")
    got = api.get(f"/containers/{name}/archive?path=/tmp/d")
    assert got.headers["Content-Type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(got.body)) as tar:
        assert [member.name.rstrip("/") for member in tar] == ["d", "d/file"]
        file = tar.getmember("d/file")
        assert (file.mode & 0o777, file.uid, file.size) == (0o640, 1000, 5)
    head = api.request("HEAD", f"/containers/{name}/archive?path=/tmp/d/file")
    import base64

    stat = json.loads(base64.b64decode(head.headers["X-Docker-Container-Path-Stat"]))
    assert (stat["name"], stat["size"], stat["mode"], stat["linkTarget"]) == ("file", 5, 0o640, "")
    changes = api.get(f"/containers/{name}/changes").json
    assert {"Path": "/tmp/d/file", "Kind": 1} in changes
    missing = api.get(f"/containers/{name}/archive?path=/nope")
    assert missing.status == 404
    assert missing.message.startswith("Could not find the file /nope in container")
    not_dir = api.request("PUT", f"/containers/{name}/archive?path=/etc/passwd", packed.getvalue())
    assert not_dir.status == 400
    with tarfile.open(fileobj=io.BytesIO(api.get(f"/containers/{name}/export").body)) as tar:
        assert "tmp/d/file" in tar.getnames()


def test_top_and_stats_of_processes(api: Api, image: str, name: str) -> None:
    api.run(name, Image=image, Cmd=["sleep", "777"])
    top = api.get(f"/containers/{name}/top").json
    assert top["Titles"][:2] == ["UID", "PID"]
    assert top["Processes"][0][-1] == "sleep 777"
