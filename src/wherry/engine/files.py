"""A container's files from outside: docker cp, export, diff.

A running container is seen through its own root, mounts included, as its processes see it; a stopped one through its
snapshot. Either way through one descriptor, below which nothing can lead out (CVE-2018-15664, CVE-2019-14271: nothing
of the container is executed and no path is looked up twice).
"""

import asyncio
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO, NamedTuple

from wherry import archive
from wherry.engine.container import Container
from wherry.engine.core import Core
from wherry.engine.threads import in_own_thread
from wherry.engine.userns import remap_of
from wherry.engine.users import identify, read_accounts
from wherry.errors import Conflict, InvalidArgument, NotFound, PermissionDenied, WherryError
from wherry.images.compression import decompressed
from wherry.kernel import paths, processes
from wherry.snapshots import Change, ChangeKind

log = logging.getLogger(__name__)
_MAX_UNPACKED = 1 << 50
# What a start makes in every container; docker has it in a layer below, where no difference shows.
_MADE_TEXT = """
/.dockerenv /dev /dev/console /dev/mqueue /dev/pts /dev/shm /etc/hostname /etc/hosts /etc/mtab /etc/resolv.conf
/proc /sys
"""
_MADE = frozenset(_MADE_TEXT.split())


class PathStat(NamedTuple):
    """What X-Docker-Container-Path-Stat carries; `mode` is Go's os.FileMode, `mtime` RFC 3339."""

    name: str
    size: int
    mode: int
    mtime: str
    link_target: str


@contextmanager
def opened_root(core: Core, container: Container, *, writable: bool = False) -> Iterator[int]:
    """In a thread: a descriptor of its root, for as long as the block lasts."""
    with _opened(core, container, writable) as (fd, _):
        yield fd


@contextmanager
def _opened(core: Core, container: Container, writable: bool) -> Iterator[tuple[int, archive.Ids | None]]:
    """Its root, and the ids by which owners in it are seen: a snapshot's are the container's own."""
    fd = _open_running(container)
    remap = None if fd is None else remap_of(container.definition.host, core.remap)
    if fd is None:
        fd = core.parts.snapshots.open_root(container.id, writable=writable)
    try:
        yield fd, None if remap is None else archive.Ids(remap.uids, remap.gids)
    finally:
        os.close(fd)


def _open_running(container: Container) -> int | None:
    state = container.state
    if state.pid and state.status in ("running", "paused"):
        try:
            fd = os.open(f"/proc/{state.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            fd = -1
        if fd >= 0:
            # The pid may be another process's by now: then its start time differs.
            if processes.start_time(state.pid) == state.process_start:
                return fd
            os.close(fd)
    return None


async def stat(core: Core, container: Container, path: str) -> PathStat:
    """What is at `path`."""
    return await asyncio.to_thread(_stat, core, container, path)


def _stat(core: Core, container: Container, path: str) -> PathStat:
    with opened_root(core, container) as root:
        return _stat_in(root, container, path)


def _stat_in(root: int, container: Container, path: str) -> PathStat:
    try:
        found = archive.stat(root, path).to_json()
    except NotFound:
        raise _absent(container, path) from None
    return PathStat(found["name"], found["size"], found["mode"], found["mtime"], found["linkTarget"])


def _absent(container: Container, path: str) -> NotFound:
    return NotFound(f"Could not find the file {path} in container {container.name}", object=path)


async def get(core: Core, container: Container, path: str) -> tuple[PathStat, int]:
    """Its stat, and a pipe that gives a tar of it."""
    found = await stat(core, container, path)
    return found, _pack(core, container, path, None)


def export(core: Core, container: Container) -> int:
    """A pipe that gives a tar of everything."""
    return _pack(core, container, "/", archive.PackOptions(name=""))


def _pack(core: Core, container: Container, path: str, options: archive.PackOptions | None) -> int:
    read, write = os.pipe()

    def work() -> None:
        try:
            with open(write, "wb", buffering=1 << 18) as out, _opened(core, container, False) as (root, ids):
                archive.pack(root, path, out, replace(options or archive.PackOptions(), ids=ids) if ids else options)
        except BrokenPipeError:
            pass
        except (WherryError, OSError) as error:
            # The client sees a tar without its end.
            log.warning("packing %s of %s: %s", path, container.id, error)

    core.spawn(in_own_thread(work), f"packing {container.id[:12]}")
    return read


async def put(core: Core, container: Container, path: str, tar: BinaryIO, *, no_overwrite: bool, as_user: bool) -> None:
    """Unpack in the directory `path`."""
    if container.definition.host.readonly_rootfs and not _in_writable_mount(container, path):
        raise PermissionDenied("container rootfs is marked read-only", object=container.id)
    async with container.lock:
        if container.id not in core.index:
            raise NotFound(f"No such container: {container.id}", object=container.id)
        await in_own_thread(_put, core, container, path, tar, no_overwrite, as_user)
        core.ledger.forget(container.id)
        if not container.state.changed:
            container.set_state(changed=True)
            core.save_state(container)


def _in_writable_mount(container: Container, path: str) -> bool:
    return any(
        mount.rw and (path == mount.destination or path.startswith(mount.destination + "/"))
        for mount in container.definition.mounts
    )


def _put(core: Core, container: Container, path: str, tar: BinaryIO, no_overwrite: bool, as_user: bool) -> None:
    with _opened(core, container, True) as (root, ids):
        try:
            fd = paths.open_in_root(root, path)
        except (FileNotFoundError, NotADirectoryError):
            raise _absent(container, path) from None
        is_directory = paths.is_directory(fd)
        os.close(fd)
        if not is_directory:
            raise InvalidArgument("extraction point is not a directory", object=path)
        # docker's copyUIDGID: to the container's own user, if it has one; else to whom the archive says.
        owner = None
        if as_user and container.definition.config.user:
            found = identify(container.definition.config.user, (), read_accounts(root))
            owner = (found.uid, found.gid)
        options = archive.UnpackOptions(path=path, owner=owner, ids=ids, no_overwrite_dir_non_dir=no_overwrite)
        with decompressed(tar, limit=_MAX_UNPACKED, name="the archive") as plain:
            archive.unpack(plain, root, options)


async def changes(core: Core, container: Container) -> list[dict[str, Any]]:
    """What differs from the image."""
    found = await asyncio.to_thread(core.parts.snapshots.changes, container.id)
    hidden = made_by_start(found)
    return [{"Path": change.path, "Kind": int(change.kind)} for change in found if change.path not in hidden]


def made_by_start(found: Sequence[Change]) -> set[str]:
    """Of a container's changes, those that its start makes and that say nothing about what it did."""
    made = {change.path for change in found if change.path in _MADE and change.kind != ChangeKind.DELETED}
    parents = {change.path.rpartition("/")[0] for change in found if change.path not in made}
    # /etc is modified by the files mounted in it: of no interest unless something else in it is.
    quiet = {"/etc", "/run"} - parents
    holders = {path.rpartition("/")[0] for path in made}
    return made | {
        change.path for change in found if change.path in quiet & holders and change.kind == ChangeKind.MODIFIED
    }


def check_running(container: Container) -> None:
    """Conflict with docker's words."""
    if not container.state.running:
        raise Conflict(f"container {container.id} is not running", object=container.id)
