"""The driver "local": directories below the data root, and what driver options mount on them."""

import os
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from wherry.archive import copy_tree, remove_tree
from wherry.errors import FailedPrecondition, NotFound
from wherry.kernel.mounts import MNT_DETACH, UMOUNT_NOFOLLOW, mount, umount
from wherry.volumes._driver import Found
from wherry.volumes._opened import opened
from wherry.volumes._options import check_options, mount_call
from wherry.volumes._volume import check_name, is_name, random_name

_DATA = "_data"
# No volume's name begins with a dot.
TRASH = ".trash"


class LocalDriver:
    """See `Driver`. `options` of a volume are kept by whoever has its record, and told by `know` at the start."""

    name = "local"
    scope = "local"

    def __init__(self, root: Path) -> None:
        self.root = root
        self._options: dict[str, Mapping[str, str]] = {}
        self._users: defaultdict[str, set[str]] = defaultdict(set)
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        remove_tree(self.directory, TRASH)

    def know(self, name: str, options: Mapping[str, str]) -> None:
        """A volume that is there already has these options."""
        self._options[name] = dict(options)

    def create(self, name: str, options: Mapping[str, str]) -> None:
        check_name(name)
        check_options(name, options)
        with suppress(FileExistsError):
            os.mkdir(name, 0o701, dir_fd=self.directory)
        with suppress(FileExistsError):
            os.mkdir(f"{name}/{_DATA}", 0o755, dir_fd=self.directory)
        self._options.setdefault(name, dict(options))

    def get(self, name: str) -> Found:
        try:
            status = os.stat(f"{name}/{_DATA}", dir_fd=self.directory) if is_name(name) else None
        except FileNotFoundError:
            status = None
        if status is None:
            raise NotFound(f"get {name}: no such volume", object=name)
        return Found(name, self.mountpoint(name), timestamp(status.st_mtime))

    def list(self) -> list[Found]:
        names = sorted(os.listdir(self.directory))
        return [self.get(name) for name in names if is_name(name) and os.path.isdir(self.mountpoint(name))]

    def mount(self, name: str, user: str) -> Path:
        place = self.mountpoint(name)
        call = mount_call(self._options.get(name, {}))
        if call is not None and not os.path.ismount(place):
            self.get(name)
            try:
                mount(call.device, place, call.type, call.flags, call.data)
            except OSError as error:
                raise FailedPrecondition(
                    f"error while mounting volume '{place}': failed to mount local volume: mount "
                    f"{call.device}:{place}: {os.strerror(error.errno or 0).lower()}",
                    object=name,
                    hint="see the volume's driver options",
                ) from error
        self._users[name].add(user)
        return Path(place)

    def unmount(self, name: str, user: str) -> None:
        users = self._users.get(name)
        if users is not None:
            users.discard(user)
            if not users:
                del self._users[name]
        if name not in self._users:
            self.unmount_idle(name)

    def unmount_idle(self, name: str) -> None:
        """Take away what is mounted for nobody."""
        place = self.mountpoint(name)
        if self.is_mounted(name) and name not in self._users:
            umount(place, MNT_DETACH | UMOUNT_NOFOLLOW)

    def is_mounted(self, name: str) -> bool:
        return bool(self._options.get(name)) and os.path.ismount(self.mountpoint(name))

    def remove(self, name: str) -> None:
        """In two steps, so that the second needs no lock: see `discard`."""
        remove_tree(self.directory, self.discard(name))

    def discard(self, name: str) -> str:
        """Take the volume out of sight; where it is to be deleted."""
        self.unmount_idle(name)
        trash = f"{TRASH}/{random_name()}"
        with suppress(FileExistsError):
            os.mkdir(TRASH, 0o700, dir_fd=self.directory)
        with suppress(FileNotFoundError):
            os.rename(name, trash, src_dir_fd=self.directory, dst_dir_fd=self.directory)
        self._options.pop(name, None)
        return trash

    def fill(self, name: str, source: int) -> None:
        """Copy the tree `source` (open for listing) into the empty volume; a plain one nobody uses at once or not."""
        if self._options.get(name) or self._users.get(name):
            with opened(self.mountpoint(name)) as target:
                copy_tree(source, target)
            return
        aside = f"{name}/_filling"
        remove_tree(self.directory, aside)
        os.mkdir(aside, 0o700, dir_fd=self.directory)
        with opened(f"{self.root}/{aside}") as target:
            copy_tree(source, target)
        # Onto an empty directory, so at once or not at all.
        os.rename(aside, f"{name}/{_DATA}", src_dir_fd=self.directory, dst_dir_fd=self.directory)

    def forget(self, name: str) -> None:
        """The volume has another name by now."""
        self._options.pop(name, None)

    def mountpoint(self, name: str) -> str:
        return f"{self.root}/{name}/{_DATA}"

    def close(self) -> None:
        os.close(self.directory)


def timestamp(seconds: float) -> str:
    """RFC 3339, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
