"""What an unpacking is asked to do, and what it did."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from wherry.archive._ids import Ids


class Whiteouts(enum.Enum):
    """What ``.wh.`` names mean (OCI image-spec, layer.md#whiteouts)."""

    PLAIN = "plain"
    """Nothing: they are ordinary names (`docker cp`, import of a root file system)."""
    OVERLAY = "overlay"
    """A layer kept by itself: character devices 0:0 and trusted.overlay.opaque, as overlayfs wants them."""
    REMOVE = "remove"
    """A layer applied onto a copy of its parent: what they name is removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackOptions:
    """`path`: the destination inside the root, an existing directory.
    `owner`: (uid, gid) for everything unpacked, instead of what the archive says.
    `ids`: the root is seen through a user namespace with these ids; the archive's owners are those in it.
    `no_overwrite_dir_non_dir`: docker's parameter: a directory is not replaced by something else, nor the reverse.
    `lowers`: paths of this host, trusted, of the layers below, top first: a directory the layer implies without listing
    it takes owner, mode and times from there.
    `max_entries`, `max_bytes`: of regular files as they will be on disk, holes not counted.
    """

    path: str = "/"
    whiteouts: Whiteouts = Whiteouts.PLAIN
    owner: tuple[int, int] | None = None
    ids: Ids | None = None
    no_overwrite_dir_non_dir: bool = False
    lowers: Sequence[str] = field(default=())
    max_entries: int = 10_000_000
    max_bytes: int = 1 << 50


@dataclass(frozen=True, slots=True)
class UnpackResult:
    """`size`: bytes of all regular files, each as long as it claims to be. `skipped_xattrs`: names of those not set,
    since the file system cannot hold them or since they would steer overlayfs. `root`: whether the archive lists its
    root directory."""

    entries: int
    size: int
    skipped_xattrs: frozenset[str]
    root: bool = False
