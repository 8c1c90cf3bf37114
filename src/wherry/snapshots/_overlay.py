"""Root file systems by overlayfs: layers stay apart, the kernel shows them as one.

    <root>/layers/<name>/diff                a layer, with overlay's marks for what it deletes
    <root>/writable/<key>@<layer>/           of one container: upper/, work/
    <root>/empty                             stands in for a parent, so that every root is an overlay

Options, each for a reason:
- index=off: with an index, a hard link copied up keeps its other names, but an upper directory could then not be
  mounted again on other layers or after a copy; docker, podman and containerd run without.
- metacopy=off, redirect_dir=nofollow: the upper directory alone must say what changed (docker diff, commit), and no
  attribute in an image may point anywhere (the unpacker drops trusted.overlay.* too).
- volatile only for ephemeral writables: without it a container's fsync is honoured, at the price of a sync of the
  upper file system when the last mount goes.
"""

import os
import stat
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import overload

from wherry.archive import PackOptions, UnpackOptions, UnpackResult, Whiteouts, pack, tree_size, unpack
from wherry.archive import Writable as Out
from wherry.errors import InvalidArgument
from wherry.kernel import mounts
from wherry.kernel.mounts import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY
from wherry.kernel.sweeper import Sweeper
from wherry.snapshots._changes import compare
from wherry.snapshots._contract import Change
from wherry.snapshots._layered import LayeredSnapshotter, Writable, opened
from wherry.snapshots._layers import Below
from wherry.snapshots._stream import DigestingStream
from wherry.spec.digest import ChainID, DiffID
from wherry.spec.mount import Mount

# OVL_MAX_STACK, fs/overlayfs/overlayfs.h.
_MAX_LAYERS = 500
_OPTIONS = ("index=off", "metacopy=off", "redirect_dir=nofollow")


