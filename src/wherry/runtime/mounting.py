"""The mounts of a container, as operations.

Every target is opened with openat2(RESOLVE_IN_ROOT) and the mount is attached to what was opened, never to a path:
links that an image or a neighbour sharing a volume puts in the way lead nowhere outside (CVE-2021-30465).
"""

from __future__ import annotations

import errno
import os
import stat

from wherry.kernel import files, mounts
from wherry.kernel.paths import (
    AT_FDCWD,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_SYMLINKS,
    fd_path,
    make_directories,
    make_file,
    open_beneath,
    open_in_root,
    openat2,
)
from wherry.runtime.scene import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from wherry.runtime.options import Attributes, Options
    from wherry.runtime.scene import Scene
else:
    from wherry.kernel.tuples import NamedTuple

# What lxcfs and the like put over single files; anything else inside /proc would let a mount pretend to be the kernel.
_OVER_PROC = frozenset(
    "/proc/" + name
    for name in (
        "cpuinfo",
        "diskstats",
        "meminfo",
        "stat",
        "swaps",
        "uptime",
        "loadavg",
        "slabinfo",
        "net/dev",
        "sys/kernel/ns_last_pid",
        "sys/crypto/fips_enabled",
        "sys/kernel/random/boot_id",
    )
)


def _set(tree: int, attributes: Attributes, recursive: bool) -> None:
    if attributes.set or attributes.clear:
        mounts.mount_setattr(tree, set=attributes.set, clear=attributes.clear, recursive=recursive)


def _set_propagation(fd: int, propagation: int) -> None:
    mounts.mount_setattr(fd, propagation=propagation & ~mounts.MS_REC, recursive=bool(propagation & mounts.MS_REC))


class Bind(NamedTuple):
    """A bind mount. `prepared`: the parent cloned the tree already (user namespaces, idmapped mounts)."""

    source: str
    target: str
    options: Options
    prepared: bool = False

    def describe(self) -> str:
        return f"bind mount {self.source} on {self.target}"

    def open_tree(self) -> int:
        """A detached copy of the source with its attributes; called by the parent when `prepared`."""
        options = self.options
        tree = self._clone()
        # "rw" is the default and asks for nothing: it must not undo a read-only mount of the host's.
        clear = options.attributes.clear & ~mounts.MOUNT_ATTR_RDONLY
        _set(tree, options.attributes._replace(clear=clear), False)
        _set(tree, options.recursive, True)
        return tree

    def _clone(self) -> int:
        beneath, recursive = self.options.beneath, self.options.bind_recursive
        if not beneath:
            return mounts.open_tree(AT_FDCWD, self.source, recursive=recursive)
        # A container may have written what is there: links of its making must not choose what is mounted.
        whole = os.open(self.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            part = open_beneath(whole, beneath)
        finally:
            os.close(whole)
        try:
            return mounts.open_tree(part, "", recursive=recursive)
        finally:
            os.close(part)

    def apply(self, scene: Scene) -> None:
        tree = scene.trees[self.target] if self.prepared else self.open_tree()
        target = (make_directories if stat.S_ISDIR(os.fstat(tree).st_mode) else make_file)(scene.root, self.target)
        if files.magic(target) == files.PROC_SUPER_MAGIC and self.target not in _OVER_PROC:
            raise Refused("InvalidArgument", f"{self.target} is inside /proc, where nothing may be mounted")
        mounts.move_mount(tree, target)
        if self.options.propagation:
            _set_propagation(tree, self.options.propagation)
        os.close(target)
        os.close(tree)


class Filesystem(NamedTuple):
    """A mount of a file system: proc, sysfs, tmpfs, devpts, mqueue, overlay..."""

    kind: str
    source: str
    target: str
    options: Options

    def describe(self) -> str:
        return f"mount {self.kind} on {self.target}"

    def apply(self, scene: Scene) -> None:
        if self.kind in ("proc", "sysfs"):
            target = self._open_plain(scene)
        else:
            target = make_directories(scene.root, self.target)
        original = _list(target) if self.options.copy_up else None
        mounts.mount(self.source, fd_path(target), self.kind, self.options.flags, self.options.data or None)
        if self.options.propagation or original is not None:
            mounted = open_in_root(scene.root, self.target)
            if original is not None:
                _copy_up(target, mounted, original)
            if self.options.propagation:
                _set_propagation(mounted, self.options.propagation)
            os.close(mounted)
        os.close(target)

    def _open_plain(self, scene: Scene) -> int:
        """/proc and /sys as links would let an image choose what later steps write to (CVE-2019-19921)."""
        try:
            os.close(make_directories(scene.root, self.target))
            resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS
            return openat2(scene.root, self.target, os.O_PATH | os.O_DIRECTORY, resolve=resolve)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EEXIST):
                raise Refused(
                    "InvalidArgument", f"{self.kind} can only be mounted on a directory, and {self.target} is none"
                )
            raise


