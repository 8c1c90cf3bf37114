"""The tar reader against Python's tarfile and GNU tar: what they write, it reads; what is wrong, it names."""

import io
import os
import shutil
import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.archive import _pax
from wherry.archive._entry import Entry
from wherry.archive._reader import TarReader
from wherry.errors import InvalidArgument

NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=120).filter(
    lambda name: name not in (".", "..") and name.strip() == name
)
MEMBERS = st.lists(
    st.tuples(
        st.lists(NAMES, min_size=1, max_size=4).map("/".join),
        st.binary(max_size=2000),
        st.integers(0, 0o7777),
        st.integers(0, 2**32 - 2),
        st.integers(-(2**33), 2**40),
        st.dictionaries(st.sampled_from(["user.a", "user.b", "security.capability"]), st.text("az=\n", max_size=9)),
    ),
    max_size=5,
)


class Trickle(io.BytesIO):
    """A stream that gives a few bytes at a time, as a socket may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 700))


@settings(max_examples=60, deadline=None)
@given(members=MEMBERS, format=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), trickle=st.booleans())
def test_reads_what_tarfile_writes(
    members: list[tuple[str, bytes, int, int, int, dict[str, str]]], format: int, trickle: bool
) -> None:
    pax = format == tarfile.PAX_FORMAT
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, data, mode, owner, mtime, xattrs in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.gid, info.mtime = len(data), mode, owner, owner, mtime
            if pax:
                info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in xattrs.items()}
            archive.addfile(info, io.BytesIO(data))
    found = read_all(Trickle(buffer.getvalue()) if trickle else io.BytesIO(buffer.getvalue()))
    assert len(found) == len(members)
    for (entry, body), (name, data, mode, owner, mtime, xattrs) in zip(found, members, strict=True):
        assert entry.name == name.encode()
        assert body == data
        assert (entry.mode, entry.uid, entry.gid, entry.mtime) == (mode, owner, owner, mtime * 1_000_000_000)
        if pax:
            assert (entry.xattrs or {}) == {key.encode(): value.encode() for key, value in xattrs.items()}


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=1500), flips=st.lists(st.tuples(st.integers(0, 2047), st.integers(0, 255)), max_size=4))
def test_damage_is_an_error_or_harmless_never_a_crash(data: bytes, flips: list[tuple[int, int]]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("a" * 120)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    damaged = bytearray(buffer.getvalue())
    for at, value in flips:
        damaged[at] = value
    with suppress(InvalidArgument):
        read_all(io.BytesIO(bytes(damaged)))


@pytest.mark.parametrize("cut", [1, 511, 513, 1000, 1535])
def test_truncation_is_named(cut: int) -> None:
    with pytest.raises(InvalidArgument, match="unexpected end"):
        read_all(io.BytesIO(one_file(b"x" * 1000)[:cut]))


def test_checksum_and_absurd_sizes_are_refused() -> None:
    block = bytearray(one_file(b"")[:512])
    block[0] ^= 1
    with pytest.raises(InvalidArgument, match="checksum"):
        read_all(io.BytesIO(bytes(block)))
    for size in (b"\xff" * 12, b"77777777777\0"):
        with pytest.raises(InvalidArgument, match=r"size out of range|unexpected end"):
            read_all(io.BytesIO(resum(block[:124] + size + block[136:])))
    huge = resum(block[:124] + b"77777777777\0" + block[136:156] + b"x" + block[157:])
    with pytest.raises(InvalidArgument, match="extended header too large"):
        read_all(io.BytesIO(huge))


@pytest.mark.parametrize(
    "record",
    [
        b"99 path=x\n",
        b"x path=y\n",
        b"0 path=\n",
        b"12 path=abcd",
        b"5 path=x\n",
        b"9 =mtime\n",
        b"13 mtime=1.x\n",
        b"10 uid=-1\n",
        b"11 path=a\0\n",
        b"30 uid=99999999999999999999999\n",
    ],
)
def test_bad_extended_headers_are_refused(record: bytes) -> None:
    entry = Entry()
    with pytest.raises(InvalidArgument):
        _pax.apply(entry, _pax.records(record))


@given(st.integers(-(10**20), 10**20))
def test_times_keep_nanoseconds(ns: int) -> None:
    sign = "-" if ns < 0 else ""
    text = f"{sign}{abs(ns) // 10**9}.{abs(ns) % 10**9:09}777"
    assert _pax.nanoseconds(text.encode()) == ns


@pytest.mark.parametrize(
    "format", ["gnu", "pax --sparse-version=0.0", "pax --sparse-version=0.1", "pax --sparse-version=1.0"]
)
def test_reads_gnu_tars_sparse_files(tmp_path: Path, format: str) -> None:
    if shutil.which("tar") is None:
        pytest.skip("no GNU tar")
    pieces = {offset: os.urandom(5000) for offset in range(1 << 20, 40 << 20, 1 << 20)}
    with (tmp_path / "sparse").open("wb") as file:
        for offset, data in pieces.items():
            os.pwrite(file.fileno(), data, offset)
        file.truncate(50 << 20)
    command = f"tar --sparse --format={format} -cf - sparse plain".split()
    (tmp_path / "plain").write_bytes(b"after")
    archive = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    assert len(archive) < 4 << 20
    reader = TarReader(io.BytesIO(archive))
    entry = reader.next()
    assert entry is not None
    assert (entry.name, entry.real_size) == (b"sparse", 50 << 20)
    assert entry.sparse is not None
    with (tmp_path / "out").open("wb") as out:
        reader.write_body(entry, out.fileno())
    assert (tmp_path / "out").read_bytes() == (tmp_path / "sparse").read_bytes()
    assert (tmp_path / "out").stat().st_blocks * 512 < 4 << 20
    last = reader.next()
    assert last is not None
    assert last.name == b"plain"


@pytest.mark.parametrize(
    "sparse", ["0,10,5,10", "10,5", "0,999999", "0,-1", "0", "0,5,x,y", "9223372036854775807,9223372036854775807"]
)
def test_lying_sparse_maps_are_refused(sparse: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("s")
        info.size = 10
        info.pax_headers = {"GNU.sparse.map": sparse, "GNU.sparse.size": "20", "GNU.sparse.major": "0"}
        archive.addfile(info, io.BytesIO(b"x" * 10))
    with pytest.raises(InvalidArgument):
        read_all(io.BytesIO(buffer.getvalue()))


def test_old_archives_signed_sums_and_trailing_slashes() -> None:
    block = bytearray(one_file(b"")[:512])
    block[:4] = b"d\xe9/\0"
    block[257:265] = bytes(8)
    signed = 256 + sum(byte - 256 if byte > 127 else byte for byte in block[:148] + block[156:])
    block[148:156] = b"%06o\0 " % signed
    entry = TarReader(io.BytesIO(bytes(block))).next()
    assert entry is not None
    assert (entry.name, entry.kind) == (b"d\xe9/", ord("5"))


def one_file(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("file")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def resum(block: bytes) -> bytes:
    outside = block[:148] + b" " * 8 + block[156:]
    return bytes(outside[:148]) + b"%06o\0 " % sum(outside) + bytes(block[156:])


def read_all(stream: io.BytesIO) -> list[tuple[Entry, bytes]]:
    reader = TarReader(stream)
    found = []
    while (entry := reader.next()) is not None:
        body = b""
        if entry.size:
            fd = os.memfd_create("body")
            reader.write_body(entry, fd)
            body = os.pread(fd, entry.real_size, 0)
            os.close(fd)
        found.append((entry, body))
    return found
