"""fsutil's protocol: a tree sent is the tree received, twice sends nothing, and clients cannot reach outside."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.buildkit.listing import check_path, entry_of, go_mode
from wherry.buildkit.messages.buildkit_pb2 import Packet, Stat
from wherry.buildkit.receiver import DATA, ERROR, FINISHED, REQUEST, STAT, Receiver
from wherry.buildkit.sending import Sender
from wherry.errors import Internal, InvalidArgument

DIRECTORY, LINK = 1 << 31 | 0o755, 1 << 27 | 0o777


def described(*stats: Stat) -> list[bytes]:
    return [*(Packet(type=STAT, stat=one).SerializeToString() for one in stats), Packet(type=STAT).SerializeToString()]


def data(id: int, content: bytes) -> list[bytes]:
    body = [Packet(type=DATA, id=id, data=content).SerializeToString()] if content else []
    return [*body, Packet(type=DATA, id=id).SerializeToString()]


def transfer(source: Path, target: Path, kept: list[bytes]) -> tuple[list[bytes], int]:
    """Bring `target` up to date; the listing, and how many files were asked for."""
    roots = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (source, target)]
    sender, receiver = Sender(roots[0]), Receiver(roots[1], kept)
    asked = 0
    try:
        answers = [answer for batch in sender.describe() for answer in receiver.feed(batch)]
        while not receiver.finished:
            wanted = sender.wanted(answers)
            asked += len(wanted)
            assert wanted
            answers = [answer for id in wanted for answer in receiver.feed(list(sender.contents(id)))]
        return list(receiver.listing), asked
    finally:
        receiver.close()
        for root in roots:
            os.close(root)


def seen(root: Path) -> dict[str, object]:
    """All that is compared of a tree."""
    found: dict[str, object] = {}
    inodes: dict[int, str] = {}
    for path in sorted(root.rglob("*")):
        name, status = str(path.relative_to(root)), path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = (path.read_bytes(), inodes.setdefault(status.st_ino, name))
        found[name] = (status.st_mode, status.st_mtime_ns, content)
    return found


names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=8
)
leaves = st.one_of(
    st.tuples(st.just("file"), st.binary(max_size=300), st.sampled_from((0o644, 0o755, 0o4755, 0o600))),
    st.tuples(st.just("link"), names),
)
trees = st.recursive(
    st.dictionaries(names, leaves, max_size=4),
    lambda inner: st.dictionaries(names, st.one_of(leaves, inner), max_size=4),
    max_leaves=12,
)


def make(root: Path, tree: dict[str, object]) -> None:
    for name, what in tree.items():
        if name in (".", "..") or len(name.encode()) > 200:
            continue
        path = root / name
        if isinstance(what, dict):
            path.mkdir()
            make(path, what)
        elif what[0] == "link":  # type: ignore[index]
            path.symlink_to(what[1])  # type: ignore[index]
        else:
            path.write_bytes(what[1])  # type: ignore[index]
            path.chmod(what[2])  # type: ignore[index]


@settings(max_examples=40, deadline=None)
@given(first=trees, second=trees)
def test_what_is_received_is_what_was_sent(
    tmp_path_factory: pytest.TempPathFactory, first: dict[str, object], second: dict[str, object]
) -> None:
    base = tmp_path_factory.mktemp("fsutil")
    target = base / "target"
    target.mkdir()
    kept: list[bytes] = []
    for number, tree in enumerate((first, second)):
        source = base / str(number)
        source.mkdir()
        make(source, tree)
        kept, _ = transfer(source, target, kept)
        assert seen(target) == seen(source)
        again, asked = transfer(source, target, kept)
        assert (again, asked) == (kept, 0)


def test_only_what_changed_is_asked_for(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "d").mkdir(parents=True)
    target.mkdir()
    for number in range(300):
        (source / "d" / str(number)).write_text(str(number))
    os.link(source / "d" / "7", source / "d" / "other")
    kept, asked = transfer(source, target, [])
    assert asked == 300
    (source / "d" / "7").write_text("seven")
    (source / "d" / "8").unlink()
    (source / "d" / "9").unlink()
    (source / "d" / "9").mkdir()
    (source / "new").write_bytes(b"x" * 700_000)
    kept, asked = transfer(source, target, kept)
    assert asked == 2
    assert seen(target) == seen(source)
    (source / "d" / "299").write_text("last")
    assert transfer(source, target, kept)[1] == 1
    assert seen(target) == seen(source)


@pytest.mark.parametrize(
    "stats",
    [
        [Stat(path="../x", mode=0o644)],
        [Stat(path="/etc/x", mode=0o644)],
        [Stat(path="a/../../x", mode=0o644)],
        [Stat(path="", mode=0o644)],
        [Stat(path="a\0b", mode=0o644)],
        [Stat(path="a//b", mode=0o644)],
        [Stat(path="x" * 300, mode=0o644)],
        [Stat(path="a/b", mode=0o644)],
        [Stat(path="a", mode=LINK, linkname="/etc"), Stat(path="a/passwd", mode=0o644)],
        [Stat(path="a", mode=0o644), Stat(path="a/b", mode=0o644)],
        [Stat(path="a", mode=0o644), Stat(path="a", mode=LINK, linkname="/etc/passwd")],
        [Stat(path="a", mode=0o644, linkname="../../etc/passwd")],
        [Stat(path="l", mode=LINK, linkname="/etc/passwd"), Stat(path="h", mode=0o644, linkname="l")],
        [Stat(path="a", mode=LINK)],
        [Stat(path="a", mode=1 << 31 | 1 << 27)],
        [Stat(path="a", mode=0o644, xattrs={"user.x": b"x" * 100_000})],
    ],
    ids=range(16),
)
def test_a_listing_that_reaches_outside_is_refused(tmp_path: Path, stats: list[Stat]) -> None:
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    receiver = Receiver(root, ())
    try:
        with pytest.raises(InvalidArgument):
            receiver.feed(described(*stats))
    finally:
        receiver.close()
        os.close(root)
    assert not list(tmp_path.iterdir())


def test_a_directory_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    """What was kept says directory, the tree has a link: somebody else's doing, and nothing is written through it."""
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()
    target.mkdir()
    (target / "d").symlink_to(outside)
    directory = Stat(path="d", mode=DIRECTORY)
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    receiver = Receiver(root, described(directory)[:1])
    try:
        receiver.feed(described(directory, Stat(path="d/f", mode=0o644, size=1)))
        with pytest.raises(OSError, match="openat2"):
            receiver.feed(data(1, b"x"))
    finally:
        receiver.close()
        os.close(root)
    assert not list(outside.iterdir())


