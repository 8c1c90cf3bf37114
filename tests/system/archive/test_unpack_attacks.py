"""Archives that try to get out: through names, links, whiteouts, devices, and races. Nothing outside may change.

Among them CVE-2018-15664 (a link swapped in while `docker cp` works) and the layer traversals of tar writers.
"""

import io
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wherry.archive import PackOptions, UnpackOptions, Whiteouts, pack, read_file, stat, unpack
from wherry.errors import InvalidArgument, WherryError

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
MODES = {
    "overlay": UnpackOptions(whiteouts=Whiteouts.OVERLAY),
    "remove": UnpackOptions(whiteouts=Whiteouts.REMOVE),
    "plain": UnpackOptions(),
    "inside": UnpackOptions(path="/etc"),
}
FILE, DIR, SYMLINK, LINK, CHAR = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE
Member = tuple[str, bytes, str]


class Jail:
    """root/ to unpack into, beside secrets that must stay as they are."""

    def __init__(self, base: Path) -> None:
        self.outside = base / "outside"
        (self.outside / "inner").mkdir(parents=True)
        for path in ("secret", "inner/key"):
            (self.outside / path).write_bytes(b"untouched")
        self.path = base / "jail" / "root"
        (self.path / "etc").mkdir(parents=True)
        (self.path / "etc" / "passwd").write_bytes(b"root:x:0:0")
        self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        self.before = self._look()

    def unharmed(self) -> bool:
        return self._look() == self.before

    def _look(self) -> dict[str, tuple[object, ...]]:
        found: dict[str, tuple[object, ...]] = {}
        for top in (self.outside, self.path.parent):
            for path in [top, *sorted(top.rglob("*"))]:
                if self.path in (path, *path.parents):
                    continue
                status = path.lstat()
                looks = (status.st_mode, status.st_uid, status.st_nlink, status.st_size)
                found[str(path)] = (*looks, path.read_bytes() if path.is_file() else os.listxattr(path))
        return found


@pytest.fixture
def jail(tmp_path: Path) -> Iterator[Jail]:
    made = Jail(tmp_path)
    yield made
    os.close(made.fd)


def tar(members: list[Member]) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode, info.uid = kind, link, 0o777, 4242
            info.devmajor, info.devminor = 1, 3
            data = b"attack" if kind == FILE else b""
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    buffer.seek(0)
    return buffer