class OverlaySnapshotter(LayeredSnapshotter):
    """The Snapshotter of Linux with overlayfs; needs CAP_SYS_ADMIN."""

    name = "overlay2"

    def __init__(self, root: Path, sweeper: Sweeper | None = None) -> None:
        super().__init__(root, sweeper)
        self._empty = str(root / "empty")
        with suppress(FileExistsError):
            os.mkdir(self._empty, 0o755)
        self._load()

    def mounts(self, key: str) -> tuple[Mount, ...]:
        writable = self._get(key)
        options: tuple[str, ...] = (f"upperdir={writable.path}/upper", f"workdir={writable.path}/work", *_OPTIONS)
        if writable.ephemeral:
            # The kernel leaves this mark on every volatile mount, to refuse the next one after a crash.
            with suppress(FileNotFoundError):
                mark = f"{writable.path}/work/work/incompat/volatile"
                os.unlink(f"{mark}/dirty")
                os.rmdir(mark)
            options += ("volatile",)
        return (Mount("overlay", "overlay", options, self._below(writable)),)

    def open_root(self, key: str, *, writable: bool = False) -> int:
        found = self._get(key)
        below = self._below(found)
        if writable or len(below) == _MAX_LAYERS:
            (mount,) = self.mounts(key)
            return _detached(mount, read_only=not writable)
        # As a lower layer the upper directory shows the same tree, and is not taken by this mount.
        return _view(f"{found.path}/upper", *below)

    def changes(self, key: str) -> list[Change]:
        writable = self._get(key)
        with opened(f"{writable.path}/upper") as upper:
            if writable.layer is None:
                return compare(upper, None)
            lowers = self._below(writable)
            # One alone is no overlay.
            below = _view(*lowers) if len(lowers) > 1 else _view(*lowers, self._empty)
            try:
                return compare(upper, below)
            finally:
                os.close(below)

    def usage(self, key: str) -> int:
        with opened(f"{self._get(key).path}/upper") as upper:
            return tree_size(upper)

    def diff(self, key: str, out: Out, *, leave_out: Collection[str] = (), newest: int | None = None) -> None:
        skip = {os.fsencode(path.lstrip("/")) for path in leave_out}
        with opened(f"{self._get(key).path}/upper") as upper:
            pack(upper, "/", out, PackOptions(name="", layer=True, skip=skip.__contains__, newest=newest))

    def commit(self, key: str, diff_id: DiffID, size: int, *, parent: ChainID | None) -> ChainID:
        """Make what was written to `key`, which nobody has mounted, a layer on `parent` without copying; `key` is gone.

        `diff_id` is the digest of what `diff` writes, which the caller has just computed. `parent` is what it was
        prepared on, or another layer for what was written without looking at the one below (COPY --link).
        """
        with self._lock:
            writable = self._get(key)
            chain = self._layers.adopt(parent, diff_id, size, f"{writable.path}/upper")
        self.remove(key)
        return chain

    def pack_layer(self, chain: ChainID, out: Out) -> None:
        """A layer as its tar stream: for one that was committed, the bytes `diff` wrote then."""
        with opened(self._layers.get(chain).path) as layer:
            pack(layer, "/", out, PackOptions(name="", layer=True))

    def layer_paths(self, chain: ChainID | None) -> tuple[str, ...]:
        """The directories a tree is made of, top first, as overlay's lower directories; of none, an empty one."""
        if chain is None:
            return (self._empty,)
        return tuple(layer.path for layer in self._layers.lineage(chain))

    @staticmethod
    def open_layers(paths: tuple[str, ...], empty: str) -> int:
        """A descriptor of the tree that `paths` show, mounted nowhere and read-only; closing it unmounts."""
        return _view(*paths) if len(paths) > 1 else _view(*paths, empty)

    def open_tree(self, chain: ChainID | None) -> int:
        """A descriptor of a layer's whole tree, mounted nowhere and read-only; closing it unmounts."""
        return self.open_layers(self.layer_paths(chain), self._empty)

    def _below(self, writable: Writable) -> tuple[str, ...]:
        if writable.layer is None:
            return (self._empty,)
        return tuple(layer.path for layer in self._layers.lineage(writable.layer.chain))

    def _complete(self, writable: Writable) -> None:
        lower = writable.layer.path if writable.layer else None
        with suppress(FileExistsError):
            os.mkdir(writable.path, 0o700)
        with suppress(FileExistsError):
            os.mkdir(f"{writable.path}/work", 0o700)
        upper = f"{writable.path}/upper"
        try:
            os.mkdir(upper, 0o755)
        except FileExistsError:
            return
        # The root directory a container sees is the upper one: it takes its looks from the image's.
        status = os.stat(lower or self._empty)
        if (status.st_uid, status.st_gid) != (0, 0):
            os.chown(upper, status.st_uid, status.st_gid)
        os.chmod(upper, stat.S_IMODE(status.st_mode))

    def _fill(self, stream: DigestingStream, diff: Path, below: Below) -> UnpackResult:
        root = os.open(diff, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            result = unpack(stream, root, UnpackOptions(whiteouts=Whiteouts.OVERLAY, lowers=_Lowers(below)))
        finally:
            os.close(root)
        lineage = below()
        if len(lineage) >= _MAX_LAYERS:
            raise InvalidArgument(f"image has more than {_MAX_LAYERS} layers, more than the kernel can stack")
        if lineage and not result.root:
            # A layer that does not list its root directory leaves it as it was.
            status = os.stat(lineage[0].path)
            os.chown(diff, status.st_uid, status.st_gid)
            os.chmod(diff, stat.S_IMODE(status.st_mode))
        return result


class _Lowers(Sequence[str]):
    """The paths of the layers below, asked for when they are needed: most layers can be unpacked without."""

    def __init__(self, below: Below) -> None:
        self._paths = cache(lambda: [layer.path for layer in below()])

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self._paths()[index]

    def __len__(self) -> int:
        return len(self._paths())


def _view(*lowers: str) -> int:
    return _detached(Mount("overlay", "overlay", _OPTIONS, lowers), read_only=True)


def _detached(mount: Mount, *, read_only: bool) -> int:
    """Perform an overlay mount without attaching it."""
    context = mounts.fsopen(mount.type)
    try:
        for option in mount.options:
            key, equals, value = option.partition("=")
            if equals:
                mounts.fsconfig_string(context, key, value)
            else:
                mounts.fsconfig_flag(context, key)
        for lower in mount.lowerdirs:
            mounts.fsconfig_string(context, "lowerdir+", lower)
        mounts.fsconfig_create(context)
        # The daemon reads and writes files here; nothing of the container's may act on it.
        attributes = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC
        # As it is (O_PATH): when this very descriptor is closed the mount is undone, and with what is left of one by
        # other descriptors ".." is never resolved, nor can anything be mounted there.
        return mounts.fsmount(context, attributes | (MOUNT_ATTR_RDONLY if read_only else 0))
    finally:
        os.close(context)
