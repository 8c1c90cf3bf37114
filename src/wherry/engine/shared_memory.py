"""/dev/shm of containers that share it (--ipc shareable): a tmpfs on the host, since a mount namespace lends nobody
its mounts. Gone with the container's process; what a crash left is swept at the next start.
"""

import errno
import os
from collections.abc import Collection
from pathlib import Path

from wherry.engine.config import DaemonConfig
from wherry.kernel.mounts import MNT_DETACH, MS_NODEV, MS_NOEXEC, MS_NOSUID, UMOUNT_NOFOLLOW, mount, umount


def directory(config: DaemonConfig, id: str) -> Path:
    """Where it is for the container `id`."""
    return config.exec_root / "shm" / id


def make(config: DaemonConfig, id: str, size: int) -> None:
    """Mount one of `size` bytes; there already: nothing happens."""
    path = directory(config, id)
    os.makedirs(path, mode=0o711, exist_ok=True)
    if not os.path.ismount(path):
        mount("shm", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, f"mode=1777,size={size}")


def remove(config: DaemonConfig, id: str) -> None:
    """Unmount it; absent is no error. Containers that joined keep theirs."""
    path = directory(config, id)
    try:
        umount(path, MNT_DETACH | UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass


def names(config: DaemonConfig) -> list[str]:
    """The ids of those there are."""
    try:
        return os.listdir(config.exec_root / "shm")
    except FileNotFoundError:
        return []


def sweep(config: DaemonConfig, kept: Collection[str]) -> None:
    """Remove all but those of the containers in `kept`."""
    for name in names(config):
        if name not in kept:
            remove(config, name)
