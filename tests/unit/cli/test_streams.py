"""Multiplexed streams, detach keys, HTTP over a socket, and archives that containers send."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.cli.pack import Packer
from wherry.cli.streams import Demultiplexer, DetachKeys
from wherry.cli.terminal import detach_keys
from wherry.cli.unpack import unpack
from wherry.client import codec
from wherry.client.http import Connection
from wherry.errors import InvalidArgument, PermissionDenied, Unavailable, WherryError


def _frame(stream: int, data: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=30)), max_size=6),
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
)
def test_frames_however_they_are_cut(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    data = b"".join(_frame(stream, text) for stream, text in frames)
    pipes = {1: os.pipe(), 2: os.pipe()}
    demultiplexer = Demultiplexer({stream: pipe[1] for stream, pipe in pipes.items()})
    at = index = 0
    while at < len(data):
        size = cuts[index % len(cuts)]
        demultiplexer.feed(data[at : at + size])
        at, index = at + size, index + 1
    for stream, (read, write) in pipes.items():
        os.close(write)
        with open(read, "rb") as file:
            assert file.read() == b"".join(text for other, text in frames if other == stream)


def test_an_engine_error_in_the_stream() -> None:
    with pytest.raises(WherryError, match="error from daemon in stream: broken"):
        Demultiplexer({}).feed(_frame(3, b"broken"))


def test_detach_keys() -> None:
    assert detach_keys("") == b"\x10\x11"
    assert detach_keys("ctrl-a,x,ctrl-[") == b"\x01x\x1b"
    with pytest.raises(InvalidArgument, match="Unknown character: 'ctrl-é'"):
        detach_keys("ctrl-é")
    keys = DetachKeys(b"\x10\x11")
    assert keys.filter(b"a\x10") == b"a"  # held back, it may be the first of the two
    assert keys.filter(b"b\x10\x10") == b"\x10b\x10"
    assert not keys.found
    assert keys.filter(b"\x11later") == b""
    assert keys.found


def _exchange(answer: bytes) -> Connection:
    ours, theirs = socket.socketpair()
    theirs.sendall(answer)
    theirs.shutdown(socket.SHUT_WR)
    theirs.close()
    return Connection(ours, "host")


def test_http_bodies() -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: x\r\n\r\n"
    answer += b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\ncontent-LENGTH: 2\r\n\r\nxy"
    answer += b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    answer += b"HTTP/1.1 200 OK\r\n\r\nuntil the end"
    connection = _exchange(answer)
    responses = [connection.receive(method) for method in ("GET",)]
    assert responses[0].read() == b"abcde"
    assert responses[0].reusable
    second = connection.receive()
    assert (second.status, second.read()) == (404, b"xy")
    assert connection.receive("POST").read() == b""
    assert connection.receive("HEAD").read() == b""
    last = connection.receive()
    assert last.read() == b"until the end"
    assert not last.reusable
    connection.close()


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"])
def test_no_http(answer: bytes) -> None:
    connection = _exchange(answer)
    with pytest.raises(Unavailable):
        connection.receive().read()
    connection.close()


def test_codec_agrees_with_json() -> None:
    import json

    document = {"a": ['é€\u2028\n"\\', 1.5, True, None, {}], "b": {"c": -1, "d": 10**20}}
    assert codec.loads(codec.dumps(document)) == document
    assert json.loads(codec.dumps(document)) == document
    assert codec.loads(json.dumps(document, indent=1).encode()) == document
    assert codec.indented(document) == json.dumps(document, indent=4, ensure_ascii=False)
    for broken in ("", "{", "[1,]", "1 2", "nul"):
        with pytest.raises(ValueError):
            codec.loads(broken)


def _archive(*entries: tuple[str, bytes, str]) -> list[bytes]:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, kind, value in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = value if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            data = value.encode() if kind == tarfile.REGTYPE else b""
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return [file.getvalue()]


@pytest.mark.parametrize(
    "entries",
    [
        [("a/../../out", tarfile.REGTYPE, "x")],
        [("a", tarfile.DIRTYPE, ""), ("a/l", tarfile.SYMTYPE, "../.."), ("a/l/out", tarfile.REGTYPE, "x")],
        [("a", tarfile.DIRTYPE, ""), ("a/l", tarfile.SYMTYPE, "/"), ("a/l/out", tarfile.DIRTYPE, "")],
        [("a", tarfile.DIRTYPE, ""), ("a/h", tarfile.LNKTYPE, "a/../../secret"), ("a/h", tarfile.REGTYPE, "x")],
        [("a", tarfile.SYMTYPE, ".."), ("a/out", tarfile.REGTYPE, "x")],
    ],
)
def test_archives_cannot_leave_the_target(tmp_path: Path, entries: list[tuple[str, bytes, str]]) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "secret").write_text("kept")
    with pytest.raises((InvalidArgument, PermissionDenied)):
        unpack(_archive(*entries), str(target), "copy", False)
    assert sorted(os.listdir(tmp_path)) == ["secret", "target"]
    assert (tmp_path / "secret").read_text() == "kept"


def test_a_link_in_the_way_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("kept")
    target = tmp_path / "target"
    target.mkdir()
    (target / "copy").symlink_to("../secret")
    assert unpack(_archive(("a", tarfile.REGTYPE, "new")), str(target), "copy", False) == 3
    assert (target / "copy").read_text() == "new"
    assert (tmp_path / "secret").read_text() == "kept"


def test_a_tree_there_and_back(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / ("long" * 40)).write_bytes(b"x" * 3000)
    (source / "link").symlink_to("sub")
    (source / "one").write_text("1")
    os.link(source / "one", source / "two")
    (source / "one").chmod(0o4750)
    (source / "sub").chmod(0o711)
    target = tmp_path / "target"
    target.mkdir()
    unpack(Packer(False).stream(str(source), "name"), str(target), "copy", False)

    def tree(root: Path) -> dict[str, tuple[int, object]]:
        return {
            str(path.relative_to(root)): (
                path.lstat().st_mode,
                os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None,
            )
            for path in root.rglob("*")
        }

    assert tree(target / "copy") == tree(source)
    assert (target / "copy/one").samefile(target / "copy/two")
