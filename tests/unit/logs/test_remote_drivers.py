"""Each driver against a fake of its other side: formats, acknowledgement, what happens when the connection breaks."""

import json
import os
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from log_collectors import Chunks, Splunk, counted, datagram_server, forwarded, lines, stream_server, zeros
from wherry.errors import Unavailable
from wherry.logs.backlog import Message, Partial
from wherry.logs.remote import journald
from wherry.logs.remote.driver import Context, Driver, make
from wherry.logs.remote.entry import decode, encode

NS = 1_700_000_000_123_456_789
INFO = {
    "ContainerID": "0123456789abcdef" * 4,
    "ContainerName": "/web",
    "ContainerEntrypoint": "sh",
    "ContainerArgs": ["-c", "true"],
    "ContainerImageID": "sha256:" + "fe" * 32,
    "ContainerImageName": "busybox:1",
    "ContainerCreated": "2026-01-01T00:00:00Z",
    "ContainerEnv": ["COLOUR=blue", "SECRET=1"],
    "ContainerLabels": {"com.acme.team": "a", "other": "b"},
    "DaemonName": "docker",
}
CHOICE = {"labels-regex": "^com", "env": "COLOUR", "tag": "{{.Name}}/{{.ID}}"}
OUT = Message("stdout", NS, b"hello")
ERR = Message("stderr", NS + 10**9, "wörld".encode())
PIECE = Message("stdout", NS, b"x" * 16384, Partial("ab" * 32, 1, False))
REST = Message("stdout", NS, b"y", Partial("ab" * 32, 2, True))


def driver(name: str, tmp_path: Path, **options: str) -> Driver:
    chosen = {key.replace("_", "-"): value for key, value in options.items()}
    return make(Context(name, INFO, chosen, tmp_path))


def deliver(made: Driver, *messages: Message) -> None:
    made.connect()
    made.send(messages)
    made.finish()


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_syslog_forms(tmp_path: Path) -> None:
    host, pid = socket.gethostname(), os.getpid()
    expected = {
        "": f"<30>Nov 14 22:13:20 web[{pid}]: hello",
        "rfc3164": f"<30>Nov 14 22:13:20 {host} web[{pid}]: hello",
        "rfc5424": f"<30>1 2023-11-14T22:13:20Z {host} web {pid} web - hello",
        "rfc5424micro": f"<30>1 2023-11-14T22:13:20.123456Z {host} web {pid} web - hello",
    }
    for format, line in expected.items():
        with stream_server("127.0.0.1", lines) as server:
            made = driver("syslog", tmp_path, syslog_address=server.address, syslog_format=format, tag="{{.Name}}")
            deliver(made, OUT, ERR)
            first, second = server.wait(2)
            assert first.decode() == line
            assert second.startswith(b"<27>")
            assert second.endswith("wörld".encode())


def test_syslog_by_datagrams_and_facility(tmp_path: Path) -> None:
    with datagram_server("127.0.0.1", lambda data: data) as server:
        deliver(driver("syslog", tmp_path, syslog_address=server.address, syslog_facility="local3"), OUT)
        assert server.wait(1)[0].startswith(b"<158>")
    with datagram_server("", lambda data: data, path=str(tmp_path / "log")) as server:
        deliver(driver("syslog", tmp_path, syslog_address=server.address), OUT, ERR)
        assert [re.sub(rb".*: ", b"", data) for data in server.wait(2)] == [b"hello\n", "wörld\n".encode()]
    with stream_server("", lines, path=str(tmp_path / "stream")) as server:
        deliver(driver("syslog", tmp_path, syslog_address=server.address), OUT)
        assert server.wait(1)[0].endswith(b"hello")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        + [
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout",
            path / "key.pem",
            "-out",
            path / "cert.pem",
        ],
        check=True,
        capture_output=True,
    )
    return path


