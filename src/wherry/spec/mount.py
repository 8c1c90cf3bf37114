"""A mount as data: what a snapshotter hands to whoever has the mount namespace to perform it in."""

from typing import NamedTuple


class Mount(NamedTuple):
    """One mount(2), to be performed on a target that the performer chooses.

    `options` are as in fstab ("ro", "lowerdir=..."); `lowerdirs`, for overlay only, top layer first, are kept
    apart so that they can be given one by one (fsconfig "lowerdir+") and never meet the one-page limit of mount(2).
    """

    type: str
    source: str
    options: tuple[str, ...] = ()
    lowerdirs: tuple[str, ...] = ()
