"""What goes in comes out: every kind of file, through our writer, GNU tar and back, and docker's rules for copies."""

import io
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import wherry.archive as archive
from wherry.archive import PackOptions, UnpackOptions, Whiteouts, copy_tree, pack, unpack
from wherry.errors import InvalidArgument, NotFound

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
LONG = "long-" + "n" * 200


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    """One of each."""
    top = tmp_path / "everything"
    deep = top / "usr" / LONG / "share"
    deep.mkdir(parents=True)
    (top / "usr" / "plain").write_bytes(b"contents" * 1000)
    (top / "usr" / "empty").touch()
    (top / "usr" / "suid").write_bytes(b"#!")
    os.chown(top / "usr" / "suid", 1000, 3_000_000)
    (top / "usr" / "suid").chmod(0o6755)
    (top / "usr" / "ping").write_bytes(b"\x7fELF")
    (top / "usr" / "ping").chmod(0o755)
    os.setxattr(top / "usr" / "ping", "security.capability", CAPABILITY)
    os.setxattr(top / "usr" / "ping", "user.note", b"a=b\n\0")
    os.setxattr(deep, "user.dir", b"1")
    (deep / "nämé\udcff").write_bytes(b"x")
    os.link(top / "usr" / "plain", deep / "hard")
    (top / "bin").symlink_to("usr/bin")
    os.lchown(top / "bin", 5, 6)
    (deep / LONG).symlink_to("t" * 300)
    os.mkfifo(top / "fifo", 0o640)
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(top / "loop", stat.S_IFBLK | 0o660, os.makedev(7, 300))
    with (top / "sparse").open("wb") as file:
        file.truncate(200 << 20)
        os.pwrite(file.fileno(), b"middle", 100 << 20)
    (top / "tmp").mkdir(mode=0o1777)
    (top / "tmp").chmod(0o1777)
    for number, path in enumerate(sorted(top.rglob("*"), reverse=True)):
        os.utime(path, ns=(10**18, 10**18 + number * 1_000_000_007), follow_symlinks=False)
    return top


def looks(top: Path, *, nanoseconds: bool = True) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[int, str] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(top))
        first = inodes.setdefault(status.st_ino, name)
        mtime = status.st_mtime_ns if nanoseconds else status.st_mtime_ns // 10**9
        attributes = {n: os.getxattr(path, n, follow_symlinks=False) for n in os.listxattr(path, follow_symlinks=False)}
        body: object = None
        if stat.S_ISLNK(status.st_mode):
            body = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            body = (status.st_size, hash(path.read_bytes()), status.st_blocks * 512 < status.st_size + 4096)
        owner = (status.st_uid, status.st_gid)
        device = status.st_rdev if stat.S_IFMT(status.st_mode) in (stat.S_IFCHR, stat.S_IFBLK) else 0
        found[name] = (status.st_mode, *owner, device, mtime, first, attributes, body)
    return found