def test_a_client_sends_only_what_was_asked_for(tmp_path: Path) -> None:
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for packets, kind in (
            (data(5, b"x"), InvalidArgument),
            ([Packet(type=FINISHED).SerializeToString()], InvalidArgument),
            ([Packet(type=ERROR, data=b"disk").SerializeToString()], Internal),
            ([b"\xff\xff"], InvalidArgument),
        ):
            receiver = Receiver(root, ())
            answers = receiver.feed(described(Stat(path="f", mode=0o644, size=3)))
            assert [Packet.FromString(one).type for one in answers] == [REQUEST]
            with pytest.raises(kind):
                receiver.feed(packets)
            receiver.close()
        with pytest.raises(InvalidArgument):
            Receiver(root, ()).feed(data(0, b"x"))
    finally:
        os.close(root)


def test_a_size_is_only_a_claim(tmp_path: Path) -> None:
    """A file said to have 2**62 bytes takes no room; what came is kept, and asked for again the next time."""
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    listing = described(Stat(path="f", mode=0o644, size=1 << 62))
    receiver = Receiver(root, ())
    try:
        receiver.feed(listing)
        receiver.feed(data(0, b"short"))
        assert receiver.finished
        assert (tmp_path / "f").read_bytes() == b"short"
        again = Receiver(root, receiver.listing)
        answers = [Packet.FromString(one).type for one in again.feed(listing)]
        assert answers == [REQUEST]
    finally:
        os.close(root)


@given(st.integers(0, 0o7777), st.sampled_from((stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK)))
def test_modes_go_both_ways(bits: int, kind: int) -> None:
    assert entry_of(Stat(path="x", mode=go_mode(kind | bits))).mode == kind | bits


@given(st.text(max_size=30))
def test_a_path_that_passes_stays_inside(path: str) -> None:
    try:
        checked = check_path(path)
    except InvalidArgument:
        return
    assert os.path.normpath(f"/root/{checked}") == f"/root/{checked}"
