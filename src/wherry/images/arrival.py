"""A blob on its way: what has come of it can be read while the rest still comes.

Nobody may believe what is read here before the blob is verified; a layer is, by its own digest, before it is published.
"""

import io
import os
from threading import Condition
from typing import BinaryIO, cast

from wherry.content import ContentStore, Ingest
from wherry.errors import Internal
from wherry.spec.digest import Digest


class Arrival:
    """Told of a download by the one who makes it; `open` is for another thread, which waits for bytes."""

    def __init__(self, content: ContentStore, digest: Digest) -> None:
        self._content, self._digest = content, digest
        self._changed = Condition()
        self._ingest: Ingest | None = None
        self._fd = -1
        self._ended = False
        self._error: BaseException | None = None

    def begin(self, ingest: Ingest) -> None:
        """The bytes come into `ingest`."""
        with self._changed:
            self._ingest = ingest
            self._fd = os.open(ingest.data, os.O_RDONLY | os.O_CLOEXEC)
            self._changed.notify_all()

    def advance(self) -> None:
        """There are more bytes."""
        with self._changed:
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """All bytes are there and verified; or none will follow, and why. The first call counts."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
                self._changed.notify_all()

    def close(self) -> None:
        """When nobody reads any more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def open(self) -> BinaryIO:
        """The blob from its start; waits until it begins to come. Reading raises what the download failed with."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._ingest is not None)
            if self._ingest is None:
                self._check()
                return self._content.open(self._digest)
        return cast(BinaryIO, _Following(self))

    def read(self, position: int, view: memoryview) -> int:
        """Fill `view` from `position` as far as there are bytes, waiting for the first; 0 at the end."""
        ingest = cast(Ingest, self._ingest)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or ingest.offset > position)
                self._check()
                available = ingest.offset - position
            if available <= 0:
                return 0
            count = os.preadv(self._fd, [view[:available]], position)
            if count:
                return count
            # The sender has just started anew: it sends the same bytes again.

    def _check(self) -> None:
        if self._error is not None:
            # Its own kind and words are the downloader's to raise.
            raise Internal(f"the download of {self._digest} ended: {self._error}", object=self._digest)


class _Following(io.RawIOBase):
    """The readable end."""

    def __init__(self, arrival: Arrival) -> None:
        self._arrival, self._position = arrival, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        count = self._arrival.read(self._position, memoryview(buffer).cast("B"))  # type: ignore[arg-type]
        self._position += count
        return count
