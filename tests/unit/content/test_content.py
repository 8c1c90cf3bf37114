"""The content store: only whole, verified, referenced blobs are ever seen."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from wherry.content import ContentStore, Lease, collect
from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.spec.digest import Digest, sha256
from wherry.state import MemoryStore


@pytest.fixture
def content(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "content", MemoryStore())


@pytest.fixture
def lease(content: ContentStore) -> Iterator[Lease]:
    with content.leases.take("test") as lease:
        yield lease


def test_a_blob_is_seen_only_when_committed(content: ContentStore, lease: Lease) -> None:
    digest = sha256(b"hello")
    with content.ingest("k", lease) as ingest:
        ingest.write(b"hel")
        ingest.write(b"lo")
        assert not content.has(digest)
        assert ingest.commit(digest, 5) == (digest, 5)
    assert content.read(digest, 5) == b"hello"
    assert [*content.walk()] == [(digest, 5)]
    assert os.listdir(content.root / "ingests") == []


@pytest.mark.parametrize(("digest", "size"), [(sha256(b"other"), 5), (sha256(b"hello"), 6), (None, 4)])
def test_wrong_bytes_are_dropped(content: ContentStore, lease: Lease, digest: Digest | None, size: int) -> None:
    with content.ingest("k", lease) as ingest:
        ingest.write(b"hello")
        with pytest.raises(InvalidArgument, match="has"):
            ingest.commit(digest, size)
    assert [*content.walk()] == []
    assert os.listdir(content.root / "ingests") == []


def test_an_ingest_goes_on_where_it_stopped(content: ContentStore, lease: Lease) -> None:
    with content.ingest("k", lease) as first:
        first.write(b"hel")
    # Another process: nothing is shared but the directory.
    again = ContentStore(content.root, MemoryStore())
    with again.leases.take("test") as other, again.ingest("k", other) as second:
        assert second.offset == 3
        second.write(b"lo")
        second.commit(sha256(b"hello"))
    with content.ingest("k", lease) as third:
        assert third.offset == 0


def test_restart_forgets(content: ContentStore, lease: Lease) -> None:
    with content.ingest("k", lease) as ingest:
        ingest.write(b"wrong and longer")
        ingest.restart()
        ingest.write(b"right")
        ingest.commit(sha256(b"right"), 5)


def test_one_writer_per_key(content: ContentStore, lease: Lease) -> None:
    with content.ingest("k", lease):
        with pytest.raises(Conflict):
            content.ingest("k", lease)
    content.ingest("k", lease).abort()


def test_digests_never_become_other_paths(content: ContentStore) -> None:
    for bad in ("sha256:../../../etc/passwd", "../x", "sha256:" + "A" * 64):
        with pytest.raises(InvalidArgument):
            content.path(Digest(bad))


def test_a_truncated_blob_is_not_there(content: ContentStore, lease: Lease) -> None:
    info = content.add(b"hello", lease)
    content.path(info.digest).chmod(0o600)
    os.truncate(content.path(info.digest), 2)
    with pytest.raises(NotFound):
        content.open(info.digest)


def test_referenced_or_leased_or_collected(content: ContentStore) -> None:
    with content.leases.take("first") as first:
        manifest, layer, orphan = (content.add(data, first).digest for data in (b"manifest", b"layer", b"orphan"))
    stray = content.path(sha256(b"stray"))
    stray.write_bytes(b"stray")
    with content.leases.take("second") as second:
        leased = content.add(b"leased", second).digest
        links = {manifest: [layer]}
        assert collect(content, lambda: [manifest], lambda digest: links.get(digest, [])) == (1, 6)
        assert {info.digest for info in content.walk()} == {manifest, layer, leased}
    assert not stray.exists()
    assert not content.has(orphan)
    content.leases.drop()
    assert collect(content, list).blobs == 3


def test_no_blob_is_lost_between_commit_and_reference(content: ContentStore) -> None:
    """Blobs are made, referenced and unleased while a collector runs: none that is referenced may go."""
    roots: list[Digest] = []
    done = threading.Event()

    def sweep() -> None:
        while not done.is_set():
            collect(content, lambda: list(roots))

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for number in range(100):
            with content.leases.take("race") as lease:
                roots.append(content.add(f"blob {number}".encode(), lease).digest)
    finally:
        done.set()
        sweeper.join()
    assert {info.digest for info in content.walk()} == set(roots)