def _list(directory: int) -> list[str]:
    fd = os.open(fd_path(directory), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)


def _copy_up(source: int, target: int, names: list[str]) -> None:
    """Copy what a tmpfs covers into it ("tmpcopyup"): directories, links and plain files with their owners."""
    for name in names:
        info = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
            made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target)
            _copy_up(inner, made, os.listdir(inner))
            os.close(inner)
            os.close(made)
        elif stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif stat.S_ISREG(info.st_mode):
            inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
            made = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
            while os.sendfile(made, inner, None, 1 << 20):
                pass
            os.close(inner)
            os.close(made)
        else:
            continue
        os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISLNK(info.st_mode):
            os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=target)


class CgroupV1(NamedTuple):
    """/sys/fs/cgroup of a v1 or hybrid host: a tmpfs with one mount per hierarchy, as seen from the cgroup namespace.

    `hierarchies`: (directory name, mount option) such as ("memory", "memory") or ("systemd", "none,name=systemd").
    """

    target: str
    hierarchies: tuple[tuple[str, str], ...]
    options: Options

    def describe(self) -> str:
        return f"mount cgroup hierarchies on {self.target}"

    def apply(self, scene: Scene) -> None:
        base = make_directories(scene.root, self.target)
        flags = self.options.flags & ~mounts.MS_RDONLY
        mounts.mount("tmpfs", fd_path(base), "tmpfs", flags, "mode=755")
        os.close(base)
        base = open_in_root(scene.root, self.target)
        for name, option in self.hierarchies:
            os.mkdir(name, 0o755, dir_fd=base)
            mounts.mount("cgroup", f"{fd_path(base)}/{name}", "cgroup", self.options.flags, option)
            for alias in name.split(",") if "," in name else ():
                os.symlink(name, alias, dir_fd=base)
        if self.options.flags & mounts.MS_RDONLY:
            mounts.mount_setattr(base, set=mounts.MOUNT_ATTR_RDONLY)
        os.close(base)


class CgroupBinds(NamedTuple):
    """/sys/fs/cgroup without a cgroup namespace: the container's own directories, bound. Pairs (name, host path)."""

    target: str
    directories: tuple[tuple[str, str], ...]
    options: Options

    def describe(self) -> str:
        return f"bind cgroup directories on {self.target}"

    def apply(self, scene: Scene) -> None:
        base = make_directories(scene.root, self.target)
        many = bool(self.directories and self.directories[0][0])
        if many:
            mounts.mount("tmpfs", fd_path(base), "tmpfs", self.options.flags & ~mounts.MS_RDONLY, "mode=755")
            os.close(base)
            base = open_in_root(scene.root, self.target)
        for name, path in self.directories:
            if name:
                os.mkdir(name, 0o755, dir_fd=base)
            tree = mounts.open_tree(AT_FDCWD, path)
            _set(tree, self.options.attributes, False)
            mounts.move_mount(tree, base, name)
            os.close(tree)
        if many and self.options.flags & mounts.MS_RDONLY:
            mounts.mount_setattr(base, set=mounts.MOUNT_ATTR_RDONLY)
        os.close(base)
