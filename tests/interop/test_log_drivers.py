"""Log drivers of the engine under test, delivering to fakes on this machine; `logs` reads with every one of them."""

import contextlib
import json
import os
import re
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon import PEER, PEER_ADDRESS, Daemon, wait_until
from engine_client import Api, unframe
from log_collectors import Chunks, Collector, Splunk, datagram_server, forwarded, lines, stream_server, zeros

SCRIPT = "echo one; sleep 0.05; echo two >&2"
ours_only = pytest.mark.skipif(bool(PEER), reason="looks inside our own daemon")


def here() -> str:
    """An address of this machine that the engine under test reaches."""
    if not PEER:
        return "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((PEER_ADDRESS, 9))
        return str(probe.getsockname()[0])


def log_config(driver: str, **options: str) -> dict[str, Any]:
    return {
        "HostConfig": {"LogConfig": {"Type": driver, "Config": {k.replace("_", "-"): v for k, v in options.items()}}}
    }


def output(api: Api, name: str, query: str = "stdout=1&stderr=1") -> dict[str, bytes]:
    answer = api.get(f"/containers/{name}/logs?{query}")
    assert answer.status == 200, answer.body
    return unframe(answer.body)


def run_to_end(api: Api, name: str, image: str, config: dict[str, Any], script: str = SCRIPT) -> None:
    api.run(name, Image=image, Cmd=["sh", "-c", script], Labels={"team": "a"}, Env=["COLOUR=blue"], **config)
    assert api.wait(name) == 0


def syslog_text(data: bytes) -> str:
    return data.decode().rstrip("\n")


@contextlib.contextmanager
def place(kind: str) -> Iterator[tuple[str, dict[str, str], Collector, Callable[[Any], tuple[bool, str, str]]]]:
    """A fake: driver, options, what collects, and of one message: (is it of stderr, text, tag)."""
    host = here()
    if kind.startswith("syslog-"):
        server = datagram_server(host, syslog_text) if kind == "syslog-udp" else stream_server(host, lines)
        with server as collector:

            def parse(message: Any) -> tuple[bool, str, str]:
                text = message if isinstance(message, str) else message.decode()
                found = re.fullmatch(r"<(\d+)>.* ([-\w/]+)\[\d+\]: (.*)", text)
                assert found, text
                return found[1] == "27", found[3], found[2]

            yield "syslog", {"syslog-address": collector.address}, collector, parse
    elif kind == "fluentd":
        with stream_server(host, forwarded) as collector:
            yield (
                "fluentd",
                {"fluentd-address": collector.address, "labels": "team", "env": "COLOUR"},
                collector,
                lambda m: (
                    m[2]["source"] == "stderr",
                    m[2]["log"],
                    m[0] if m[2]["team"] + m[2]["COLOUR"] == "ablue" else "",
                ),
            )
    elif kind.startswith("gelf-"):
        made = datagram_server(host, Chunks()) if kind == "gelf-udp" else stream_server(host, zeros)
        with made as collector:
            yield (
                "gelf",
                {"gelf-address": collector.address},
                collector,
                lambda m: (m["level"] == 3, m["short_message"], m["_tag"]),
            )
    else:
        with Splunk(host, "token") as splunk:
            yield (
                "splunk",
                {"splunk-url": splunk.collector.address, "splunk-token": "token"},
                splunk.collector,
                lambda m: (m["event"]["source"] == "stderr", m["event"]["line"], m["event"]["tag"]),
            )


KINDS = ["syslog-udp", "syslog-tcp", "fluentd", "gelf-udp", "gelf-tcp", "splunk"]


@pytest.mark.parametrize("kind", KINDS)
def test_delivery_and_dual_logging(api: Api, name: str, image: str, kind: str) -> None:
    with place(kind) as (driver, options, collector, parse):
        run_to_end(api, name, image, log_config(driver, tag="t/{{.Name}}", **options))
        assert sorted(map(parse, collector.wait(2))) == [(False, "one", f"t/{name}"), (True, "two", f"t/{name}")]
        assert output(api, name) == {"stdout": b"one\n", "stderr": b"two\n"}
        assert output(api, name, "stdout=1&stderr=1&tail=1") == {"stdout": b"", "stderr": b"two\n"}
        inspected = api.get(f"/containers/{name}/json").json
        assert inspected["HostConfig"]["LogConfig"]["Type"] == driver
        assert inspected["LogPath"] == ""


