"""Authorization plugins over a fake engine: what they are sent, and that nothing gets past them."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from fake_engine import FakeEngine
from http_client import Client, ask

from wherry.api import Api
from wherry.api.authz import Authorization, find_plugins
from wherry.errors import WherryError
from wherry.plugins import Places

JSON = "application/json"


class FakePlugin:
    """Answers by `decide(method, document)`; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.implements = ["authz"]
        self.decide: Callable[[str, dict[str, Any]], Any] = lambda method, document: {"Allow": True}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        body = await reader.readexactly(length)
        method = head.split()[1].decode().lstrip("/")
        if method == "Plugin.Activate":
            answer: Any = {"Implements": self.implements}
        else:
            document = json.loads(body)
            for name in ("RequestBody", "ResponseBody"):
                if name in document:
                    document[name] = base64.b64decode(document[name])
            self.asked.append((method, document))
            answer = self.decide(method, document)
        data = json.dumps(answer).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        writer.close()

    @property
    def requests(self) -> list[dict[str, Any]]:
        return [document for method, document in self.asked if method.endswith("AuthZReq")]


Test = Callable[[FakeEngine, FakePlugin, str], Awaitable[None]]


@pytest.fixture
def guarded(tmp_path: Path) -> Callable[[Test], None]:
    async def run(test: Test) -> None:
        plugin, engine = FakePlugin(), FakeEngine()
        places = Places(sockets=(tmp_path,), files=())
        listening = await asyncio.start_unix_server(plugin.serve, tmp_path / "guard.sock")
        api = Api(cast(Any, engine))
        api.gates = (Authorization(await find_plugins(["guard"], places)),)
        factory = api.server()
        server = await asyncio.get_running_loop().create_unix_server(factory, tmp_path / "s")
        try:
            await test(engine, plugin, str(tmp_path / "s"))
        finally:
            server.close()
            listening.close()
            await factory.shutdown(1)

    return lambda test: asyncio.run(asyncio.wait_for(run(test), 20))


def test_what_a_plugin_is_sent(guarded: Callable[[Test], None]) -> None:
    """Names and values as dockerd 28.5 sends them."""

    async def test(engine: FakeEngine, plugin: FakePlugin, path: str) -> None:
        client = await Client.connect(path)
        client.writer.write(
            b"POST /v1.44/containers/create?name=x HTTP/1.1\r\nHost: d\r\nX-Registry-Auth: secret\r\n"
            b"Content-Type: application/json; charset=utf-8\r\nAuthorization: secret\r\nx-multi: 1\r\nX-Multi: 2\r\n"
            b"Content-Length: 13\r\n\r\n"
            b'{"Image":"i"}'
        )
        status, headers = await client.head()
        assert status == 201
        await client.body(status, headers)
        client.close()
        asked, answered = plugin.asked
        assert asked == (
            "AuthZPlugin.AuthZReq",
            {
                "RequestMethod": "POST",
                "RequestUri": "/v1.44/containers/create?name=x",
                "RequestBody": b'{"Image":"i"}',
                "RequestHeaders": {
                    "Content-Length": "13",
                    "Content-Type": "application/json; charset=utf-8",
                    "X-Multi": "2",
                },
            },
        )
        assert answered[0] == "AuthZPlugin.AuthZRes"
        assert answered[1]["ResponseStatusCode"] == 201
        assert json.loads(answered[1]["ResponseBody"])["Warnings"] == []
        assert answered[1]["ResponseHeaders"]["Content-Type"] == JSON
        assert "secret" not in str(plugin.asked)

    guarded(test)


@pytest.mark.parametrize(
    "request_bytes",
    [
        # CVE-2024-41110 and its kin: the body is there, whatever the head says of it.
        b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n" + b'{"Image":"forbidden"}'[:20],
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        + b'{"Image":"forbidden"'
        + b" " * (2 << 20)
        + b"}",
        b"content-type: APPLICATION/JSON;x=y\r\nContent-Length: 21\r\n\r\n" + b'{"Image":"forbidden"}',
        b"Expect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n"
        + b'{"Image":"forbidden"}',
    ],
    ids=["chunked", "large", "spelled", "expect"],
)
def test_no_body_gets_past(guarded: Callable[[Test], None], request_bytes: bytes) -> None:
    async def test(engine: FakeEngine, plugin: FakePlugin, path: str) -> None:
        plugin.decide = lambda method, document: {
            "Allow": b"forbidden" not in document.get("RequestBody", b""),
            "Msg": "no",
        }
        data = request_bytes
        if b"%d" in data:
            head, _, body = data.partition(b"\r\n\r\n")
            data = head % len(body) + b"\r\n\r\n" + body
        if b"chunked" in data:
            data += b"\r\n1\r\n}\r\n0\r\n\r\n"
        client = await Client.connect(path)
        client.writer.write(b"POST /containers/create?name=x HTTP/1.1\r\nHost: d\r\n" + data)
        status, headers = await client.head()
        if status == 100:
            status, headers = await client.head()
        answer = json.loads(await client.body(status, headers))
        client.close()
        assert (status, answer["message"]) == (403, "authorization denied by plugin guard: no")
        assert not engine.containers.made

    guarded(test)


