"""Discovery and calls, against a server that says what it is told to."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from wherry.errors import FailedPrecondition, Internal, InvalidArgument, NotFound, Unavailable
from wherry.plugins import Address, Places, Plugin, activate, activate_async, discover


@contextmanager
def serving(path: Path, reply: Callable[[str, bytes], bytes]) -> Iterator[list[tuple[str, bytes]]]:
    """A plugin at `path`: `reply(request line's path, body)` gives the raw bytes of an answer."""
    asked: list[tuple[str, bytes]] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(8)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as file:
                method, target, _ = file.readline().decode().split()
                assert method == "POST"
                length = 0
                while (line := file.readline()) not in (b"\r\n", b""):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                body = file.read(length)
                asked.append((target, body))
                try:
                    connection.sendall(reply(target, body))
                except OSError:
                    pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def answer(document: Any, status: str = "200 OK") -> bytes:
    data = json.dumps(document).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def chunked(*pieces: bytes) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


def both(plugin: Plugin, method: str, body: Any = None, **options: Any) -> Any:
    """The same answer, or the same kind of error, from the blocking and the asyncio call."""
    results: list[Any] = []
    for call in (plugin.call, lambda *a, **o: asyncio.run(plugin.call_async(*a, **o))):
        try:
            results.append(call(method, body, **options))
        except (Unavailable, Internal) as error:
            results.append(error)
    first, second = results
    if isinstance(first, Exception):
        assert type(second) is type(first)
        raise first
    assert first == second
    return first


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places((tmp_path / "run",), (tmp_path / "etc", tmp_path / "lib"))


def test_discovery(places: Places) -> None:
    run, etc, lib = places.sockets[0], *places.files
    for directory in (run / "own", etc, lib / "deep"):
        directory.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(run / "own" / "own.sock"))
        (etc / "own.spec").write_text("tcp://ignored:1")
        assert discover("own", places) == Address(name="own", path=str(run / "own" / "own.sock"))
    (etc / "far.spec").write_text("tcp://10.0.0.1:8080\n")
    (lib / "far.spec").write_text("tcp://10.0.0.2:8080")
    assert discover("far", places) == Address(name="far", host="10.0.0.1", port=8080)
    (lib / "deep" / "deep.json").write_text(
        json.dumps({"Name": "deep", "Addr": "https://h/x/", "TLSConfig": {"CAFile": "/ca", "CertFile": "/c"}})
    )
    found = discover("deep", places)
    assert found == Address(name="deep", host="h", port=443, prefix="/x", tls=True, ca="/ca", cert="/c")
    (etc / "unix.spec").write_text("unix:///other.sock")
    assert discover("unix", places).path == "/other.sock"


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 200, "no\nline", "absent"])
def test_names_cannot_leave_the_directory(places: Places, name: str) -> None:
    with pytest.raises(NotFound, match="not found"):
        discover(name, places)


@pytest.mark.parametrize("text", ["", "ftp://x:1", "tcp://x", "tcp://x:99999999", "unix://"])
def test_addresses_that_are_none(places: Places, text: str) -> None:
    places.files[0].mkdir()
    (places.files[0] / "p.spec").write_text(text)
    with pytest.raises(InvalidArgument):
        discover("p", places)


def test_handshake(tmp_path: Path) -> None:
    address = Address(name="p", path=str(tmp_path / "s"))
    with serving(tmp_path / "s", lambda path, body: answer({"Implements": ["LogDriver"]})) as asked:
        assert activate(address, "LogDriver").implements == ("LogDriver",)
        assert asyncio.run(activate_async(address, "LogDriver")).name == "p"
        assert asked == [("/Plugin.Activate", b"")] * 2
        with pytest.raises(FailedPrecondition, match="does not implement"):
            activate(address, "VolumeDriver")


def test_a_plugin_that_starts_late_is_waited_for(tmp_path: Path) -> None:
    address = Address(name="late", path=str(tmp_path / "s"))
    with pytest.raises(Unavailable, match="does not answer"):
        activate(address, "authz", patience=0)
    started = threading.Event()

    def begin() -> None:
        with serving(tmp_path / "s", lambda path, body: answer({"Implements": ["authz"]})):
            started.wait(20)

    thread = threading.Timer(0.05, begin)
    thread.start()
    try:
        assert activate(address, "authz", patience=10).implements == ("authz",)
    finally:
        started.set()
        thread.join()


def test_calls(tmp_path: Path) -> None:
    plugin = Plugin(Address(name="p", path=str(tmp_path / "s"), prefix="/v"))
    replies = {
        "/v/A": lambda body: answer({"got": json.loads(body)}),
        "/v/Chunked": lambda body: chunked(b'{"a":', b'"' + b"x" * 70000 + b'"}'),
        "/v/Close": lambda body: b"HTTP/1.0 200 OK\r\n\r\n{}",
        "/v/Empty": lambda body: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "/v/Err": lambda body: answer({"Err": "no such volume"}),
        "/v/500": lambda body: answer({"Err": "broken"}, "500 Oops"),
        "/v/Text": lambda body: b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope",
    }
    with serving(tmp_path / "s", lambda path, body: replies[path](body)):
        assert both(plugin, "A", {"x": 1}) == {"got": {"x": 1}}
        assert len(both(plugin, "Chunked")["a"]) == 70000
        assert both(plugin, "Close") == {}
        assert both(plugin, "Empty") == {}
        for method, words in (("Err", "no such volume"), ("500", "status 500: broken"), ("Text", "404: nope")):
            with pytest.raises(Internal, match=words):
                both(plugin, method)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2_000_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{{{",
    ],
)
def test_answers_of_an_enemy(tmp_path: Path, raw: bytes) -> None:
    plugin = Plugin(Address(name="p", path=str(tmp_path / "s")))
    with serving(tmp_path / "s", lambda path, body: raw):
        with pytest.raises(Unavailable):
            both(plugin, "M", limit=1 << 20)


def test_silence_ends(tmp_path: Path) -> None:
    plugin = Plugin(Address(name="p", path=str(tmp_path / "s")))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with pytest.raises(Unavailable, match="no answer in time"):
            both(plugin, "M", timeout=0.05)


def test_streams(tmp_path: Path) -> None:
    plugin = Plugin(Address(name="p", path=str(tmp_path / "s")))
    with serving(tmp_path / "s", lambda path, body: chunked(b"one", b"two")):
        with plugin.stream("LogDriver.ReadLogs") as body:
            assert (body.read(2), body.read(9), body.read(9), body.read(9)) == (b"on", b"e", b"two", b"")
