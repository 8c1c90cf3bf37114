"""Root file systems by plain copies: slow and large, and right on any file system.

<root>/layers/<name>/diff                the whole tree of a layer and those below it
<root>/writable/<key>@<layer>/           of one container: a copy of the layer's
"""

import os
import stat
from collections.abc import Collection
from pathlib import Path

from wherry.archive import PackOptions, UnpackOptions, UnpackResult, Whiteouts, copy_tree, pack, unpack
from wherry.archive import Writable as Out
from wherry.kernel import mounts, paths
from wherry.kernel.sweeper import Sweeper
from wherry.snapshots._changes import compare
from wherry.snapshots._contract import Change, ChangeKind
from wherry.snapshots._layered import LayeredSnapshotter, Writable, opened
from wherry.snapshots._layers import Below
from wherry.snapshots._stream import DigestingStream
from wherry.spec.mount import Mount


class NativeSnapshotter(LayeredSnapshotter):
    """For file systems that overlayfs cannot use as upper, and as the yardstick of the other."""

    name = "vfs"

    def __init__(self, root: Path, sweeper: Sweeper | None = None) -> None:
        super().__init__(root, sweeper)
        self._incoming = root / "incoming"
        self._load()

    def mounts(self, key: str) -> tuple[Mount, ...]:
        return (Mount("bind", self._get(key).path, ("rbind", "rw")),)

    def open_root(self, key: str, *, writable: bool = False) -> int:
        return mounts.open_tree(paths.AT_FDCWD, self._get(key).path)

    def changes(self, key: str) -> list[Change]:
        writable = self._get(key)
        with opened(writable.path) as tree:
            if writable.layer is None:
                return compare(tree, None, whole=True)
            with opened(writable.layer.path) as below:
                return compare(tree, below, whole=True)

    def diff(self, key: str, out: Out, *, leave_out: Collection[str] = (), newest: int | None = None) -> None:
        left = set(leave_out)
        changes = [change for change in self.changes(key) if change.path not in left]
        found = {os.fsencode(change.path[1:]) for change in changes if change.kind is not ChangeKind.DELETED}
        deleted = [os.fsencode(change.path[1:]) for change in changes if change.kind is ChangeKind.DELETED]
        options = PackOptions(name="", skip=lambda path: path not in found, deleted=deleted, newest=newest)
        with opened(self._get(key).path) as tree:
            pack(tree, "/", out, options)

    def usage(self, key: str) -> int:
        total = 0
        with opened(self._get(key).path) as tree:
            for change in self.changes(key):
                if change.kind is not ChangeKind.DELETED:
                    status = os.stat(change.path.lstrip("/"), dir_fd=tree, follow_symlinks=False)
                    total += 0 if stat.S_ISDIR(status.st_mode) else status.st_size
        return total

    def _fill(self, stream: DigestingStream, diff: Path, below: Below) -> UnpackResult:
        with opened(diff) as root:
            if lineage := below():
                with opened(lineage[0].path) as parent:
                    copy_tree(parent, root)
            return unpack(stream, root, UnpackOptions(whiteouts=Whiteouts.REMOVE))

    def _complete(self, writable: Writable) -> None:
        if os.path.isdir(writable.path):
            return
        # Copied aside: under its own name it is complete.
        aside = self._incoming / os.urandom(8).hex()
        os.mkdir(aside)
        os.chmod(aside, 0o755)
        if writable.layer is not None:
            with opened(writable.layer.path) as source, opened(aside) as target:
                copy_tree(source, target)
        os.rename(aside, writable.path)