@pytest.fixture
def target(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    path = tmp_path / "target"
    path.mkdir()
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    yield path, fd
    os.close(fd)


def packed(top: Path, path: str = "/", **options: object) -> bytes:
    out = io.BytesIO()
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        pack(fd, path, out, PackOptions(**options))  # type: ignore[arg-type]
    finally:
        os.close(fd)
    return out.getvalue()


def test_everything_survives_pack_and_unpack(everything: Path, target: tuple[Path, int]) -> None:
    data = packed(everything, name="", nanoseconds=True)
    assert len(data) < 1 << 20
    unpack(io.BytesIO(data), target[1])
    assert looks(target[0]) == looks(everything)
    assert packed(target[0], name="", nanoseconds=True) == data


def test_everything_survives_a_copy(everything: Path, target: tuple[Path, int]) -> None:
    fd = os.open(everything, os.O_RDONLY | os.O_DIRECTORY)
    copy_tree(fd, target[1])
    os.close(fd)
    assert looks(target[0]) == looks(everything)
    assert target[0].stat().st_mtime_ns == everything.stat().st_mtime_ns


@pytest.mark.skipif(shutil.which("tar") is None, reason="no GNU tar")
@pytest.mark.parametrize("format", ["gnu", "pax"])
def test_gnu_tar_and_we_agree(everything: Path, target: tuple[Path, int], tmp_path: Path, format: str) -> None:
    flags = ["--xattrs", "--xattrs-include=*"] if format == "pax" else []
    command = ["tar", "--sparse", f"--format={format}", *flags, "-cf", "-", "-C", str(everything), "."]
    theirs = subprocess.run(command, capture_output=True, check=True).stdout
    unpack(io.BytesIO(theirs), target[1])
    exact = format == "pax"
    expected = looks(everything, nanoseconds=exact)
    if not exact:
        expected = {name: (*look[:6], {}, look[7]) for name, look in expected.items()}
    assert looks(target[0], nanoseconds=exact) == expected
    again = tmp_path / "again"
    again.mkdir()
    command = ["tar", "--xattrs", "--xattrs-include=*", "-xpf", "-", "-C", str(again)]
    subprocess.run(command, input=packed(everything, name="", nanoseconds=True), check=True)
    assert looks(again) == looks(everything)


def test_names_of_copies_are_dockers(everything: Path) -> None:
    (everything / "usr" / "to-tmp").symlink_to("/tmp")
    (everything / "tmp" / "f").write_bytes(b"1")

    def names(path: str, **options: object) -> list[str]:
        with tarfile.open(fileobj=io.BytesIO(packed(everything, path, **options))) as opened:
            return [member.name + ("/" if member.isdir() else "") for member in opened]

    assert names("/tmp") == names("tmp/") == ["tmp/", "tmp/f"]
    assert names("/tmp/.") == ["./", "./f"]
    assert names("/tmp/f") == ["f"]
    assert names("/usr/to-tmp") == ["to-tmp"]
    assert names("/usr/to-tmp/") == ["to-tmp/", "to-tmp/f"]
    assert names("/usr/to-tmp/f") == ["f"]
    assert names("/tmp", name="") == ["f"]
    assert names("/")[:2] == ["/", "/bin"]
    with pytest.raises(NotFound, match="Could not find the file /nope"):
        names("/nope")


def test_path_stat_is_dockers(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o755)
    (tmp_path / "d" / "f").write_bytes(b"hi\n")
    (tmp_path / "d" / "f").chmod(0o4755)
    os.utime(tmp_path / "d" / "f", ns=(0, 1_700_000_000_120_000_000))
    for name, link in {"l": "f", "esc": "../../../etc", "abs": "/d/f", "dang": "nowhere/x", "loop": "loop"}.items():
        (tmp_path / "d" / name).symlink_to(link)
    (tmp_path / "etc").mkdir(mode=0o755)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert archive.stat(fd, "/d/f").to_json() == {
            "name": "f",
            "size": 3,
            "mode": 8389101,
            "mtime": "2023-11-14T22:13:20.12Z",
            "linkTarget": "",
        }
        found = {path: archive.stat(fd, path) for path in ("/", "d", "/d/", "/d/.", "/d/l", "/d/esc/", "/d/../d/f")}
        assert [s.name for s in found.values()] == ["/", "d", "d", ".", "l", "esc", "f"]
        assert found["/d/l"].mode == 134218239
        assert found["/d/esc/"].is_directory
        targets = {"l": "/d/f", "esc": "/etc", "abs": "/d/f", "dang": "/d/nowhere/x"}
        assert {name: archive.stat(fd, f"/d/{name}").link_target for name in targets} == targets
        for path in ("/d/f/", "/d/l/x", "/d/loop"):
            with pytest.raises(InvalidArgument):
                archive.stat(fd, path)
        for path in ("/nope", "/d/nope/x"):
            with pytest.raises(NotFound):
                archive.stat(fd, path)
    finally:
        os.close(fd)


def one(name: str, kind: bytes, **fields: object) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as opened:
        info = tarfile.TarInfo(name)
        info.type = kind
        for key, value in fields.items():
            setattr(info, key, value)
        opened.addfile(info)
    buffer.seek(0)
    return buffer


def test_copies_into_a_container_keep_to_dockers_rules(target: tuple[Path, int]) -> None:
    path, fd = target
    (path / "d" / "sub").mkdir(parents=True)
    (path / "d" / "f").write_bytes(b"old")
    (path / "here").symlink_to("/d")
    strict = UnpackOptions(path="/here", no_overwrite_dir_non_dir=True)
    with pytest.raises(InvalidArgument, match='cannot overwrite directory "sub" with non-directory'):
        unpack(one("sub", tarfile.REGTYPE), fd, strict)
    with pytest.raises(InvalidArgument, match='cannot overwrite non-directory "f" with directory'):
        unpack(one("f", tarfile.DIRTYPE), fd, strict)
    with pytest.raises(InvalidArgument, match="extraction point is not a directory"):
        unpack(one("x", tarfile.REGTYPE), fd, UnpackOptions(path="/d/f"))
    with pytest.raises(NotFound, match="Could not find the file /no"):
        unpack(one("x", tarfile.REGTYPE), fd, UnpackOptions(path="/no"))
    unpack(one("sub", tarfile.REGTYPE, uid=7, gid=8), fd, UnpackOptions(path="/here", owner=(33, 44)))
    assert (path / "d" / "sub").is_file()
    assert (path / "d" / "sub").stat().st_uid == 33
    unpack(one("new/.wh.f", tarfile.REGTYPE), fd, UnpackOptions(path="d"))
    assert (path / "d" / "f").exists()
    assert (path / "d" / "new" / ".wh.f").exists()
    before = path.stat().st_mode
    unpack(one("./", tarfile.DIRTYPE, mode=0o700), fd)
    assert path.stat().st_mode == before


def test_later_entries_replace_earlier_ones(target: tuple[Path, int]) -> None:
    path, fd = target
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as opened:
        for kind in (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo("same")
            info.type, info.linkname = kind, "x"
            opened.addfile(info)
            if kind == tarfile.DIRTYPE:
                opened.addfile(tarfile.TarInfo("same/inner"))
        info = tarfile.TarInfo("same/inner")
        info.type, info.linkname = tarfile.LNKTYPE, "same/inner"
        opened.addfile(info)
    buffer.seek(0)
    unpack(buffer, fd, UnpackOptions(whiteouts=Whiteouts.OVERLAY))
    assert sorted(str(p.relative_to(path)) for p in path.rglob("*")) == ["same", "same/inner"]


def test_layers_written_from_an_upper_directory_bring_its_deletions(tmp_path: Path, target: tuple[Path, int]) -> None:
    upper = tmp_path / "upper"
    (upper / "opaque").mkdir(parents=True)
    os.setxattr(upper / "opaque", "trusted.overlay.opaque", b"y")
    (upper / "opaque" / "f").write_bytes(b"1")
    os.mknod(upper / "gone", stat.S_IFCHR, 0)
    data = packed(upper, name="", layer=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        assert opened.getnames() == [".wh.gone", "opaque", "opaque/.wh..wh..opq", "opaque/f"]
    lower = tmp_path / "lower"
    (lower / "gone").mkdir(parents=True)
    options = UnpackOptions(whiteouts=Whiteouts.OVERLAY, lowers=[str(lower)])
    unpack(io.BytesIO(data), target[1], options)
    assert stat.S_ISCHR((target[0] / "gone").lstat().st_mode)
    assert os.getxattr(target[0] / "opaque", "trusted.overlay.opaque") == b"y"
