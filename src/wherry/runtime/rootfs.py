"""The root of a container: its mounts attached, hidden and read-only parts, and the change of root."""

from __future__ import annotations

import os
import stat

from wherry.kernel import mounts
from wherry.kernel.paths import AT_FDCWD, open_in_root
from wherry.runtime import options as mount_options
from wherry.runtime.scene import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from wherry.runtime.scene import Scene
    from wherry.spec.mount import Mount
else:
    from wherry.kernel.tuples import NamedTuple


class Isolate(NamedTuple):
    """Nothing that is mounted from here on is seen by the host; what the host mounts may arrive (slave).

    `shared`: the mounts below the root stay the host's peers, for bind mounts that shall be.
    """

    shared: bool

    def describe(self) -> str:
        return "set the propagation of the host's mounts"

    def apply(self, scene: Scene) -> None:
        mounts.mount(None, "/", None, mounts.MS_PRIVATE if self.shared else mounts.MS_SLAVE | mounts.MS_REC)


def open_mount(mount: Mount, maps: tuple[str, str] = ("", "")) -> int:
    """A detached mount for one `spec.mount.Mount`: a bind mount or a file system such as overlay.

    `maps`: for one with the option "idmap", which for overlay maps its layers.
    """
    parsed = mount_options.parse(mount.options)
    if parsed.idmap and mount.type == "overlay":
        from wherry.runtime.idmap import open_overlay

        given = [option.partition("=") for option in parsed.data.split(",")]
        places = {name: value for name, _, value in given if name in ("upperdir", "workdir")}
        rest = ["".join(parts) for parts in given if parts[0] not in places]
        upper, work = places.get("upperdir", ""), places.get("workdir", "")
        return open_overlay(mount.lowerdirs, upper, work, rest, parsed.attributes.set, maps)
    if parsed.bind or mount.type == "bind":
        tree = mounts.open_tree(AT_FDCWD, mount.source, recursive=parsed.bind_recursive)
        if parsed.idmap:
            from wherry.runtime.idmap import map_tree

            map_tree(tree, *maps)
        mounts.mount_setattr(tree, set=parsed.attributes.set, propagation=mounts.MS_PRIVATE)
        return tree
    context = mounts.fsopen(mount.type)
    try:
        if mount.source:
            mounts.fsconfig_string(context, "source", mount.source)
        for directory in mount.lowerdirs:
            mounts.fsconfig_string(context, "lowerdir+", directory)
        for option in parsed.data.split(",") if parsed.data else ():
            key, equals, value = option.partition("=")
            if equals:
                mounts.fsconfig_string(context, key, value)
            else:
                mounts.fsconfig_flag(context, key)
        # "ro" is the superblock's too: an overlay without upperdir is read-only anyway, other file systems care.
        if parsed.flags & mounts.MS_RDONLY:
            mounts.fsconfig_flag(context, "ro")
        mounts.fsconfig_create(context)
        return mounts.fsmount(context, parsed.attributes.set)
    finally:
        os.close(context)


class Root(NamedTuple):
    """Attach the root file system: the given mounts one on the other, or `path` bound.

    It is stacked on the host's root, not on `path`, which a user namespace's root may have no way to reach.
    """

    path: str
    layers: tuple[Mount, ...]
    prepared: bool = False

    def describe(self) -> str:
        return f"mount the root file system from {self.path}"

    def open_trees(self, maps: tuple[str, str] = ("", "")) -> list[int]:
        """Detached mounts, in the order in which they are stacked."""
        if not self.layers:
            return [mounts.open_tree(AT_FDCWD, self.path, recursive=True)]
        return [open_mount(layer, maps) for layer in self.layers]

    def apply(self, scene: Scene) -> None:
        trees = [scene.trees[f"root{i}"] for i in range(len(self.layers) or 1)] if self.prepared else self.open_trees()
        for tree in trees:
            mounts.move_mount(tree, AT_FDCWD, "/")
            # pivot_root(2) refuses a shared new root, and its own mounts are nobody else's.
            mounts.mount_setattr(tree, propagation=mounts.MS_PRIVATE)
        scene.root = trees[-1]


