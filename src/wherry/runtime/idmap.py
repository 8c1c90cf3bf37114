"""ID mappings of mounts: the user namespaces that carry them, and an overlay whose layers are mapped.

What is stored holds the owners that a container sees; a mount says what they are on the host. So one layer serves
containers of every mapping, nothing is ever chowned, and a container's changes read the same from outside.

Overlayfs makes entries of its own in the upper and work directories as whoever mounted it, the host's root, who must
have an id there: the first one beyond the container's, which nothing in the container can be or become.
"""

from __future__ import annotations

import errno
import os

from wherry.kernel import mounts, namespaces, syscalls
from wherry.kernel.paths import AT_FDCWD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_SIGCHLD = 17
_KEPT = 8
_known: dict[tuple[str, str], int] = {}


def write_maps(pid: int, uid_map: str, gid_map: str) -> None:
    """Write both maps of a process's user namespace (user_namespaces(7))."""
    for name, text in (("uid_map", uid_map), ("gid_map", gid_map)):
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def user_namespace(uid_map: str, gid_map: str) -> int:
    """A user namespace with these maps, of a process that lived only for that. Kept for the next mount, so not to be
    closed."""
    key = (uid_map, gid_map)
    found = _known.get(key)
    if found is None:
        while len(_known) >= _KEPT:
            os.close(_known.pop(next(iter(_known))))
        found = _known[key] = _make(uid_map, gid_map)
    return found


def _make(uid_map: str, gid_map: str) -> int:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = syscalls.clone(namespaces.CLONE_NEWUSER | _SIGCHLD)
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        write_maps(pid, uid_map, gid_map)
        return namespaces.open_namespace(pid, "user")
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(pid, 0)


def map_tree(tree: int, uid_map: str, gid_map: str, *, recursive: bool = False) -> None:
    """Attach mappings to a detached mount. OSError names what cannot have them."""
    userns = user_namespace(uid_map, gid_map)
    try:
        mounts.mount_setattr(tree, set=mounts.MOUNT_ATTR_IDMAP, userns=userns, recursive=recursive)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise OSError(errno.EINVAL, "mapping owners: this file system has no ID-mapped mounts") from None


def with_mounter(id_map: str) -> str:
    """`id_map` and one more id, beyond all of it, for the host's root, unless it has one."""
    ranges = [[int(word) for word in line.split()] for line in id_map.splitlines()]
    if any(host == 0 for _, host, _ in ranges):
        return id_map
    return f"{id_map}{max([first + size for first, _, size in ranges])} 0 1\n"


def open_overlay(
    lowers: Iterable[str], upper: str, work: str, options: Iterable[str], attributes: int, maps: tuple[str, str]
) -> int:
    """A detached overlay of mapped layers. `upper` and `work` lie in one directory."""
    held: list[int] = []
    context = mounts.fsopen("overlay")
    try:
        for path in lowers:
            tree = _mapped(path, maps)
            held.append(tree)
            _add_layer(context, tree)
        base = os.path.dirname(upper)
        tree = _mapped(base, (with_mounter(maps[0]), with_mounter(maps[1])))
        held.append(tree)
        for key, path in (("upperdir", upper), ("workdir", work)):
            fd = os.open(os.path.relpath(path, base), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
            held.append(fd)
            mounts.fsconfig_fd(context, key, fd)
        for option in options:
            name, equals, value = option.partition("=")
            if equals:
                mounts.fsconfig_string(context, name, value)
            else:
                mounts.fsconfig_flag(context, name)
        mounts.fsconfig_create(context)
        return mounts.fsmount(context, attributes)
    finally:
        os.close(context)
        for fd in held:
            os.close(fd)


def _add_layer(context: int, tree: int) -> None:
    try:
        mounts.fsconfig_fd(context, "lowerdir+", tree)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise OSError(
            errno.EINVAL, "a container in a user namespace needs Linux 6.13 or newer for its layers"
        ) from None


def _mapped(path: str, maps: tuple[str, str]) -> int:
    tree = mounts.open_tree(AT_FDCWD, path)
    try:
        map_tree(tree, *maps)
    except OSError:
        os.close(tree)
        raise
    return tree
