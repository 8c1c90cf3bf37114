"""Requests, versions, errors. Expected texts are dockerd 28.5's."""

import asyncio
import json
from typing import Any

import pytest
from fake_engine import FakeEngine
from http_client import Client, ask
from serving import Serve

JSON = "application/json"


def test_ping_and_version_negotiation(serve: Serve) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        client = await Client.connect(path)
        for target in ("/_ping", "/v1.24/_ping", "/v1.56/_ping", "/v1.30.1/_ping"):
            pong = await client.request("GET", target)
            assert (pong.status, pong.body) == (200, b"OK")
        head = await client.request("HEAD", "/_ping")
        assert head.headers["Api-Version"] == "1.56"
        assert head.headers["Ostype"] == "linux"
        assert head.headers["Content-Length"] == "0"
        assert head.headers["Docker-Experimental"] == "false"
        old = await client.request("GET", "/v1.12/version")
        assert old.status == 400
        assert old.body.startswith(b"client version 1.12 is too old. Minimum supported API version is 1.24, ")
        new = await client.request("GET", "/v1.99/version")
        assert new.message == "client version 1.99 is too new. Maximum supported API version is 1.56"
        assert (await client.request("GET", "/version")).json["MinAPIVersion"] == "1.24"
        client.close()

    serve(test)


@pytest.mark.parametrize(
    ("method", "target", "body", "content_type", "status", "message"),
    [
        ("GET", "/nope", None, None, 404, "page not found"),
        ("GET", "/vfoo/version", None, None, 404, "page not found"),
        ("POST", "/_ping", None, None, 404, "page not found"),
        ("GET", "/containers//json", None, None, 404, "page not found"),
        ("DELETE", "/containers/json", None, None, 404, "No such container: json"),
        ("GET", "/containers/a%2Fb/json", None, None, 404, "page not found"),
        ("POST", "/containers/create", None, None, 400, "invalid JSON: got EOF while reading request body"),
        ("POST", "/containers/create", b"", JSON, 400, "invalid JSON: got EOF while reading request body"),
        ("POST", "/containers/create", b"{", JSON, 400, "invalid JSON: unexpected EOF"),
        ("POST", "/containers/create", b'{"Image":"x', JSON, 400, "invalid JSON: unexpected EOF"),
        ("POST", "/containers/create", b'{"Image":"x"} {', JSON, 400, "unexpected content after JSON"),
        ("POST", "/containers/create", b"{}", JSON, 400, "config cannot be empty in order to create a container"),
        ("POST", "/containers/create", b"null", JSON, 400, "config cannot be empty in order to create a container"),
        ("POST", "/containers/create", b'{"Image":5}', JSON, 400, "Image must be a string, not a number"),
        ("POST", "/containers/create", b'{"Image":NaN}', JSON, 400, "invalid JSON: NaN is not JSON"),
        ("POST", "/containers/create", b"[" * 200_000, JSON, 400, "invalid JSON: exceeded max depth"),
        (
            "POST",
            "/containers/create",
            b'{"Image":"x","HostConfig":{"Memory":"1"}}',
            JSON,
            400,
            "HostConfig.Memory must be an integer, not a string",
        ),
        (
            "POST",
            "/containers/create",
            b"{}",
            "text/plain",
            400,
            "unsupported Content-Type header (text/plain): must be 'application/json'",
        ),
        ("POST", "/containers/create", b"{}", ";;", 400, "malformed Content-Type header (;;): mime: no media type"),
        ("POST", "/containers/x/stop?t=abc", None, None, 400, 'strconv.Atoi: parsing "abc": invalid syntax'),
        ("POST", "/containers/x/stop?t=%zz", None, None, 400, 'invalid URL escape "%zz"'),
        ("POST", "/containers/x/wait?condition=foo", None, None, 400, 'invalid condition: "foo"'),
        ("POST", "/containers/x/rename", None, None, 400, "Neither old nor new names may be empty"),
        ("POST", "/containers/x/resize?h=1&w=x", None, None, 400, 'invalid resize width "x": invalid syntax'),
        ("POST", "/containers/x/exec", b"{}", JSON, 400, "No exec command specified"),
        ("GET", "/containers/x/logs", None, None, 400, "Bad parameters: you must choose at least one stream"),
        ("GET", "/containers/json?filters=abc", None, None, 400, "invalid filter"),
        ("GET", "/containers/json?filters={%22a%22:%22b%22}", None, None, 400, "invalid filter"),
        (
            "GET",
            "/events?since=10&until=5",
            None,
            None,
            400,
            "`since` time (10) cannot be after `until` time (5)",
        ),
        ("POST", "/exec/nope/start", b"{}", JSON, 404, "No such exec instance: nope"),
        ("GET", "/swarm", None, None, 503, "This node is not a swarm manager. Wherry does not support swarm mode yet."),
    ],
)
def test_bad_requests(
    serve: Serve, method: str, target: str, body: bytes | None, content_type: str | None, status: int, message: str
) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        headers = {"Content_Type": content_type} if content_type else {}
        answer = await ask(path, method, target, body, **headers)
        assert (answer.status, answer.message) == (status, message)
        assert not engine.containers.made

    serve(test)


def test_bodies_beyond_the_limit_are_refused_before_they_are_read(serve: Serve) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        for headers in ({"Content-Length": str(1 << 40)}, {"Transfer-Encoding": "chunked"}):
            client = await Client.connect(path)
            client.send("POST", "/containers/create", headers={"Content-Type": JSON, **headers})
            if "Transfer-Encoding" in headers:
                client.writer.write((b"100000\r\n" + b" " * 0x100000 + b"\r\n") * 9)
            status, found = await client.head()
            assert status == 413
            assert "too large" in json.loads(await client.body(status, found))["message"]
            client.close()

    serve(test)


