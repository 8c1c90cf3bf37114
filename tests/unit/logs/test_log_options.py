"""Options of log drivers, tags, and what is delivered from a paged log."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from daemon import wait_until
from wherry.errors import InvalidArgument
from wherry.logs import courier
from wherry.logs.backlog import Backlog, Message
from wherry.logs.courier import Courier
from wherry.logs.frame import STDERR, STDOUT
from wherry.logs.info import attributes
from wherry.logs.lines import cut
from wherry.logs.options import address, check_options, duration
from wherry.logs.pages import PagedLog
from wherry.logs.rotation import Rotation, cache_rotation, parse_size, rotation
from wherry.logs.tag import check, render

INFO = {
    "ContainerID": "0123456789abcdef" * 4,
    "ContainerName": "/web",
    "ContainerEntrypoint": "sh",
    "ContainerArgs": ["-c"],
    "ContainerImageID": "sha256:" + "fe" * 32,
    "ContainerImageName": "Busybox:1",
    "ContainerEnv": ["COLOUR=blue", "EMPTY", "X=a=b"],
    "ContainerLabels": {"com.acme.team": "a", "other": "b"},
    "DaemonName": "docker",
}


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("json-file", {"max-size": "10x"}),
        ("json-file", {"max-size": "0"}),
        ("json-file", {"max-size": "-1", "max-file": "2"}),
        ("json-file", {"max-size": "1m", "max-file": "0"}),
        ("json-file", {"max-size": "1m", "compress": "true"}),
        ("json-file", {"labels-regex": "("}),
        ("json-file", {"tag": "{{.Nme}}"}),
        ("json-file", {"cache-max-size": "x"}),
        ("none", {"max-size": "1m"}),
        ("../evil", {}),
        ("syslog", {"syslog-format": "rfc1"}),
        ("syslog", {"syslog-address": "udp://h:99999"}),
        ("syslog", {"syslog-address": "unix://relative"}),
        ("syslog", {"syslog-address": "udp://h", "syslog-tls-skip-verify": "1"}),
        ("syslog", {"syslog-address": "tcp+tls://h", "syslog-tls-ca-cert": "/nowhere"}),
        ("fluentd", {"fluentd-retry-wait": "soon"}),
        ("fluentd", {"fluentd-async-reconnect-interval": "1ms"}),
        ("gelf", {"gelf-address": "udp://h:1", "gelf-tcp-max-reconnect": "1"}),
        ("gelf", {"gelf-address": "udp://h"}),
        ("splunk", {"splunk-url": "http://h:1/path", "splunk-token": "t"}),
        ("splunk", {"splunk-url": "http://h:1"}),
    ],
)
def test_what_cannot_be_honoured_is_refused(driver: str, options: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        check_options(driver, options)


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("json-file", {"max-size": "-1"}),
        ("json-file", {"max-size": "1.5g", "max-file": "3", "compress": "true", "mode": "non-blocking"}),
        ("local", {"compress": "false", "cache-disabled": "true"}),
        ("syslog", {"syslog-address": "udp://[::1]:514", "syslog-facility": "17", "syslog-format": "rfc5424micro"}),
        ("fluentd", {"fluentd-address": "h:1", "fluentd-buffer-limit": "8MB", "fluentd-retry-wait": "1m30s"}),
        ("gelf", {"gelf-address": "tcp://h:1", "gelf-tcp-reconnect-delay": "5"}),
        ("journald", {"tag": "{{.Name}}", "env-regex": "^A"}),
    ],
)
def test_what_is_accepted(driver: str, options: dict[str, str]) -> None:
    check_options(driver, options)


def test_bounds_by_default_and_docker_s_once_asked_for() -> None:
    def shape(found: Rotation) -> tuple[int, int, bool]:
        return found.max_size, found.max_file, found.compress

    assert shape(rotation("json-file", {})) == (50 << 20, 5, True)
    assert shape(rotation("json-file", {"max-size": "-1"})) == (0, 1, False)
    assert shape(rotation("json-file", {"max-file": "3"})) == (50 << 20, 3, False)
    assert shape(rotation("json-file", {"max-size": "10m"})) == (10 << 20, 1, False)
    assert shape(rotation("json-file", {"compress": "false"})) == (50 << 20, 5, False)
    assert shape(rotation("local", {"max-file": "2"})) == (20 << 20, 2, True)
    assert shape(cache_rotation({"cache-max-size": "1m", "cache-compress": "false"})) == (1 << 20, 5, False)
    assert parse_size("x", "1KiB") == 1024


def test_small_parsers() -> None:
    assert duration("x", "1m30.5s") == 90.5
    assert duration("x", "0") == 0
    assert address("x", "unix:///run/s", ("unix",), 0) == ("unix", "/run/s", 0)
    assert address("x", "tcp://h", ("tcp",), 514) == ("tcp", "h", 514)


def test_attributes() -> None:
    options = {"labels": "other,absent", "labels-regex": "^com", "env": "X", "env-regex": "^COL"}
    assert attributes(INFO, options) == {"other": "b", "com.acme.team": "a", "X": "a=b", "COLOUR": "blue"}
    assert "COM_ACME_TEAM" in attributes(INFO, options, uppercase=True)


@pytest.mark.parametrize(
    ("template", "tag"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{{.Name}}/{{.ID}}", "web/0123456789ab"),
        ("{{ .ImageName | lower }}", "busybox:1"),
        ("{{ truncate .FullID 4 }}", "0123"),
        ('{{ upper "x" }}', "X"),
        ("{{ (.ExtraAttributes nil).COLOUR }}", "blue"),
        ("{{.DaemonName}} {{.Command}} {{.ImageID}}", "docker sh -c sha256:fefef"),
    ],
)
def test_tags(template: str, tag: str) -> None:
    check(template)
    assert render(template, INFO, {"env": "COLOUR"}) == tag


@pytest.mark.parametrize(
    "template", ["{{", "}}", "{{}}", "{{.X}}", "{{nosuch .ID}}", "{{.ID .ID}}", "{{lower}}", "{{|}}"]
)
def test_templates_that_are_none(template: str) -> None:
    with pytest.raises(InvalidArgument):
        check(template)


def everything(backlog: Backlog) -> list[Message]:
    found = []
    while messages := backlog.read():
        found += messages
    return found


def test_a_backlog_goes_on_over_rotations_and_says_what_it_missed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = PagedLog(str(path), Rotation(2000, 3))
    backlog = Backlog(path, 0)
    seen = []
    for number in range(300):
        log.write(STDERR if number % 3 else STDOUT, b"%04d\n" % number)
        if number % 7 == 0:
            seen += everything(backlog)
    seen += everything(backlog)
    assert [int(message.line) for message in seen] == list(range(300))
    assert backlog.lost == 0
    assert backlog.end() == backlog.position == log.position
    backlog.close()
    late = Backlog(path, 0)
    rest = everything(late)
    assert late.lost > 0
    assert [int(message.line) for message in rest] == list(range(300 - len(rest), 300))
    late.close()
    log.close()


def test_pieces_of_a_long_line_belong_together(tmp_path: Path) -> None:
    log = PagedLog(str(tmp_path / "log"), Rotation(1 << 30, 1))
    for piece in cut(b"x" * 40_000 + b"\n"):
        log.write(STDOUT, piece)
    log.write(STDOUT, b"short\n")
    log.close()
    backlog = Backlog(tmp_path / "log", 0)
    *pieces, last = everything(backlog)
    backlog.close()
    assert last.partial is None
    assert [(p.partial.ordinal, p.partial.last) for p in pieces if p.partial] == [(1, False), (2, False), (3, True)]
    assert len({p.partial.id for p in pieces if p.partial}) == 1


class Place:
    """A driver that fails when it is told to."""

    retry_seconds = 0.01
    max_retries: int | None = None

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.broken = threading.Event()
        self.tried = threading.Event()

    def connect(self) -> None:
        pass

    def send(self, messages: Sequence[Message]) -> None:
        self.tried.set()
        if self.broken.is_set():
            raise OSError("away")
        self.taken += [message.line for message in messages]

    def disconnect(self) -> None:
        pass

    def finish(self) -> None:
        self.taken.append(b"end")


def start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Place, **options: str
) -> tuple[Courier, threading.Event]:
    monkeypatch.setattr(courier, "make", lambda context: place)
    target: dict[str, Any] = {"driver": "x", "path": str(tmp_path / "log"), "cursor": str(tmp_path / "cursor")}
    ended = threading.Event()
    chosen = {name.replace("_", "-"): value for name, value in options.items()}
    made = Courier(
        "c", {**target, "options": chosen, "info": {}}, tmp_path, lambda id: None, lambda courier: ended.set()
    )
    made.start()
    return made, ended


def test_delivery_waits_resumes_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place()
    log = PagedLog(str(tmp_path / "log"), Rotation(1 << 20, 2))
    log.write(STDOUT, b"of an earlier run\n")
    made, ended = start(tmp_path, monkeypatch, place)
    log.write(STDOUT, b"one\n")
    wait_until(lambda: place.taken == [b"one"], 10, "the first")
    place.broken.set()
    place.tried.clear()
    log.write(STDOUT, b"two\n")
    assert place.tried.wait(10)
    made.stop()
    assert ended.wait(10)
    made.thread.join()
    made.close()
    place.broken.clear()
    again, ended = start(tmp_path, monkeypatch, place)
    again.finish()
    assert ended.wait(10)
    again.thread.join()
    again.close()
    assert place.taken == [b"one", b"two", b"end"]
    assert int.from_bytes((tmp_path / "cursor").read_bytes()[:8], "little") == log.position
    log.close()


def test_non_blocking_skips_the_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place()
    log = PagedLog(str(tmp_path / "log"), Rotation(1 << 30, 1))
    (tmp_path / "cursor").write_bytes(bytes(9))
    for number in range(200):
        log.write(STDOUT, b"%d " % number + os.urandom(8192).hex().encode() + b"\n")
    made, ended = start(tmp_path, monkeypatch, place, mode="non-blocking", max_buffer_size="1m")
    made.finish()
    assert ended.wait(20)
    made.thread.join()
    made.close()
    log.close()
    numbers = [int(line.split()[0]) for line in place.taken[:-1]]
    assert numbers == list(range(200 - len(numbers), 200))
    assert 40 < len(numbers) < 80
