"""Listening sockets, locks and the pid file."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from wherry.daemon.lock import PidFile, RootLock
from wherry.daemon.settings import Settings, read_settings
from wherry.daemon.sockets import Listener, listen
from wherry.errors import Conflict, InvalidArgument, WherryError


@pytest.fixture
def opened() -> Iterator[list[Listener]]:
    listeners: list[Listener] = []
    yield listeners
    for listener in listeners:
        listener.close()


def settings(*flags: str) -> Settings:
    return read_settings([*flags, "--config-file", os.devnull])


def test_a_unix_socket_comes_and_goes(tmp_path: Path, opened: list[Listener]) -> None:
    path = tmp_path / "sub/s"
    opened += listen(settings("-H", f"unix://{path}", "--group", "0"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    with pytest.raises(Conflict, match="another daemon listens"):
        listen(settings("-H", f"unix://{path}"))
    opened.pop().close()
    assert list(path.parent.iterdir()) == []


def test_a_stale_socket_is_replaced_and_a_new_one_left_alone(tmp_path: Path, opened: list[Listener]) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    first = listen(settings("-H", f"unix://{path}"))[0]
    path.unlink()
    opened += listen(settings("-H", f"unix://{path}"))
    first.close()
    assert path.exists()
    path.rename(tmp_path / "t")
    path.write_text("a file")
    with pytest.raises(Conflict, match="is not a socket"):
        listen(settings("-H", f"unix://{path}"))


def test_when_one_cannot_be_had_none_is_left(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with pytest.raises(InvalidArgument, match="unsupported proto 'foo'"):
        listen(settings("-H", f"unix://{path}", "-H", "foo://x"))
    assert not path.exists()


def test_tcp_and_its_warning(opened: list[Listener], caplog: pytest.LogCaptureFixture) -> None:
    opened += listen(settings("-H", "tcp://127.0.0.1:0"))
    assert "API is accessible on http://127.0.0.1:" in caplog.text
    port = opened[0].socket.getsockname()[1]
    with pytest.raises(WherryError, match="cannot listen on tcp"):
        listen(settings("-H", f"tcp://127.0.0.1:{port}"))
    for bad in ("tcp://127.0.0.1:x", "tcp://127.0.0.1:70000"):
        with pytest.raises(InvalidArgument, match="invalid bind address"):
            listen(settings("-H", bad))


def test_the_network_is_not_let_in_by_oversight(opened: list[Listener]) -> None:
    for host in ("tcp://0.0.0.0:0", "tcp://[::]:0", "tcp://:0"):
        with pytest.raises(WherryError, match=r"refusing to listen on tcp://.* without --tlsverify"):
            listen(settings("-H", host))
    opened += listen(settings("-H", "tcp://0.0.0.0:0", "--tls=false"))
    assert "API is accessible on http://0.0.0.0:" in opened[0].warning


def test_sockets_of_the_service_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WherryError, match="no sockets found via socket activation"):
        listen(settings("-H", "fd://"))
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    with pytest.raises(InvalidArgument, match="fd://7 was not passed"):
        listen(settings("-H", "fd://7"))


def test_what_the_manager_opened_on_the_network_is_not_trusted(
    monkeypatch: pytest.MonkeyPatch, opened: list[Listener], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    for address, flags, refused in (
        ("0.0.0.0", (), True),
        ("127.0.0.1", (), False),
        ("0.0.0.0", ("--tls=false",), False),
        ("0.0.0.0", ("--tlsverify",), False),
    ):
        passed = socket.create_server((address, 0))
        monkeypatch.setattr("wherry.daemon.sockets._FIRST_FD", passed.detach())
        if refused:
            with pytest.raises(WherryError, match="refusing to listen"):
                listen(settings("-H", "fd://", *flags))
        else:
            opened += listen(settings("-H", "fd://", *flags))
            assert (opened[-1].tls, bool(opened[-1].warning)) == (("--tlsverify" in flags), "--tlsverify" not in flags)


def test_one_daemon_per_root(tmp_path: Path) -> None:
    lock = RootLock(tmp_path / "root")
    with pytest.raises(Conflict, match=rf"another daemon \(process {os.getpid()}\) uses"):
        RootLock(tmp_path / "root")
    lock.release()
    RootLock(tmp_path / "root").release()


def test_the_pid_file(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("1\n")
    # Process 1 is there, but it is no daemon of ours.
    file = PidFile(path)
    assert path.read_text() == f"{os.getpid()}\n"
    file.remove()
    assert not path.exists()