def test_a_body_declared_empty_is_empty(guarded: Callable[[Test], None]) -> None:
    """What follows "Content-Length: 0" is a request of its own, and is asked about as one."""

    async def test(engine: FakeEngine, plugin: FakePlugin, path: str) -> None:
        smuggled = b"POST /containers/create?name=y HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
        smuggled += b"Content-Length: 13\r\n\r\n" + b'{"Image":"i"}'
        plugin.decide = lambda method, document: {"Allow": document["RequestUri"] != "/containers/create?name=y"}
        client = await Client.connect(path)
        client.writer.write(
            b"POST /containers/create?name=x HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
            b"Content-Length: 0\r\n\r\n" + smuggled
        )
        for expected in (400, 403):
            status, headers = await client.head()
            await client.body(status, headers)
            assert status == expected
        client.close()
        assert [each["RequestUri"] for each in plugin.requests] == [f"/containers/create?name={n}" for n in "xy"]
        assert not engine.containers.made

    guarded(test)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 21\r\nContent-Length: 0\r\n",
        b"Content-Length: 21\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Content-Length : 21\r\n",
        b"Content-Length: +21\r\n",
        b"X: y\r\n folded\r\nContent-Length: 21\r\n",
    ],
)
def test_requests_of_two_minds_are_refused(guarded: Callable[[Test], None], head: bytes) -> None:
    async def test(engine: FakeEngine, plugin: FakePlugin, path: str) -> None:
        for target in (b"/containers/create?name=x", b"/containers/x/attach", b"/exec/x/start"):
            client = await Client.connect(path)
            client.writer.write(
                b"POST " + target + b" HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n" + head + b"\r\n"
                b'{"Image":"forbidden"}'
            )
            status, _ = await client.head()
            client.close()
            assert status == 400
        assert not plugin.asked
        assert not engine.containers.made

    guarded(test)


@pytest.mark.parametrize(
    ("target", "asked"),
    [
        ("/containers/%63reate?name=x", "/containers/create?name=x"),
        ("/v1.41/containers/create?name=x", "/v1.41/containers/create?name=x"),
        ("http://d/containers/create?name=x", "/containers/create?name=x"),
    ],
)
def test_a_path_is_sent_as_it_is_understood(guarded: Callable[[Test], None], target: str, asked: str) -> None:
    async def test(engine: FakeEngine, plugin: FakePlugin, path: str) -> None:
        plugin.decide = lambda method, document: {"Allow": False}
        refused = await ask(path, "POST", target, b'{"Image":"i"}', Content_Type=JSON)
        assert refused.status == 403
        assert plugin.requests[0]["RequestUri"] == asked

    guarded(test)


@pytest.mark.parametrize("target", ["//containers/create", "/v1.41/../containers/create", "/./containers/create"])
def test_what_is_no_path_does_nothing(guarded: Callable[[Test], None], target: str) -> None:
    async def test(engine: FakeEngine, plugin: FakePlugin, path: str) -> None:
        assert (await ask(path, "POST", target, b'{"Image":"i"}', Content_Type=JSON)).status == 404
        assert not engine.containers.made

    guarded(test)


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        ({"Allow": False, "Msg": "not you"}, 403, "authorization denied by plugin guard: not you"),
        ({}, 403, "authorization denied by plugin guard: "),
        ({"Allow": "true"}, 403, "authorization denied by plugin guard: "),
        ({"Allow": 1}, 403, "authorization denied by plugin guard: "),
        ([], 403, "authorization denied by plugin guard: "),
        ({"Allow": True, "Err": "broken"}, 500, "plugin guard failed with error: AuthZPlugin.AuthZReq: "),
    ],
)
def test_only_a_yes_is_a_yes(guarded: Callable[[Test], None], answer: Any, status: int, message: str) -> None:
    async def test(engine: FakeEngine, plugin: FakePlugin, path: str) -> None:
        plugin.decide = lambda method, document: answer
        refused = await ask(path, "POST", "/containers/create", b'{"Image":"i"}', Content_Type=JSON)
        assert refused.status == status
        assert refused.message.startswith(message)
        assert not engine.containers.made
        assert len(plugin.asked) == 1

    guarded(test)


def test_an_answer_may_be_withheld(guarded: Callable[[Test], None]) -> None:
    async def test(engine: FakeEngine, plugin: FakePlugin, path: str) -> None:
        plugin.decide = lambda method, document: {"Allow": method.endswith("Req"), "Msg": "secret"}
        refused = await ask(path, "GET", "/version")
        assert (refused.status, refused.message) == (403, "authorization denied by plugin guard: secret")
        # A failure is told of, though.
        missing = await ask(path, "GET", "/containers/none/json")
        assert missing.status == 403
        assert plugin.asked[-1][1]["ResponseStatusCode"] == 404

    guarded(test)


def test_a_password_is_not_shown(guarded: Callable[[Test], None]) -> None:
    async def test(engine: FakeEngine, plugin: FakePlugin, path: str) -> None:
        for target in ("/auth", "/v1.44/auth", "/%61uth"):
            await ask(path, "POST", target, b'{"password":"secret"}', Content_Type=JSON)
        assert len(plugin.requests) == 3
        assert "secret" not in str(plugin.requests)

    guarded(test)


def test_a_plugin_that_is_not_there(tmp_path: Path, guarded: Callable[[Test], None]) -> None:
    async def test(engine: FakeEngine, plugin: FakePlugin, path: str) -> None:
        (tmp_path / "guard.sock").unlink()
        refused = await ask(path, "GET", "/version")
        assert refused.status == 500
        assert refused.message.startswith("plugin guard failed with error: AuthZPlugin.AuthZReq: ")

    guarded(test)


def test_a_plugin_of_another_trade(tmp_path: Path, guarded: Callable[[Test], None]) -> None:
    async def test(engine: FakeEngine, plugin: FakePlugin, path: str) -> None:
        plugin.implements = ["VolumeDriver"]
        with pytest.raises(WherryError, match=r"Error validating authorization plugin: .* does not implement 'authz'"):
            await find_plugins(["guard"], Places(sockets=(tmp_path,), files=()))
        with pytest.raises(WherryError, match='Error validating authorization plugin: plugin "none" not found'):
            await find_plugins(["none"], Places(sockets=(tmp_path,), files=()))

    guarded(test)