def test_syslog_over_tls(tmp_path: Path, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    with stream_server("127.0.0.1", counted, tls=context) as server:
        address = server.address.replace("tcp://", "tcp+tls://")
        with pytest.raises(OSError, match="certificate"):
            driver("syslog", tmp_path, syslog_address=address).connect()
        made = driver(
            "syslog",
            tmp_path,
            syslog_address=address,
            syslog_format="rfc5424",
            **{"syslog-tls-ca-cert": str(certificate / "cert.pem")},
        )
        deliver(made, OUT, ERR)
        assert [data[-6:] for data in server.wait(2)] == [b"hello\n", "örld\n".encode()]
        options = {"syslog-address": address, "syslog-tls-skip-verify": "1", "syslog-format": "rfc5424micro"}
        deliver(driver("syslog", tmp_path, **options), OUT)
        assert server.wait(3)[2].endswith(b"hello\n")


def test_syslog_notices_that_the_other_side_has_gone(tmp_path: Path) -> None:
    with stream_server("127.0.0.1", lines) as server:
        made = driver("syslog", tmp_path, syslog_address=server.address)
        made.connect()
        made.send([OUT])
        server.wait(1)
        server.cut()
        made.send([ERR])
        assert server.wait(2)[1].endswith("wörld".encode())
        made.finish()
    with pytest.raises(OSError, match="refused"):
        driver("syslog", tmp_path, syslog_address=server.address).connect()


def fields(data: bytes) -> dict[str, bytes]:
    found = {}
    while data:
        head, _, rest = data.partition(b"\n")
        if b"=" in head:
            name, _, value = head.partition(b"=")
        else:
            size = int.from_bytes(rest[:8], "little")
            name, value, rest = head, rest[8 : 8 + size], rest[9 + size :]
        found[name.decode()] = value
        data = rest
    return found


def test_journald(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journald, "SOCKET", str(tmp_path / "journal"))
    monkeypatch.setattr(journald, "_INLINE", 10_000)
    with pytest.raises(OSError, match="journald is not enabled"):
        driver("journald", tmp_path).connect()
    with datagram_server("", fields, path=str(tmp_path / "journal")) as server:
        deliver(driver("journald", tmp_path, **CHOICE), OUT, ERR, PIECE, REST)
        first, second, third, last = server.wait(4)
    assert first["MESSAGE"] == b"hello"
    assert (first["PRIORITY"], second["PRIORITY"]) == (b"6", b"3")
    assert first["CONTAINER_TAG"] == first["SYSLOG_IDENTIFIER"] == b"web/0123456789ab"
    assert first["CONTAINER_ID_FULL"].decode() == INFO["ContainerID"]
    assert first["COM_ACME_TEAM"] == b"a"
    assert first["COLOUR"] == b"blue"
    assert first["SYSLOG_TIMESTAMP"] == b"2023-11-14T22:13:20.123456789Z"
    assert third["CONTAINER_PARTIAL_MESSAGE"] == b"true"
    assert third["MESSAGE"] == PIECE.line
    assert last["CONTAINER_PARTIAL_LAST"] == b"true"
    assert [item["CONTAINER_LOG_ORDINAL"] for item in (first, second, third, last)] == [b"1", b"2", b"3", b"4"]


def test_fluentd(tmp_path: Path) -> None:
    with stream_server("127.0.0.1", forwarded) as server:
        made = driver(
            "fluentd", tmp_path, fluentd_address=server.address, fluentd_sub_second_precision="true", **CHOICE
        )
        deliver(made, OUT, ERR, PIECE)
        (tag, at, record, _), second, third = server.wait(3)
    assert tag == "web/0123456789ab"
    assert at == ("time", 1_700_000_000, 123_456_789)
    assert record == {
        "container_id": INFO["ContainerID"],
        "container_name": "/web",
        "com.acme.team": "a",
        "COLOUR": "blue",
        "source": "stdout",
        "log": "hello",
    }
    assert (second[2]["source"], second[2]["log"]) == ("stderr", "wörld")
    assert third[2]["partial_message"] == "true"
    assert third[2]["partial_last"] == "false"


def test_fluentd_acknowledgement(tmp_path: Path) -> None:
    from wherry.logs.remote.msgpack import pack

    wrong = iter([True, False])

    def answer(connection: socket.socket, event: Any) -> None:
        connection.sendall(pack({"ack": "other" if next(wrong) else event[3]["chunk"]}))

    with stream_server("", forwarded, path=str(tmp_path / "s"), answer=answer) as server:
        made = driver("fluentd", tmp_path, fluentd_address=server.address, fluentd_request_ack="1")
        with pytest.raises((Unavailable, OSError)):
            deliver(made, OUT)
        made.disconnect()
        deliver(made, OUT)
    asynchronous = driver("fluentd", tmp_path, fluentd_address="tcp://127.0.0.1:1", fluentd_async="true")
    asynchronous.connect()
    with pytest.raises(OSError, match=r"dial tcp 127\.0\.0\.1:1: connect: connection refused"):
        asynchronous.send([OUT])


@pytest.mark.parametrize("compression", ["gzip", "zlib", "none"])
def test_gelf_by_datagrams(tmp_path: Path, compression: str) -> None:
    long = Message("stdout", NS, os.urandom(6000).hex().encode())
    with datagram_server("127.0.0.1", Chunks()) as server:
        made = driver("gelf", tmp_path, gelf_address=server.address, gelf_compression_type=compression, **CHOICE)
        deliver(made, OUT, ERR, long)
        first, second, third = server.wait(3)
    assert first == {
        "version": "1.1",
        "host": socket.gethostname(),
        "short_message": "hello",
        "timestamp": 1700000000.123,
        "level": 6,
        "_container_id": INFO["ContainerID"],
        "_container_name": "web",
        "_image_id": INFO["ContainerImageID"],
        "_image_name": "busybox:1",
        "_command": "sh -c true",
        "_tag": "web/0123456789ab",
        "_created": "2026-01-01T00:00:00Z",
        "_com.acme.team": "a",
        "_COLOUR": "blue",
    }
    assert (second["level"], second["short_message"]) == (3, "wörld")
    assert third["short_message"] == long.line.decode()


def test_gelf_over_tcp(tmp_path: Path) -> None:
    with stream_server("127.0.0.1", zeros) as server:
        deliver(driver("gelf", tmp_path, gelf_address=server.address), OUT, ERR)
        assert [message["short_message"] for message in server.wait(2)] == ["hello", "wörld"]


def test_splunk(tmp_path: Path) -> None:
    with Splunk("127.0.0.1", "T") as server:
        options = {"splunk-url": server.collector.address, "splunk-token": "T", "splunk-index": "main", **CHOICE}
        deliver(driver("splunk", tmp_path, splunk_gzip="true", **options), OUT, ERR)
        first, second = server.collector.wait(2)
        assert first["event"] == {
            "line": "hello",
            "source": "stdout",
            "tag": "web/0123456789ab",
            "attrs": {"com.acme.team": "a", "COLOUR": "blue"},
        }
        assert (first["time"], first["index"]) == ("1700000000.123456", "main")
        assert second["event"]["source"] == "stderr"
        assert [(method, path) for method, path, _ in server.requests] == [
            ("OPTIONS", "/services/collector/event/1.0"),
            ("POST", "/services/collector/event/1.0"),
        ]
        document = Message("stdout", NS, b'{"a": [1]}')
        deliver(driver("splunk", tmp_path, splunk_format="json", **options), document, OUT)
        assert [event["event"]["line"] for event in server.collector.wait(4)[2:]] == [{"a": [1]}, "hello"]
        deliver(driver("splunk", tmp_path, splunk_format="raw", **options), OUT, Message("stdout", NS, b"  "))
        assert server.collector.wait(5)[4]["event"] == "web/0123456789ab com.acme.team=a COLOUR=blue hello"
        with pytest.raises(Unavailable, match="401"):
            driver("splunk", tmp_path, **{**options, "splunk-token": "wrong"}).send([OUT])
    with Splunk("127.0.0.1", "T", failures=1) as server:
        made = driver("splunk", tmp_path, **{**options, "splunk-url": server.collector.address})
        with pytest.raises(Unavailable, match="503"):
            made.send([OUT])
        made.send([OUT])
        made.finish()
        assert len(server.collector.received) == 1


def test_entries_of_plugins() -> None:
    for message in (OUT, ERR, PIECE, REST):
        data = encode(message)
        assert int.from_bytes(data[:4], "big") == len(data) - 4
        assert decode(data[4:]) == message
    # As protoc encodes LogEntry{source: "stdout", time_nano: 300, line: "hi", partial: true}.
    raw = bytes.fromhex("0a067374646f757410ac021a0268692001")
    assert decode(raw) == Message("stdout", 300, b"hi", Partial("", 0, False))
    assert encode(Message("stdout", 300, b"hi"))[4:] == raw[:-2]
    for broken in (b"\x0a\xff", b"\x0a\x05ab", b"\x0b", b"\xff" * 20):
        with pytest.raises(ValueError):
            decode(broken)


def test_cloud_lines_become_events(tmp_path: Path) -> None:
    stamp = {"awslogs_group": "g", "awslogs_region": "eu-west-1"}
    made: Any = driver("awslogs", tmp_path, awslogs_datetime_format="[%b %d, %Y %H:%M:%S]", **stamp)
    put: list[Any] = []
    made._put = put.extend
    texts = [b"[May 01, 2017 19:00:01] one", b"  more", b"[May 01, 2017 19:00:04] two"]
    made.send([Message("stdout", NS + index * 10**6, text) for index, text in enumerate(texts)])
    made.finish()
    assert [event["message"] for event in put] == ["[May 01, 2017 19:00:01] one\n  more\n", texts[2].decode() + "\n"]
    plain: Any = driver("awslogs", tmp_path, **stamp)
    batches: list[Any] = []
    plain._put = lambda batch: batches.append(list(batch))
    plain.send([Message("stdout", NS, b"x" * 300_000)] * 5)
    assert sum(len(event["message"]) for batch in batches for event in batch) == 1_500_000
    for batch in batches:
        assert sum(len(event["message"]) + 26 for event in batch) <= 1_048_576
    assert json.dumps(batches[0][0]["timestamp"]) == str(NS // 10**6)
