"""Whatever a client sends, the daemon answers: no 500, no hang, no words of Python shown, nothing raised into its log.

Requests are made from the specification's own tables: every endpoint with every parameter and field, with values that
fit and values that do not. WHERRY_FUZZ_EXAMPLES makes the run longer and random (default: few, always the same ones).
"""

import contextlib
import http.client
import json
import os
import socket
import uuid
from collections.abc import Iterator
from typing import Any, get_args, get_origin, get_type_hints
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covered.answers import complaints
from covered.derive import DATA
from daemon import Daemon, busybox_tar
from wherry.spec import docker
from wherry.spec.decode import json_keys

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

_EXAMPLES = int(os.environ.get("WHERRY_FUZZ_EXAMPLES", "0"))
_SETTINGS = settings(
    max_examples=_EXAMPLES or 80,
    derandomize=not _EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
_SECONDS = 30
# They reach for the network, or go on for as long as their client likes.
_LEFT_OUT = ("/images/create", "/auth", "/build", "/session", "/images/search", "/distribution/", "/push", "/plugins/")
_ENDLESS = ("/attach", "/wait", "/stats", "/attach/ws", "/logs")


def _rows() -> list[tuple[str, str, str]]:
    lines = (DATA / "api.tsv").read_text(encoding="utf-8").splitlines()
    found = []
    for line in lines:
        kind, where, name = line.split("\t")
        if not any(part in where for part in _LEFT_OUT):
            found.append((kind, where, name))
    return found


_QUERY: dict[str, list[str]] = {}
_FILTERS: dict[str, list[str]] = {}
_BODY: dict[str, list[str]] = {}
for _kind, _where, _name in _rows():
    _QUERY.setdefault(_where, [])
    {"query": _QUERY, "filter": _FILTERS, "body": _BODY}.get(_kind, {}).setdefault(_where, []).append(_name)

_TEXTS = st.one_of(
    st.sampled_from(
        ["", "0", "-1", "1", "true", "x", "a=b", "/", "../../etc", "\x00", "ü\u202e", "%00", "{}", "[", "1e400", "10m"]
        + ["9" * 40, "-" * 300, "x" * 5000, "2020-01-01", "sha256:" + "0" * 64, "container:x", "host", "0.0.0.0:80"]
        + ["NaN", "busybox", "80/tcp", "1-99999", "rw,rslave", "ctrl-", "[1", "(?P<x", "(a+)+$", "\ud800", "c 1:5 rwm"]
    ),
    st.text(max_size=12),
)
_NUMBERS = st.one_of(st.sampled_from([0, 1, -1, 2**31, 2**63, -(2**63) - 1, 10**30]), st.integers(-5, 5000))
_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, st.floats(allow_nan=False, allow_infinity=False), _TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXTS, inner, max_size=3)),
    max_leaves=6,
)


def _fitting(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a document's type; now and then one that is not."""
    arguments = [argument for argument in get_args(annotation) if argument is not type(None)]
    origin = get_origin(annotation)
    if annotation in (str, int, bool, float):
        fitting: st.SearchStrategy[Any] = {str: _TEXTS, int: _NUMBERS, bool: st.booleans(), float: st.floats()}[
            annotation
        ]
    elif origin is tuple:
        fitting = st.lists(_fitting(arguments[0]), max_size=3)
    elif origin is not None and len(arguments) == 2:
        fitting = st.dictionaries(_TEXTS, _fitting(arguments[1]), max_size=3)
    elif arguments:
        return _fitting(arguments[0])
    elif hasattr(annotation, "__dataclass_fields__"):
        fitting = _document(annotation)
    else:
        fitting = _JSON
    return st.one_of(fitting, fitting, fitting, _JSON)


def _document(cls: type) -> st.SearchStrategy[dict[str, Any]]:
    hints, keys = get_type_hints(cls), json_keys(cls)
    return st.dictionaries(st.sampled_from(sorted(keys)), st.none(), max_size=5).flatmap(
        lambda chosen: st.fixed_dictionaries({keys[name]: _fitting(hints[name]) for name in chosen})
    )


class _Client:
    """Requests over one connection; each answer is checked."""

    def __init__(self, path: str, image: str) -> None:
        self._path = path
        self.image = image

    def request(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("d", timeout=_SECONDS)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(_SECONDS)
        connection.sock.connect(self._path)
        with contextlib.closing(connection):
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, target, data, {"Content-Type": "application/json"} if data is not None else {})
            answer = connection.getresponse()
            content = answer.read()
        assert answer.status < 500 or answer.status in (501, 503), (answer.status, content, target, body)
        if answer.status < 400 and method != "GET":
            wrong: list[str] = []
        else:
            wrong = complaints(method, target, answer.status, answer.headers, content)
        assert not wrong, (wrong, target, body)
        with contextlib.suppress(ValueError):
            return answer.status, json.loads(content)
        return answer.status, None


@pytest.fixture(scope="module")
def client() -> Iterator[_Client]:
    """Of a daemon of its own: nothing here must meet another test's containers."""
    made = Daemon()
    try:
        made.start()
        client = _Client(str(made.socket), "fuzz")
        connection = http.client.HTTPConnection("d", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(made.socket))
        with contextlib.closing(connection):
            connection.request("POST", "/images/create?fromSrc=-&repo=fuzz", busybox_tar().read_bytes())
            assert connection.getresponse().status == 200
        assert client.request("POST", "/containers/create?name=there", {"Image": "fuzz", "Cmd": ["true"]})[0] == 201
        yield client
        assert client.request("GET", "/_ping")[0] == 200
        made.stop()
        log = made.log_text()
    finally:
        made.remove()
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:4000]


