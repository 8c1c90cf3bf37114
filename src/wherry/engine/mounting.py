"""What a container's mounts stand on while it runs: volumes made ready, bind sources looked for, images laid out.

A mounted image is a snapshot of its own, `<container>-<mark>`, from the container's creation to its removal: so the
image's layers stay, whatever becomes of the image. While the container runs it is mounted below the exec-root.
"""

import errno
import hashlib
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from wherry.engine.core import Core
from wherry.engine.records import Definition, MountPoint
from wherry.errors import InvalidArgument, WherryError
from wherry.images.image import Image
from wherry.kernel import mounts, paths
from wherry.spec.digest import ChainID

log = logging.getLogger(__name__)


def acquire(core: Core, definition: Definition) -> Definition:
    """In a thread: everything ready; the definition with the sources that are known only now."""
    return replace(definition, mounts=tuple(_ready(core, definition.id, mount) for mount in definition.mounts))


def release(core: Core, definition: Definition) -> None:
    """In a thread: the opposite. What was never acquired is no error."""
    for mount in definition.mounts:
        if mount.type == "volume":
            try:
                core.parts.volumes.release(mount.name, definition.id)
            except WherryError as error:
                # A plugin that does not answer is told at the next start; the container has ended all the same.
                log.warning("giving back the volume %s of %s: %s", mount.name, definition.id, error)
        elif mount.type == "image":
            _unmount(_place(core, definition.id, mount))


def _ready(core: Core, id: str, mount: MountPoint) -> MountPoint:
    if mount.type == "bind":
        _check_source(mount.source, create=mount.create_source)
    elif mount.type == "volume":
        path = core.parts.volumes.acquire(mount.name, id)
        _check_part(path, mount)
        return replace(mount, source=str(path))
    elif mount.type == "image":
        path = _lay_out(core, id, mount)
        _check_part(path, mount)
        return replace(mount, source=str(path))
    return mount


def _check_source(source: str, *, create: bool) -> None:
    if os.path.lexists(source):
        return
    if not create:
        raise InvalidArgument(
            f'invalid mount config for type "bind": bind source path does not exist: {source}', object=source
        )
    os.makedirs(source, exist_ok=True)


def _check_part(path: Path, mount: MountPoint) -> None:
    """InvalidArgument in docker's words when a subpath leads nowhere, or out. The runtime looks it up by itself."""
    if not mount.subpath:
        return
    whole = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(paths.open_beneath(whole, mount.subpath))
    except OSError as error:
        shown, why = f"{path}/{mount.subpath}", os.strerror(error.errno or 0).lower()
        if error.errno == errno.EXDEV:
            why = "it leads out of what is mounted"
        raise InvalidArgument(f"cannot access path {shown}: lstat {shown}: {why}", object=mount.destination) from None
    finally:
        os.close(whole)


# Images


def prepare_image(core: Core, id: str, mount: MountPoint) -> MountPoint:
    """In a thread, as the container is made: the image, by whatever name, kept for it. NotFound."""
    image: Image = core.parts.images.resolve(mount.name)
    chain = ChainID(image.chain) if image.chain else None
    core.parts.snapshots.prepare(_key(id, mount), chain)
    return mount


def forget_images(core: Core, id: str, mounted: Iterable[MountPoint]) -> None:
    """In a thread, as the container is removed."""
    for mount in mounted:
        if mount.type == "image":
            core.parts.snapshots.remove(_key(id, mount))


def owner(key: str) -> str:
    """The container that a snapshot belongs to."""
    return key.partition("-")[0]


def sweep(core: Core, running: set[str]) -> None:
    """Images still mounted for containers that do not run."""
    root = core.config.exec_root / "images"
    for directory in root.iterdir() if root.is_dir() else ():
        if directory.name not in running:
            for place in directory.iterdir():
                _unmount(place)


def _lay_out(core: Core, id: str, mount: MountPoint) -> Path:
    place = _place(core, id, mount)
    if os.path.ismount(place):
        return place
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    tree = core.parts.snapshots.open_root(_key(id, mount))
    try:
        mounts.mount_setattr(tree, set=mounts.MOUNT_ATTR_RDONLY)
        mounts.move_mount(tree, paths.AT_FDCWD, place)
    finally:
        os.close(tree)
    return place


def _unmount(place: Path) -> None:
    if os.path.ismount(place):
        mounts.umount(place, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)
    with suppress(FileNotFoundError):
        place.rmdir()
    with suppress(OSError):
        place.parent.rmdir()


def _place(core: Core, id: str, mount: MountPoint) -> Path:
    return core.config.exec_root / "images" / id / _mark(mount)


def _key(id: str, mount: MountPoint) -> str:
    return f"{id}-{_mark(mount)}"


def _mark(mount: MountPoint) -> str:
    return hashlib.sha256(mount.destination.encode()).hexdigest()[:12]