def test_an_unexpected_failure_is_a_plain_500(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        engine.containers.fail = RuntimeError("boom")
        client = await Client.connect(path)
        answer = await client.post_json("/containers/create", {"Image": "x"})
        assert (answer.status, answer.message) == (500, "internal error: RuntimeError: boom")
        # The connection is still good.
        assert (await client.request("GET", "/_ping")).status == 200
        client.close()

    serve(test)
    assert "POST /containers/create failed" in caplog.text


def test_life_cycle_statuses_and_what_old_clients_mean(serve: Serve) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        client = await Client.connect(path)
        made = await client.post_json(
            "/v1.39/containers/create?name=a", {"Image": "x", "HostConfig": {"PidsLimit": -1}}
        )
        assert made.status == 201
        assert made.json["Warnings"] == []
        host = engine.containers.made["a"].host
        assert (host.cgroupns_mode, host.ipc_mode, host.pids_limit) == ("host", "shareable", None)
        again = await client.post_json("/containers/create?name=a", {"Image": "x"})
        assert again.status == 409
        for status in (204, 304):
            answer = await client.request("POST", "/containers/a/start")
            assert (answer.status, answer.body) == (status, b"")
            assert "Content-Length" not in answer.headers
        assert "IPAddress" in (await client.request("GET", "/v1.51/containers/a/json")).json["NetworkSettings"]
        newest = (await client.request("GET", "/containers/a/json")).json
        assert newest["NetworkSettings"] == {"Networks": {}}
        assert newest["HostConfig"] == {"Memory": 5}
        assert newest["Config"] == {"Image": "x"}
        await client.request("DELETE", "/containers/a?force=1&v=0")
        assert engine.containers.calls[-1] == ("remove", "a", {"force": True, "volumes": False, "link": False})
        client.close()

    serve(test)


def test_both_forms_of_filters(serve: Serve) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        for text in ('{"label":["a=b"]}', '{"label":{"a=b":true,"c":false}}'):
            quoted = text.replace('"', "%22")
            assert (await ask(path, "GET", f"/containers/json?filters={quoted}")).status == 200
            assert engine.containers.calls[-1][1]["filters"] == {"label": ["a=b"]}

    serve(test)


def test_disk_usage_in_each_version(serve: Serve) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        async def fields(target: str) -> set[str]:
            return set((await ask(path, "GET", target)).json)

        old = {"LayersSize", "Images", "Containers", "Volumes", "BuildCache"}
        new = {"ImageUsage", "ContainerUsage", "VolumeUsage", "BuildCacheUsage"}
        assert await fields("/v1.51/system/df") == old
        assert await fields("/v1.52/system/df") == old | new
        assert await fields("/v1.53/system/df") == new
        assert await fields("/v1.51/system/df?type=image&type=volume") == {"LayersSize", "Images", "Volumes"}

    serve(test)


def test_http_1_0_and_pipelining(serve: Serve) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        client = await Client.connect(path)
        client.writer.write(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n" * 3)
        for _ in range(3):
            status, headers = await client.head()
            assert await client.body(status, headers) == b"OK"
        client.close()
        client = await Client.connect(path)
        client.writer.write(b"GET /_ping HTTP/1.0\r\n\r\n")
        assert (await client.reader.read()).endswith(b"\r\n\r\nOK")
        client.close()

    serve(test)


def test_answers_a_client_that_has_shut_down_its_side(serve: Serve) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        client = await Client.connect(path)
        client.writer.write(b"GET /info HTTP/1.1\r\nHost: d\r\n\r\n")
        client.writer.write_eof()
        assert b'"ID":"x"' in await client.reader.read()
        client.close()

    serve(test)


def test_garbage_does_not_disturb_others(serve: Serve) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        for garbage in (b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"POST /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n"):
            client = await Client.connect(path)
            client.writer.write(garbage)
            client.writer.write_eof()
            answer = await client.reader.read()
            assert not answer or b" 400 " in answer.split(b"\r\n")[0]
            assert b"Traceback" not in answer
            client.close()
        assert (await ask(path, "GET", "/_ping")).status == 200

    serve(test)


def test_events_stream(serve: Serve) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        for version, accept, prefix, legacy in (
            ("1.50", "", b"", True),
            ("1.56", "application/json-seq", b"\x1e", False),
            ("1.56", "application/x-ndjson", b"", False),
        ):
            client = await Client.connect(path)
            client.send("GET", f"/v{version}/events", headers={"Accept": accept})
            _, headers = await client.head()
            assert headers["Content-Type"] == (accept or JSON)
            engine.events.queue.put_nowait({"Type": "container", "status": "start"})
            chunk = await client.chunk()
            assert chunk.startswith(prefix + b"{")
            event: dict[str, Any] = json.loads(chunk.lstrip(b"\x1e"))
            assert ("status" in event) is legacy
            engine.events.queue.put_nowait(None)
            assert await client.chunk() == b""
            client.close()

    serve(test)


def test_a_client_that_leaves_ends_what_it_waited_for(serve: Serve) -> None:
    async def test(engine: FakeEngine, path: str) -> None:
        client = await Client.connect(path)
        await client.post_json("/containers/create?name=a", {"Image": "x"})
        await client.request("POST", "/containers/a/start")
        client.send("POST", "/containers/a/wait?condition=next-exit")
        status, headers = await client.head()
        assert (status, headers["Transfer-Encoding"]) == (200, "chunked")
        waiter = engine.containers.made["a"].waiters[0]
        client.close()
        with pytest.raises(asyncio.CancelledError):
            await waiter

    serve(test)