def test_without_the_copy_there_is_nothing_to_read(api: Api, name: str, image: str) -> None:
    with place("syslog-tcp") as (driver, options, collector, _):
        run_to_end(api, name, image, log_config(driver, **options, **{"cache-disabled": "true"}))
        collector.wait(2)
        answer = api.get(f"/containers/{name}/logs?stdout=1&stderr=1")
        assert answer.status in (500, 501)
        assert "does not support reading" in answer.message


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("syslog", {"syslog-address": "tcp://HOST:1"}),
        ("fluentd", {"fluentd-address": "HOST:1"}),
        ("gelf", {"gelf-address": "tcp://HOST:1"}),
        ("splunk", {"splunk-url": "http://HOST:1", "splunk-token": "x"}),
    ],
)
def test_a_place_that_is_not_there_fails_the_start(
    api: Api, name: str, image: str, driver: str, options: dict[str, str]
) -> None:
    options = {key: value.replace("HOST", here()) for key, value in options.items()}
    id = api.create(name, Image=image, Cmd=["true"], **log_config(driver, **options))
    answer = api.post(f"/containers/{id}/start")
    assert answer.status == 500
    assert "failed to initialize logging driver" in answer.message
    assert not api.get(f"/containers/{id}/json").json["State"]["Running"]


@pytest.mark.parametrize("driver", ["local", "json-file"])
def test_files(api: Api, name: str, image: str, driver: str) -> None:
    config = log_config(
        driver, max_size="20k", max_file="3", compress="true", mode="non-blocking", max_buffer_size="4m"
    )
    script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done"
    run_to_end(api, name, image, config, script)
    found = output(api, name)["stdout"].split(b"\n")[:-1]
    assert found[-1] == b"line 1999"
    assert found == [b"line %d" % number for number in range(2000 - len(found), 2000)]
    assert output(api, name, "stdout=1&tail=3")["stdout"] == b"line 1997\nline 1998\nline 1999\n"


def test_details(api: Api, name: str, image: str) -> None:
    config = log_config("json-file", labels="team", env_regex="^COL", tag="{{.Name}}")
    run_to_end(api, name, image, config, "echo one")
    shown = output(api, name, "stdout=1&details=1")["stdout"]
    assert shown == b"COLOUR=blue,tag=%s,team=a one\n" % name.encode()


def test_none_keeps_nothing(api: Api, name: str, image: str) -> None:
    run_to_end(api, name, image, log_config("none"))
    assert api.get(f"/containers/{name}/logs?stdout=1").status in (500, 501)


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("bogus", {}, 'error looking up logging plugin bogus: plugin "bogus" not found'),
        ("json-file", {"nonsense": "1"}, "unknown log opt 'nonsense' for json-file log driver"),
        ("local", {"tag": "x"}, "unknown log opt 'tag' for local log driver"),
        ("syslog", {"syslog-address": "ftp://x:1"}, "syslog-address should be in form proto://address"),
        ("syslog", {"syslog-facility": "nowhere"}, "invalid syslog facility"),
        ("syslog", {"fluentd-address": "x"}, "unknown log opt 'fluentd-address' for syslog log driver"),
        ("fluentd", {"fluentd-async": "perhaps"}, "perhaps"),
        ("fluentd", {"fluentd-address": "ftp://x"}, "ftp"),
        ("gelf", {}, "gelf-address"),
        ("gelf", {"gelf-address": "tcp://x:1", "gelf-compression-type": "gzip"}, "compression"),
        ("gelf", {"gelf-address": "udp://x:1", "gelf-compression-level": "11"}, "gelf-compression-level"),
        ("splunk", {"splunk-nonsense": "http://x:1"}, "unknown log opt 'splunk-nonsense'"),
        ("json-file", {"mode": "sometimes"}, "logging mode not supported: sometimes"),
        ("json-file", {"max-buffer-size": "1m"}, "only supported with 'mode=non-blocking'"),
        ("json-file", {"mode": "non-blocking", "max-buffer-size": "x"}, "max-buffer-size"),
        ("journald", {"max-size": "1m"}, "unknown log opt 'max-size' for journald log driver"),
        ("awslogs", {"awslogs-nonsense": "1"}, "unknown log opt 'awslogs-nonsense'"),
    ],
)
def test_options_that_are_refused(
    api: Api, name: str, image: str, driver: str, options: dict[str, str], words: str
) -> None:
    answer = api.post(
        f"/containers/create?name={name}", {"Image": image, "Cmd": ["true"], **log_config(driver, **options)}
    )
    assert answer.status == 400, answer.body
    assert words in answer.message


@ours_only
def test_a_cloud_driver_without_its_library_names_the_extra(api: Api, name: str, image: str) -> None:
    if any(Path(path, "boto3").is_dir() for path in __import__("sys").path):
        pytest.skip("boto3 is installed")
    config = log_config("awslogs", awslogs_group="g", awslogs_region="eu-west-1")
    answer = api.post(f"/containers/create?name={name}", {"Image": image, "Cmd": ["true"], **config})
    assert answer.status == 409
    assert "pip install 'wherry[awslogs]'" in answer.message