class Pivot(NamedTuple):
    """Make the new root the root and let go of the host's. `move`: for a root on a ramfs, where pivot_root fails."""

    move: bool = False

    def describe(self) -> str:
        return "change the root"

    def apply(self, scene: Scene) -> None:
        os.fchdir(scene.root)
        if self.move:
            mounts.mount(".", "/", None, mounts.MS_MOVE)
            os.chroot(".")
        else:
            # The old root is stacked on the new one, and taken off again: no directory is needed for it.
            mounts.pivot_root(".", ".")
            mounts.umount(".", mounts.MNT_DETACH)
        os.chdir("/")


class SetRoot(NamedTuple):
    """The root's own propagation and read-only flag, once it is the root."""

    propagation: int
    readonly: bool

    def describe(self) -> str:
        return "set the attributes of the root"

    def apply(self, scene: Scene) -> None:
        if self.propagation:
            mounts.mount(None, "/", None, self.propagation)
        if self.readonly:
            mounts.mount_setattr(AT_FDCWD, "/", set=mounts.MOUNT_ATTR_RDONLY)


class Mask(NamedTuple):
    """Hide paths: files behind /dev/null, directories behind an empty read-only tmpfs. What lacks is skipped."""

    paths: tuple[str, ...]

    def describe(self) -> str:
        return "mask paths"

    def apply(self, scene: Scene) -> None:
        for path in self.paths:
            try:
                target = open_in_root(scene.root, path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if stat.S_ISDIR(os.fstat(target).st_mode):
                tree = mounts.open_tree(self._empty(scene), "")
            else:
                # The host's, whose root is still ours; the descriptor from the parent is of another mount namespace.
                tree = mounts.open_tree(AT_FDCWD, "/dev/null")
                require_null(tree)
            mounts.move_mount(tree, target)
            os.close(tree)
            os.close(target)

    @staticmethod
    def _empty(scene: Scene) -> int:
        if scene.mask < 0:
            context = mounts.fsopen("tmpfs")
            mounts.fsconfig_string(context, "mode", "755")
            mounts.fsconfig_string(context, "size", "0")
            mounts.fsconfig_string(context, "nr_inodes", "2")
            mounts.fsconfig_create(context)
            scene.mask = mounts.fsmount(context, mounts.MOUNT_ATTR_RDONLY | 0xE)
            os.close(context)
        return scene.mask


def require_null(fd: int) -> None:
    """What hides secrets must be the null device, not what an image calls /dev/null (CVE-2025-31133)."""
    info = os.fstat(fd)
    if not stat.S_ISCHR(info.st_mode) or info.st_rdev != os.makedev(1, 3):
        raise Refused("FailedPrecondition", "/dev/null is not the null device")


class ReadOnly(NamedTuple):
    """Paths bound on themselves, read-only, with all that is mounted beneath. What lacks is skipped."""

    paths: tuple[str, ...]

    def describe(self) -> str:
        return "make paths read-only"

    def apply(self, scene: Scene) -> None:
        for path in self.paths:
            try:
                target = open_in_root(scene.root, path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            tree = mounts.open_tree(target, "", recursive=True)
            mounts.mount_setattr(tree, set=mounts.MOUNT_ATTR_RDONLY, recursive=True)
            mounts.move_mount(tree, target)
            os.close(tree)
            os.close(target)


class Freeze(NamedTuple):
    """Make one mount read-only after it was filled (/dev with "ro")."""

    target: str

    def describe(self) -> str:
        return f"make {self.target} read-only"

    def apply(self, scene: Scene) -> None:
        fd = open_in_root(scene.root, self.target)
        mounts.mount_setattr(fd, set=mounts.MOUNT_ATTR_RDONLY)
        os.close(fd)