@given(st.data())
@_SETTINGS
def test_parameters(client: _Client, data: st.DataObject) -> None:
    where = data.draw(st.sampled_from(sorted(_QUERY)))
    method, _, path = where.partition(" ")
    there = "there" if not path.endswith(_ENDLESS) else "nosuch"
    name = data.draw(st.sampled_from([there, there, "nosuch", "x" * 300, "%00", "..", "a/b", "ü"]))
    for parameter in ("{id}", "{name}"):
        path = path.replace(parameter, quote(name))
    given = {key: data.draw(_TEXTS) for key in data.draw(st.sets(st.sampled_from(_QUERY[where] or ["x"]), max_size=3))}
    if _FILTERS.get(where) and data.draw(st.booleans()):
        names = data.draw(st.sets(st.sampled_from([*_FILTERS[where], "nosuch"]), max_size=3))
        values = {key: data.draw(st.one_of(st.lists(_TEXTS, max_size=2), _JSON)) for key in names}
        given["filters"] = json.dumps(values)
    if "/events" in path:
        given["until"] = "1"
    query = "&".join(f"{key}={quote(value.encode('utf-8', 'surrogatepass'))}" for key, value in given.items())
    body = data.draw(_JSON) if method in ("POST", "PUT") and "archive" not in path else None
    client.request(method, f"{path}?{query}", body)


@given(st.data())
@_SETTINGS
def test_containers(client: _Client, data: st.DataObject) -> None:
    body = data.draw(_document(docker.ContainerConfig)) | {"Image": client.image, "Cmd": ["true"]}
    body["HostConfig"] = data.draw(_document(docker.HostConfig))
    if data.draw(st.booleans()):
        body["NetworkingConfig"] = data.draw(_document(docker.NetworkingConfig))
    status, answer = client.request("POST", f"/containers/create?name=f-{uuid.uuid4().hex}", body)
    if status == 201:
        assert client.request("GET", f"/containers/{answer['Id']}/json?size=1")[0] == 200
        assert client.request("GET", "/containers/json?all=1")[0] == 200
        client.request("POST", f"/containers/{answer['Id']}/update", data.draw(_document(docker.HostConfig)))
        assert client.request("DELETE", f"/containers/{answer['Id']}?v=1&force=1")[0] == 204


@given(_document(docker.ExecConfig))
@_SETTINGS
def test_execs(client: _Client, body: dict[str, Any]) -> None:
    client.request("POST", "/containers/there/exec", body)


_HEADS = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda method, target, fields: b"%b %b HTTP/1.1\r\n%b\r\n\r\n" % (method, target, b"\r\n".join(fields)),
        st.sampled_from([b"GET", b"POST", b"PUT", b"X", b"get", b""]),
        st.sampled_from(
            [b"/_ping", b"/v1.99/_ping", b"/v1./info", b"*", b"//", b"/containers/%zz/json", b"http://[/x"]
        ),
        st.lists(
            st.sampled_from(
                [b"Host: d", b"Content-Length: -1", b"Content-Length: 9999999999999999999999", b"Transfer-Encoding: x"]
                + [b"Transfer-Encoding: chunked", b"Upgrade: h2c", b"Connection: Upgrade", b": x", b"\x00: y", b"Host:"]
            ),
            max_size=4,
        ),
    ),
)


@given(_HEADS)
@_SETTINGS
def test_bytes(client: _Client, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_SECONDS)
        connection.connect(client._path)
        answer = b""
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                answer += part
    assert b" 500 " not in answer.partition(b"\r\n")[0]
    assert b"Traceback" not in answer