@ours_only
def test_a_shipper_that_dies_goes_on_where_it_was(daemon: Daemon, api: Api, name: str, image: str) -> None:
    with stream_server("127.0.0.1", lines) as collector:
        script = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.005; done"
        config = log_config("syslog", syslog_address=collector.address)
        api.run(name, Image=image, Cmd=["sh", "-c", script], **config)
        for count in (50, 150):
            collector.wait(count)
            lock = daemon.exec_root / "shipper.lock"
            pid = int(lock.read_text())
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: lock.read_text() not in ("", str(pid)), 20, "another shipper")  # noqa: B023
        assert api.wait(name) == 0

        def numbers() -> set[int]:
            return {int(text.rpartition(b" ")[2]) for text in list(collector.received)}

        wait_until(lambda: numbers() == set(range(300)), 20, "all lines")
        # What was sent and not noted as sent when it died comes twice.
        assert len(collector.received) < 450


@ours_only
def test_a_slow_place_stops_nobody_else(daemon: Daemon, api: Api, name: str, image: str) -> None:
    """It takes nothing at all; the container it belongs to goes on until its files are full, the other one at once."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        config = log_config(
            "syslog",
            syslog_address=f"tcp://127.0.0.1:{listener.getsockname()[1]}",
            cache_max_size="1m",
            cache_max_file="2",
        )
        api.run(name, Image=image, Cmd=["sh", "-c", "yes 0123456789 | head -c 40000000"], **config)
        try:
            other = f"{name}-other"
            api.run(other, Image=image, Cmd=["sh", "-c", "yes | head -c 3000000"])
            try:
                assert api.wait(other) == 0
                assert len(output(api, other, "stdout=1&tail=5")["stdout"]) == 10
            finally:
                api.delete(f"/containers/{other}?force=1")
            assert api.get(f"/containers/{name}/json").json["State"]["Running"]
            directory = daemon.data_root / "containers"
            kept = sum(file.stat().st_size for file in directory.glob("*/local-logs/*"))
            assert kept < 3 << 20
        finally:
            connection, _ = listener.accept()
            received = [0]

            def take() -> None:
                with connection:
                    while data := connection.recv(1 << 20):
                        received[0] += data.count(b"\n")

            taking = threading.Thread(target=take)
            taking.start()
            try:
                assert api.wait(name) == 0
                wait_until(lambda: received[0] >= 40000000 // 11, 60, "everything is delivered")
            finally:
                api.delete(f"/containers/{name}?force=1")
                taking.join()


class Plugin:
    """A log-driver plugin at a unix socket, which keeps entries and gives them back."""

    def __init__(self, name: str) -> None:
        self.path = Path("/run/docker/plugins") / f"{name}.sock"
        self.asked: list[tuple[str, Any]] = []
        self.data = b""
        self._readers: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "Plugin":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.path.unlink(missing_ok=True)
        self._thread.join()
        for reader in self._readers:
            reader.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as file:
                path = file.readline().split()[1].decode()
                length = 0
                while (line := file.readline()) not in (b"\r\n", b""):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                body = file.read(length)
                self.asked.append((path, json.loads(body) if body else None))
                reply = self._reply(path)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(reply), reply))

    def _reply(self, path: str) -> bytes:
        if path == "/Plugin.Activate":
            return b'{"Implements": ["LogDriver"]}'
        if path == "/LogDriver.Capabilities":
            return b'{"Cap": {"ReadLogs": true}}'
        if path == "/LogDriver.ReadLogs":
            return self.data
        if path == "/LogDriver.StartLogging":
            self._readers.append(threading.Thread(target=self._take, args=(self.asked[-1][1]["File"],)))
            self._readers[-1].start()
        elif path == "/LogDriver.StopLogging":
            self._readers[-1].join()
        return b"{}"

    def _take(self, fifo: str) -> None:
        with open(fifo, "rb") as file:
            while data := file.read1(65536):
                self.data += data


@ours_only
def test_a_plugin_is_given_entries_and_gives_them_back(api: Api, name: str, image: str) -> None:
    from wherry.logs.remote.entry import decode

    driver = f"wt-{uuid.uuid4().hex[:8]}"
    with Plugin(driver) as plugin:
        run_to_end(api, name, image, log_config(driver, anything="goes", cache_disabled="true"))
        wait_until(lambda: "/LogDriver.StopLogging" in [path for path, _ in plugin.asked], 20, "the plugin is told")
        asked = dict(plugin.asked)
        info = asked["/LogDriver.StartLogging"]["Info"]
        assert info["ContainerName"] == f"/{name}"
        assert info["Config"]["anything"] == "goes"
        assert not Path(asked["/LogDriver.StartLogging"]["File"]).exists()
        entries, data = [], plugin.data
        while data:
            size = int.from_bytes(data[:4], "big")
            entries.append(decode(data[4 : 4 + size]))
            data = data[4 + size :]
        assert sorted((entry.stream, entry.line) for entry in entries) == [("stderr", b"two"), ("stdout", b"one")]
        assert output(api, name) == {"stdout": b"one\n", "stderr": b"two\n"}
        assert "/LogDriver.ReadLogs" in dict(plugin.asked)
