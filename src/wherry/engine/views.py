"""The tree of a container that does not run, with its volumes and bind mounts where its processes would see them.

A detached mount of its files, onto which detached copies of what is mounted in it are put: nothing of it is on the
host's mount table, and closing the descriptor is all it takes to undo it. Kernels before 6.15 cannot put one detached
mount onto another; there it is put together at a private place and cloned from there.
"""

import errno
import os
import stat
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from wherry.engine.records import MountPoint
from wherry.kernel import mounts, paths
from wherry.kernel.mounts import MNT_DETACH, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY

_AT_FDCWD = paths.AT_FDCWD
_SAFE = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSUID


def missing(root: int, points: Iterable[MountPoint]) -> list[MountPoint]:
    """Those whose place is not there yet: it is made by the first start."""
    found = []
    for point in points:
        try:
            os.close(paths.open_in_root(root, point.destination))
        except OSError:
            found.append(point)
    return found


def make_places(root: int, points: Iterable[MountPoint]) -> None:
    """Make what `missing` found, as a start does. `root` is writable."""
    for point in points:
        try:
            made = paths.make_directories if _is_directory(point.source) else paths.make_file
            os.close(made(root, point.destination))
        except OSError:
            # A file is in the way, say: its start will fail, and say so. Here it is as if nothing were mounted.
            continue


def compose(root: int, points: Sequence[MountPoint], scratch: Path, *, writable: bool) -> int:
    """`root` (of `Snapshotter.open_root`, taken over) with `points` mounted in it, or what stands in for it.

    Of a source that is gone nothing is mounted. `scratch`: where to put it together if the kernel needs a place.
    """
    trees = [(point, tree) for point in _ordered(points) if (tree := _open(point, writable=writable)) is not None]
    try:
        if not trees:
            return root
        try:
            _attach(root, trees)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            root = compose_at(root, trees, scratch)
        return root
    except BaseException:
        os.close(root)
        raise
    finally:
        for _, tree in trees:
            os.close(tree)


def compose_at(root: int, trees: Sequence[tuple[MountPoint, int]], scratch: Path) -> int:
    """The same on kernels that need a place on the mount table for it, for a moment. Takes `root` over."""
    os.makedirs(scratch, mode=0o700, exist_ok=True)
    place = tempfile.mkdtemp(dir=scratch)
    try:
        mounts.move_mount(root, _AT_FDCWD, place)  # takes the mount out of what closing `root` undoes
        mounts.mount_setattr(_AT_FDCWD, place, propagation=mounts.MS_PRIVATE)
        try:
            _attach(root, trees)
            whole = mounts.open_tree(_AT_FDCWD, place, recursive=True)
        finally:
            mounts.umount(place, MNT_DETACH)
    finally:
        os.rmdir(place)
    os.close(root)
    return whole


def sweep(scratch: Path) -> None:
    """What a crash left of `compose_at`."""
    for place in scratch.iterdir() if scratch.is_dir() else ():
        try:
            mounts.umount(place, MNT_DETACH)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        place.rmdir()


def _attach(root: int, trees: Sequence[tuple[MountPoint, int]]) -> None:
    for point, tree in trees:
        try:
            place = paths.open_in_root(root, point.destination)
        except OSError:
            continue
        try:
            mounts.move_mount(tree, place)
        except OSError as error:
            # A directory on a file, or the reverse.
            if error.errno != errno.ENOTDIR:
                raise
        finally:
            os.close(place)


def _ordered(points: Sequence[MountPoint]) -> list[MountPoint]:
    return sorted((point for point in points if point.source), key=lambda point: point.destination.count("/"))


def _open(point: MountPoint, *, writable: bool) -> int | None:
    try:
        if not point.subpath:
            tree = mounts.open_tree(_AT_FDCWD, point.source, recursive=point.recursive)
        else:
            volume = os.open(point.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                beneath = paths.open_beneath(volume, point.subpath)
            finally:
                os.close(volume)
            try:
                tree = mounts.open_tree(beneath, "", recursive=point.recursive)
            finally:
                os.close(beneath)
    except FileNotFoundError:
        return None
    read_only = 0 if writable and point.rw else MOUNT_ATTR_RDONLY
    try:
        mounts.mount_setattr(tree, set=_SAFE | read_only, propagation=mounts.MS_PRIVATE, recursive=point.recursive)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _is_directory(source: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(source).st_mode)
    except OSError:
        return True