def attacks(outside: str, up: str) -> dict[str, list[Member]]:
    """`outside` is the absolute path of the target, `up` a relative one from the root."""
    return {
        "dots": [(f"{up}/secret", FILE, "")],
        "dots inside": [(f"etc/../{up}/secret", FILE, "")],
        "absolute dots": [(f"/{up}/secret", FILE, "")],
        "absolute": [(f"{outside}/secret", FILE, "")],
        "dot dot": [("..", DIR, "")],
        "root as file": [(".", FILE, "")],
        "root as old directory": [("./", FILE, "")],
        "root as link": [(".", SYMLINK, outside)],
        "through link": [("l", SYMLINK, outside), ("l/secret", FILE, "")],
        "through relative link": [("l", SYMLINK, up), ("l/secret", FILE, "")],
        "through two links": [("a", SYMLINK, "b"), ("b", SYMLINK, outside), ("a/inner/key", FILE, "")],
        "onto link": [("l", SYMLINK, f"{outside}/secret"), ("l", FILE, "")],
        "directory onto link": [("l", SYMLINK, f"{outside}/inner"), ("l", DIR, "")],
        "hard link": [("h", LINK, f"{up}/secret"), ("h", FILE, "")],
        "hard link absolute": [("h", LINK, f"{outside}/secret"), ("h", FILE, "")],
        "hard link through link": [("l", SYMLINK, outside), ("h", LINK, "l/secret"), ("h", FILE, "")],
        "hard link to link": [("l", SYMLINK, f"{outside}/secret"), ("h", LINK, "l"), ("h", FILE, "")],
        "whiteout dots": [(f"{up}/.wh.secret", FILE, "")],
        "whiteout of parent": [(".wh...", FILE, ""), ("etc/.wh...", FILE, "")],
        "whiteout of self": [(".wh..", FILE, "")],
        "whiteout of nothing": [(".wh.", FILE, "")],
        "whiteout through link": [("l", SYMLINK, outside), ("l/.wh.secret", FILE, ""), ("l/.wh.inner", FILE, "")],
        "opaque through link": [("l", SYMLINK, outside), ("l/.wh..wh..opq", FILE, "")],
        "whiteout of link": [("l", SYMLINK, f"{outside}/inner"), (".wh.l", FILE, "")],
        "device as parent": [("c", CHAR, ""), ("c/x", FILE, "")],
        "proc": [("l", SYMLINK, "/proc/self/root"), (f"l{outside}/secret", FILE, "")],
        "duplicate": [("d", DIR, ""), ("d/x", FILE, ""), ("d", SYMLINK, outside), ("d/secret", FILE, "")],
        "dangling": [("l", SYMLINK, f"{outside}/new"), ("l/x", FILE, "")],
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", attacks("", ""))
def test_nothing_gets_out(jail: Jail, mode: str, name: str) -> None:
    up = "../../../outside" if mode == "inside" else "../../outside"
    with suppress(WherryError):
        unpack(tar(attacks(str(jail.outside), up)[name]), jail.fd, MODES[mode])
    assert jail.unharmed()


REFUSED = ["dots", "dots inside", "absolute dots", "root as file", "root as link", "hard link", "device as parent"]
REFUSED_LAYERS = ["whiteout dots", "whiteout of parent", "whiteout of self", "whiteout of nothing"]


@pytest.mark.parametrize("name", REFUSED + REFUSED_LAYERS)
def test_what_no_honest_archive_does_is_refused_by_name(jail: Jail, name: str) -> None:
    members = attacks(str(jail.outside), "../../outside")[name]
    for mode in ("overlay", "remove"):
        with pytest.raises(InvalidArgument) as caught:
            unpack(tar(members), jail.fd, MODES[mode])
        assert caught.value.object
    if name in REFUSED:
        with pytest.raises(InvalidArgument):
            unpack(tar(members), jail.fd, MODES["plain"])


PARTS = st.sampled_from(["a", "b", "..", ".", "", ".wh.a", ".wh..wh..opq", ".wh...", "outside", "secret", "inner"])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
MEMBERS = st.lists(
    st.tuples(PATHS, st.sampled_from([FILE, DIR, SYMLINK, LINK, CHAR, tarfile.FIFOTYPE]), PATHS), max_size=8
)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(members=MEMBERS, mode=st.sampled_from(sorted(MODES)), absolute=st.booleans())
def test_no_sequence_of_entries_gets_out(
    tmp_path_factory: pytest.TempPathFactory, members: list[Member], mode: str, absolute: bool
) -> None:
    jail = Jail(tmp_path_factory.mktemp("jail"))
    if absolute:
        # Links straight at the target make most walks interesting.
        members = [(n, k, f"{jail.outside}/{link}" if k == SYMLINK else link) for n, k, link in members]
    try:
        with suppress(WherryError):
            unpack(tar(members), jail.fd, MODES[mode])
        assert jail.unharmed()
    finally:
        os.close(jail.fd)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (("x" * 256, FILE, ""), "longer than 255"),
        (("x/" * 3000 + "y", FILE, ""), "too long"),
        (("odd", b"Z", ""), "unknown entry type"),
        (("link", SYMLINK, "x" * 5000), "too long"),
    ],
)
def test_absurd_entries_are_named(jail: Jail, member: Member, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        unpack(tar([member]), jail.fd)


def test_limits_hold(jail: Jail) -> None:
    with pytest.raises(InvalidArgument, match="more than 2 entries"):
        unpack(tar([(f"f{n}", FILE, "") for n in range(3)]), jail.fd, UnpackOptions(max_entries=2))
    with pytest.raises(InvalidArgument, match="more than 10 bytes"):
        unpack(tar([(f"f{n}", FILE, "") for n in range(3)]), jail.fd, UnpackOptions(max_bytes=10))


def test_overlay_steering_attributes_are_dropped(jail: Jail) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("d")
        info.type = DIR
        info.pax_headers = {"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.kept": "1"}
        archive.addfile(info)
    buffer.seek(0)
    result = unpack(buffer, jail.fd, MODES["overlay"])
    assert os.listxattr(jail.path / "d") == ["user.kept"]
    assert result.skipped_xattrs == {"trusted.overlay.redirect"}


def test_images_files_are_read_inside_the_image_only(jail: Jail) -> None:
    (jail.path / "etc" / "abs").symlink_to("/etc/passwd")
    (jail.path / "etc" / "up").symlink_to("../../../../etc/passwd")
    (jail.path / "etc" / "out").symlink_to(jail.outside / "secret")
    (jail.path / "proc").symlink_to("/proc/self/root")
    os.mkfifo(jail.path / "etc" / "fifo")
    for name in ("passwd", "abs", "up"):
        assert read_file(jail.fd, f"/etc/{name}") == b"root:x:0:0"
    for name in ("etc/out", "etc/fifo", "etc", f"proc/{jail.outside}/secret"):
        with pytest.raises(WherryError):
            read_file(jail.fd, name)
    with pytest.raises(InvalidArgument, match="longer"):
        read_file(jail.fd, "/etc/passwd", limit=5)


SWAP = """
import os, sys
jail, outside = sys.argv[1:]
os.chdir(jail)
os.mkdir("real"); open("real/secret", "w").write("inside")
os.symlink(outside, "evil")
os.rename("real", "d")
print("ready", flush=True)
while True:
    os.rename("d", "real"); os.rename("evil", "d")
    os.rename("d", "evil"); os.rename("real", "d")
"""


def test_links_swapped_during_copies_lead_nowhere(jail: Jail) -> None:
    """CVE-2018-15664: the container exchanges a directory for a link again and again, while we copy in and out."""
    command = [sys.executable, "-c", SWAP, str(jail.path), str(jail.outside)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as swapper:
        try:
            assert swapper.stdout is not None
            swapper.stdout.readline()
            deadline = time.monotonic() + 1.5
            done = 0
            while time.monotonic() < deadline:
                with suppress(WherryError):
                    unpack(tar([("d/secret", FILE, ""), ("d", DIR, ""), ("d/h", LINK, "d/secret")]), jail.fd)
                with suppress(WherryError):
                    unpack(tar([("secret", FILE, "")]), jail.fd, UnpackOptions(path="/d"))
                for path in ("/d", "/d/secret", "/d/.", "/"):
                    out = io.BytesIO()
                    with suppress(WherryError, OSError):
                        pack(jail.fd, path, out, PackOptions())
                        done += 1
                    assert b"untouched" not in out.getvalue()
                with suppress(WherryError):
                    stat(jail.fd, "/d/secret")
        finally:
            swapper.kill()
    assert done > 10
    assert jail.unharmed()
