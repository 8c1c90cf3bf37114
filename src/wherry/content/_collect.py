from collections.abc import Callable, Iterable
from typing import NamedTuple

from wherry.content._store import ContentStore
from wherry.errors import WherryError
from wherry.spec.digest import Digest, parse_digest

_INGEST_SECONDS = 24 * 3600.0


class Collected(NamedTuple):
    """How many blobs went, and how many bytes."""

    blobs: int
    size: int


def collect(
    content: ContentStore,
    roots: Callable[[], Iterable[Digest]],
    children: Callable[[Digest], Iterable[Digest]] = lambda digest: (),
) -> Collected:
    """Delete every blob that is neither reachable from `roots` or a lease.

    `children` gives what a blob refers to (a manifest: its configuration and layers). Leases are read before roots:
    an operation that ends in between has written its root already. Nothing is committed while this runs.
    """
    with content.lock:
        sizes = dict(content.walk())
        blobs = size = 0
        for digest in unreferenced(content, roots, children):
            content.delete(digest)
            if digest in sizes:
                blobs, size = blobs + 1, size + sizes[digest]
    content.expire_ingests(_INGEST_SECONDS)
    return Collected(blobs, size)


def unreferenced(
    content: ContentStore,
    roots: Callable[[], Iterable[Digest]],
    children: Callable[[Digest], Iterable[Digest]] = lambda digest: (),
) -> list[Digest]:
    """What `collect` would delete now: blobs without reference or lease, and files no commit recorded."""
    with content.lock:
        waiting = list(content.leases.digests())
        waiting += roots()
        kept: set[Digest] = set()
        while waiting:
            digest = waiting.pop()
            if digest not in kept:
                kept.add(digest)
                waiting.extend(children(digest))
        found = [info.digest for info in content.walk() if info.digest not in kept]
        return found + [digest for digest in content.strays() if digest not in kept and _is_digest(digest)]


def _is_digest(name: str) -> bool:
    try:
        parse_digest(name)
    except WherryError:
        return False
    return True
