"""What a snapshotter is.

Terms: a *layer* is a read-only tree, known by its ChainID, standing on at most one parent layer. A *writable* is the
top of one container, known by a key its owner chooses, standing on one layer or on nothing. Layers come to be by
`apply`, complete or not at all; writables by `prepare`. Nothing is removed while something stands on it.

    base = snapshotter.apply(None, diff_id, stream)
    snapshotter.prepare("4f1c...", base)
    perform(snapshotter.mounts("4f1c..."), on=rootfs)
    snapshotter.remove("4f1c...")

Every method may be called from any thread. Unknown layers and keys are NotFound, except in `has` and `remove`.
What another process left half done (a crash) is finished or undone when the snapshotter is constructed.
"""

from collections.abc import Callable, Collection
from enum import IntEnum
from typing import NamedTuple, Protocol

from wherry.archive import Readable, Writable
from wherry.spec.digest import ChainID, DiffID
from wherry.spec.mount import Mount


class ChangeKind(IntEnum):
    """As in the Engine API's ``ChangeType``."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


class Change(NamedTuple):
    """One line of `docker diff`; `path` is absolute."""

    kind: ChangeKind
    path: str


class Snapshotter(Protocol):
    @property
    def name(self) -> str:
        """As `docker info` shows the storage driver."""
        ...

    def has(self, chain: ChainID) -> bool: ...

    def layer_size(self, chain: ChainID) -> int:
        """Bytes of the regular files the layer itself brings."""
        ...

    def apply(
        self, parent: ChainID | None, diff_id: DiffID, tar: Readable, *, ready: Callable[[], object] | None = None
    ) -> ChainID:
        """Make the layer that `tar`, uncompressed, describes on `parent`. Present already: nothing is read.

        With `ready` the parent may still be on its way: it returns once the parent is there, or raises what kept it
        from being made. It is called when the parent is needed, at the latest before this layer is.

        InvalidArgument when the stream is malformed, unsafe, or not what `diff_id` says; then nothing is left of it.
        """
        ...

    def remove_layer(self, chain: ChainID) -> None:
        """Conflict while another layer or a writable stands on it; absent is NotFound."""
        ...

    def layers(self) -> list[ChainID]: ...

    def prepare(self, key: str, parent: ChainID | None, *, ephemeral: bool = False) -> None:
        """Make a writable; there already on the same parent: nothing happens, on another one: Conflict.

        `ephemeral`: what is written need not survive the machine's crash (a container with --rm).
        """
        ...

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """To be performed, in order, on the root file system's directory. Call again for each start."""
        ...

    def open_root(self, key: str, *, writable: bool = False) -> int:
        """A descriptor (O_PATH) of the whole tree, mounted nowhere; closing it unmounts it, and what was mounted in it.

        Writable only while nobody has `mounts` performed: overlayfs does not share an upper directory.
        """
        ...

    def changes(self, key: str) -> list[Change]:
        """What differs from the parent, sorted by path; directories above a change count as modified."""
        ...

    def diff(self, key: str, out: Writable, *, leave_out: Collection[str] = (), newest: int | None = None) -> None:
        """What differs from the parent, as an OCI layer's tar stream: of the same writable always the same bytes.

        `leave_out`: absolute paths whose own entry is not written, what is in them is. `newest`: nanoseconds since
        1970; a file changed later gets that time.
        """
        ...

    def usage(self, key: str) -> int:
        """Bytes of the writable's own regular files, each inode once."""
        ...

    def remove(self, key: str) -> None:
        """Remove a writable; absent is no error. Gone when this returns, its disk space a little later."""
        ...

    def keys(self) -> list[str]: ...

    def close(self) -> None:
        """Stop background work; what is left of it is taken up at the next construction."""
        ...
