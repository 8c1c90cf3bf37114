"""Root file systems by overlayfs: layers stay apart, the kernel shows them as one.

    <root>/layers/...                        see _layers
    <root>/writable/<key>@<layer>[@e]/       of one container: upper/, work/; the name holds what there is to know
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
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from wherry.archive import Readable, UnpackOptions, UnpackResult, Whiteouts, tree_size, unpack
from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.kernel import mounts
from wherry.kernel.mounts import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY
from wherry.snapshots._changes import compare
from wherry.snapshots._contract import Change
from wherry.snapshots._layers import Layer, Layers
from wherry.snapshots._stream import DigestingStream
from wherry.spec.digest import ChainID, DiffID
from wherry.spec.mount import Mount

_OPTIONS = ("index=off", "metacopy=off", "redirect_dir=nofollow")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_NOTHING = "-"
_EPHEMERAL = "e"


class _Writable(NamedTuple):
    path: str
    layer: Layer | None
    ephemeral: bool


class OverlaySnapshotter:
    """The Snapshotter of Linux with overlayfs; needs CAP_SYS_ADMIN. `root` is made when absent."""

    name = "overlay2"

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._layers = Layers(root)
        self._janitor = self._layers.janitor
        self._empty, self._directory = str(root / "empty"), str(root / "writable")
        for path in (self._empty, self._directory):
            with suppress(FileExistsError):
                os.mkdir(path, 0o755)
        self._lock = Lock()
        self._writables: dict[str, _Writable] = {}
        self._load()

    def has(self, chain: ChainID) -> bool:
        return self._layers.find(chain) is not None

    def layer_size(self, chain: ChainID) -> int:
        return self._layers.get(chain).size

    def apply(self, parent: ChainID | None, diff_id: DiffID, tar: Readable) -> ChainID:
        return self._layers.add(parent, diff_id, tar, _fill)

    def remove_layer(self, chain: ChainID) -> None:
        with self._lock:
            layer = self._layers.get(chain)
            if self._layers.has_child(chain) or any(w.layer == layer for w in self._writables.values()):
                raise Conflict(f"layer {chain} is in use", object=chain)
            self._layers.remove(layer)

    def layers(self) -> list[ChainID]:
        return self._layers.chains()

    def prepare(self, key: str, parent: ChainID | None, *, ephemeral: bool = False) -> None:
        if not _KEY.fullmatch(key):
            raise InvalidArgument(f"invalid snapshot key {key!r}", object=key)
        with self._lock:
            layer = None if parent is None else self._layers.get(parent)
            there = self._writables.get(key)
            if there is not None:
                if there.layer != layer:
                    raise Conflict(f"snapshot {key} stands on another layer already", object=key)
                return
            name = f"{key}@{layer.name if layer else _NOTHING}" + (f"@{_EPHEMERAL}" if ephemeral else "")
            writable = _Writable(f"{self._directory}/{name}", layer, ephemeral)
            self._complete(writable)
            self._writables[key] = writable

    def mounts(self, key: str) -> tuple[Mount, ...]:
        writable = self._get(key)
        options: tuple[str, ...] = (f"upperdir={writable.path}/upper", f"workdir={writable.path}/work", *_OPTIONS)
        if writable.ephemeral:
            # The kernel leaves this mark on every volatile mount, to refuse the next one after a crash.
            with suppress(FileNotFoundError):
                os.rmdir(f"{writable.path}/work/work/incompat/volatile")
            options += ("volatile",)
        return (Mount("overlay", "overlay", options, self._lowers(writable)),)

    def open_root(self, key: str, *, writable: bool = False) -> int:
        found = self._get(key)
        if writable:
            (mount,) = self.mounts(key)
            return _detached(mount)
        # As a lower layer the upper directory shows the same tree, and is not taken by this mount.
        return _detached(Mount("overlay", "overlay", _OPTIONS, (f"{found.path}/upper", *self._lowers(found))))

    def changes(self, key: str) -> list[Change]:
        writable = self._get(key)
        with self._opened(f"{writable.path}/upper") as upper:
            lowers = self._lowers(writable)
            below = _detached(Mount("overlay", "overlay", _OPTIONS, (*lowers, self._empty)))
            try:
                return compare(upper, below)
            finally:
                os.close(below)

    def usage(self, key: str) -> int:
        with self._opened(f"{self._get(key).path}/upper") as upper:
            return tree_size(upper)

    def remove(self, key: str) -> None:
        with self._lock:
            writable = self._writables.pop(key, None)
            if writable is not None:
                with suppress(FileNotFoundError):
                    self._janitor.discard(writable.path)

    def keys(self) -> list[str]:
        return list(self._writables)

    def close(self) -> None:
        self._janitor.close()

    def _get(self, key: str) -> _Writable:
        found = self._writables.get(key)
        if found is None:
            raise NotFound(f"snapshot {key} does not exist", object=key)
        return found

    def _lowers(self, writable: _Writable) -> tuple[str, ...]:
        if writable.layer is None:
            return (self._empty,)
        return tuple(layer.path for layer in self._layers.lineage(writable.layer.chain))

    def _load(self) -> None:
        by_name = {layer.name: layer for layer in map(self._layers.get, self._layers.chains())}
        for name in os.listdir(self._directory):
            key, _, rest = name.partition("@")
            layer_name, _, flag = rest.partition("@")
            path = f"{self._directory}/{name}"
            if layer_name != _NOTHING and layer_name not in by_name:
                self._janitor.discard(path)
                continue
            writable = _Writable(path, by_name.get(layer_name), flag == _EPHEMERAL)
            self._complete(writable)
            self._writables[key] = writable

    def _complete(self, writable: _Writable) -> None:
        """Make what lacks of a writable; a crash may have come between any two of these."""
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
        if lower is not None:
            status = os.stat(lower)
            if (status.st_uid, status.st_gid) != (0, 0):
                os.chown(upper, status.st_uid, status.st_gid)
            os.chmod(upper, stat.S_IMODE(status.st_mode))

    @contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)


def _fill(stream: DigestingStream, diff: Path, below: tuple[Layer, ...]) -> UnpackResult:
    if below:
        # A layer that does not list its root directory leaves it as it was.
        status = os.stat(below[0].path)
        os.chown(diff, status.st_uid, status.st_gid)
        os.chmod(diff, stat.S_IMODE(status.st_mode))
    root = os.open(diff, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        options = UnpackOptions(whiteouts=Whiteouts.OVERLAY, lowers=[layer.path for layer in below])
        return unpack(stream, root, options)
    finally:
        os.close(root)


def _detached(mount: Mount) -> int:
    """Perform an overlay mount without attaching it. Read-only when it has no upper directory."""
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
        read_only = not any(option.startswith("upperdir=") for option in mount.options)
        # The daemon reads and writes files here; nothing of the container's may act on it.
        attributes = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC
        mount_fd = mounts.fsmount(context, attributes | (MOUNT_ATTR_RDONLY if read_only else 0))
        try:
            # fsmount gives an O_PATH descriptor; the mount lives as long as anything of it is open.
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount_fd)
        finally:
            os.close(mount_fd)
    finally:
        os.close(context)
