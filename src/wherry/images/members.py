"""The files of an image archive, put into the content store as they stream by.

Nothing of the archive touches a path of this machine: a name is only a key in a table, a link only a second name for
a key, and what is not a file is passed over. Whatever turns out not to belong to an image is collected afterwards.
"""

import posixpath
from typing import BinaryIO

from wherry.archive import DIRECTORY, HARD_LINK, REGULAR, SYMLINK, Entry, TarReader
from wherry.content import BlobInfo, ContentStore, Lease
from wherry.errors import InvalidArgument
from wherry.spec.digest import Digest, parse_digest
from wherry.spec.oci_image import DOCUMENT_MAX

_MEMBERS_MAX = 100_000
_LINKS_MAX = 16


class Members:
    """Name to blob. Names are relative and normal ("blobs/sha256/ab12", "manifest.json")."""

    def __init__(self, content: ContentStore, lease: Lease, limit: int) -> None:
        self._content = content
        self._lease = lease
        self._limit = limit
        self._blobs: dict[str, BlobInfo] = {}
        self._links: dict[str, str] = {}

    def read(self, stream: BinaryIO) -> None:
        """Take in a whole tar."""
        reader = TarReader(stream)
        while (entry := reader.next()) is not None:
            self._take(reader, entry)
        reader.drain()

    def find(self, name: str) -> BlobInfo | None:
        """The blob of a member, through links within the archive."""
        key = normalize(name)
        for _ in range(_LINKS_MAX):
            if key in self._blobs:
                return self._blobs[key]
            if key not in self._links:
                return None
            key = self._links[key]
        raise InvalidArgument(f"archive member {name!r} is a loop of links", object=name)

    def get(self, name: str) -> BlobInfo:
        found = self.find(name)
        if found is None:
            raise InvalidArgument(f"the archive has no member {name!r}", object=name)
        return found

    def document(self, name: str) -> bytes:
        """A member that is JSON: in memory, at most 4 MiB."""
        return read_document(self._content, self.get(name))

    def _take(self, reader: TarReader, entry: Entry) -> None:
        if entry.kind == DIRECTORY:
            return
        name = normalize(entry.name.decode("utf-8", "surrogateescape"))
        if name in self._blobs or name in self._links:
            raise InvalidArgument(f"the archive has two members called {name!r}", object=name)
        if len(self._blobs) + len(self._links) >= _MEMBERS_MAX:
            raise InvalidArgument(f"the archive has more than {_MEMBERS_MAX} members")
        if entry.kind in (SYMLINK, HARD_LINK):
            target = entry.link.decode("utf-8", "surrogateescape")
            base = posixpath.dirname(name) if entry.kind == SYMLINK else ""
            self._links[name] = normalize(posixpath.join(base, target))
        elif entry.kind == REGULAR:
            self._blobs[name] = self._store(reader, entry, name)
        else:
            raise InvalidArgument(f"archive member {name!r} is neither file nor link", object=name)

    def _store(self, reader: TarReader, entry: Entry, name: str) -> BlobInfo:
        expected = _named_digest(name)
        if expected is not None:
            self._lease.add(expected)
            if self._content.has(expected):
                # Verified when it came; the next entry skips over this one's data.
                return self._content.info(expected)
        self._limit -= entry.size
        if self._limit < 0:
            raise InvalidArgument("the archive is larger than the space there is for it")
        algorithm = expected.partition(":")[0] if expected else "sha256"
        with self._content.ingest(f"{self._lease.name}-{name}", self._lease, algorithm=algorithm) as ingest:
            try:
                for part in reader.body(entry):
                    ingest.write(part)
                return ingest.commit(expected, entry.size)
            except BaseException:
                ingest.abort()
                raise


def normalize(name: str) -> str:
    """A member's name as a key; InvalidArgument for names that lead out of the archive."""
    normal = posixpath.normpath(name)
    if normal == ".." or normal.startswith(("/", "../")) or "\0" in normal:
        raise InvalidArgument(f"archive member {name!r} leads out of the archive", object=name)
    return normal


def read_document(content: ContentStore, blob: BlobInfo) -> bytes:
    if blob.size > DOCUMENT_MAX:
        raise InvalidArgument(f"{blob.digest} is too large for an image document", object=blob.digest)
    return content.read(blob.digest, DOCUMENT_MAX)


def _named_digest(name: str) -> Digest | None:
    parts = name.split("/")
    if len(parts) != 3 or parts[0] != "blobs":
        return None
    try:
        return parse_digest(f"{parts[1]}:{parts[2]}")
    except InvalidArgument:
        return None
