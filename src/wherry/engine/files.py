"""A container's files from outside: docker cp, export, diff.

A running container is seen through its own root, mounts included, as its processes see it; a stopped one through its
snapshot, with its volumes and bind mounts put where they would be. Either way through one descriptor, below which
nothing can lead out (CVE-2018-15664, CVE-2019-14271: nothing of the container is executed and no path is looked up
twice).
"""

import asyncio
import logging
import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import Any, BinaryIO, NamedTuple

from wherry import archive
from wherry.engine import views
from wherry.engine.container import Container
from wherry.engine.copies import copy_in
from wherry.engine.core import Core
from wherry.engine.records import MountPoint
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
def _opened(
    core: Core, container: Container, writable: bool = False, *, mounted: bool = False
) -> Iterator[tuple[int, archive.Ids | None]]:
    """Its root, and the ids by which owners in it are seen: a snapshot's are the container's own.

    `mounted`: with its volumes and bind mounts, which a container without a process has not.
    """
    with ExitStack() as undo:
        fd = _open_running(container)
        remap = None if fd is None else remap_of(container.definition.host, core.remap)
        if fd is None:
            points = _mounted(container) if mounted else []
            for point in list(points):
                if point.type == "volume":
                    user = f"copy-{os.urandom(8).hex()}"
                    path = core.parts.volumes.acquire(point.name, user)
                    undo.callback(core.parts.volumes.release, point.name, user)
                    points[points.index(point)] = replace(point, source=str(path))
            fd = core.parts.snapshots.open_root(container.id, writable=writable)
            fd = views.compose(fd, points, core.config.exec_root / "views", writable=writable)
        undo.callback(os.close, fd)
        yield fd, None if remap is None else archive.Ids(remap.uids, remap.gids)


def _mounted(container: Container) -> list[MountPoint]:
    return [point for point in container.definition.mounts if point.source or point.type == "volume"]


async def _make_places(core: Core, container: Container) -> None:
    """Where its mounts belong, which only its first start makes otherwise."""
    points = _mounted(container)
    if not points or container.run is not None:
        return

    def look() -> list[MountPoint]:
        with opened_root(core, container) as root:
            return views.missing(root, points)

    def make(absent: Sequence[MountPoint]) -> None:
        with opened_root(core, container, writable=True) as root:
            views.make_places(root, absent)

    absent = await asyncio.to_thread(look)
    if absent:
        async with container.lock:
            if container.run is None and container.id in core.index:
                await asyncio.to_thread(make, absent)


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
    await _make_places(core, container)
    return await asyncio.to_thread(_stat, core, container, path)


def _stat(core: Core, container: Container, path: str) -> PathStat:
    with _opened(core, container, mounted=True) as (root, _):
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
    return found, _pack(core, container, path, None, lambda: _opened(core, container, mounted=True))


def export(core: Core, container: Container) -> int:
    """A pipe that gives a tar of its files, without what is mounted in it."""

    @contextmanager
    def opened() -> Iterator[tuple[int, None]]:
        root = core.parts.snapshots.open_root(container.id)
        try:
            yield root, None
        finally:
            os.close(root)

    return _pack(core, container, "/", archive.PackOptions(name=""), opened)


def _pack(
    core: Core,
    container: Container,
    path: str,
    options: archive.PackOptions | None,
    opened: Callable[[], AbstractContextManager[tuple[int, archive.Ids | None]]],
) -> int:
    read, write = os.pipe()

    def work() -> None:
        try:
            with open(write, "wb", buffering=1 << 18) as out, opened() as (root, ids):
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
    _check_writable(container, path)
    await _make_places(core, container)
    async with container.lock:
        # Not while it starts: what is registered here is waited for by every start to come.
        if container.id not in core.index:
            raise NotFound(f"No such container: {container.id}", object=container.id)
        copying = copy_in(container, tar, lambda stream: _put(core, container, path, stream, no_overwrite, as_user))
    try:
        await copying
    finally:
        core.ledger.forget(container.id)
        if not container.state.changed and container.id in core.index:
            container.set_state(changed=True)
            if container.state.status != "starting":
                core.save_state(container)


def _check_writable(container: Container, path: str) -> None:
    """PermissionDenied in docker's words where nothing may be written."""
    path = posixpath.normpath("/" + path.lstrip("/"))
    above = [
        mount
        for mount in container.definition.mounts
        if path == mount.destination or path.startswith(mount.destination + "/")
    ]
    innermost = max(above, key=lambda mount: len(mount.destination), default=None)
    if innermost is not None and not innermost.rw:
        raise PermissionDenied("mounted volume is marked read-only", object=container.id)
    if innermost is None and container.definition.host.readonly_rootfs:
        raise PermissionDenied("container rootfs is marked read-only", object=container.id)


def _put(core: Core, container: Container, path: str, tar: BinaryIO, no_overwrite: bool, as_user: bool) -> None:
    with _opened(core, container, True, mounted=True) as (root, ids):
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
