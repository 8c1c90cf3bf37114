import builtins
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import RLock
from typing import NamedTuple

from wherry.archive import copy_tree, remove_tree, tree_size
from wherry.errors import Conflict, FailedPrecondition, InvalidArgument, NotFound
from wherry.kernel.mounts import MNT_DETACH, UMOUNT_NOFOLLOW, mount, umount
from wherry.kernel.paths import open_beneath, open_in_root
from wherry.spec.finding import Findings
from wherry.state import Delete, Put, Store
from wherry.volumes import _filters
from wherry.volumes._filters import Filters, Users
from wherry.volumes._options import check_options, mount_call
from wherry.volumes._volume import ANONYMOUS_LABEL, Volume, check_name, is_name, random_name

_PREFIX = "volumes/"
_DATA = "_data"
# No volume's name begins with a dot.
_TRASH = ".trash"


class Pruned(NamedTuple):
    names: list[str]
    reclaimed: int


def _nobody(name: str) -> tuple[str, ...]:
    return ()


class Volumes:
    """Named and anonymous volumes of the driver "local". Every method may be called from any thread."""

    def __init__(self, root: Path, store: Store) -> None:
        self._root, self._store = root, store
        self._lock = RLock()
        self._users: defaultdict[str, set[str]] = defaultdict(set)
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        remove_tree(self._directory, _TRASH)
        self._volumes = self._load()

    def create(
        self,
        name: str | None = None,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """Make a volume, or give the one there is: docker compares neither its labels nor its options."""
        labels, options = dict(labels or {}), dict(options or {})
        if not name:
            name = random_name()
            labels[ANONYMOUS_LABEL] = ""
        if driver not in ("", "local"):
            raise NotFound(f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found')
        with self._lock:
            there = self._volumes.get(name)
            if there is not None:
                return there
            check_name(name)
            check_options(name, options)
            volume = Volume(
                name=name,
                created=_timestamp(time.time()),
                mountpoint=self._mountpoint(name),
                labels=labels,
                options=options,
            )
            with suppress(FileExistsError):
                os.mkdir(name, 0o701, dir_fd=self._directory)
            with suppress(FileExistsError):
                os.mkdir(f"{name}/{_DATA}", 0o755, dir_fd=self._directory)
            self._store.write(Put(_PREFIX + name, volume.to_bytes()))
            self._volumes[name] = volume
            return volume

    def get(self, name: str) -> Volume:
        found = self._volumes.get(name)
        if found is None:
            raise NotFound(f"get {name}: no such volume", object=name)
        return found

    def list(self, filters: Filters | None = None, users: Users = _nobody) -> list[Volume]:
        """In order of name. `users` tells which containers use a volume, for the filter "dangling"."""
        wanted = _filters.listing(filters or {}, users)
        return [volume for _, volume in sorted(self._volumes.items()) if wanted(volume)]

    def remove(self, name: str, force: bool = False, *, users: Users = _nobody) -> None:
        """Remove a volume and what is in it. Conflict while used; NotFound, unless forced, when absent."""
        with self._lock:
            if name not in self._volumes and force:
                return
            volume = self.get(name)
            used = sorted({*users(name), *self._users.get(name, ())})
            if used:
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(used)}]", object=name)
            self._unmount(volume)
            trash = f"{_TRASH}/{random_name()}"
            with suppress(FileExistsError):
                os.mkdir(_TRASH, 0o700, dir_fd=self._directory)
            with suppress(FileNotFoundError):
                os.rename(name, trash, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            self._store.write(Delete(_PREFIX + name))
            del self._volumes[name]
        remove_tree(self._directory, trash)

    def prune(self, filters: Filters | None = None, users: Users = _nobody) -> Pruned:
        """Remove the unused ones: anonymous ones, or with the filter all=true all."""
        wanted = _filters.pruning(filters or {})
        names, reclaimed = [], 0
        for volume in self.list():
            if not wanted(volume) or users(volume.name) or self._users.get(volume.name):
                continue
            size = self.size(volume.name)
            # Used, or removed, by now.
            with suppress(Conflict, NotFound):
                self.remove(volume.name, users=users)
                names.append(volume.name)
                reclaimed += size
        return Pruned(names, reclaimed)

    def path(self, name: str) -> Path:
        """The directory that holds the data; what `acquire` mounts there is not there before."""
        return Path(self.get(name).mountpoint)

    def size(self, name: str) -> int:
        """Bytes of the files in it."""
        with _opened(self.path(name)) as fd:
            return tree_size(fd)

    def acquire(self, name: str, user: str) -> Path:
        """Make the volume ready for the container `user`, mounting it when its options say so. Idempotent."""
        with self._lock:
            volume = self.get(name)
            call = mount_call(volume.options)
            if call is not None and not os.path.ismount(volume.mountpoint):
                try:
                    mount(call.device, volume.mountpoint, call.type, call.flags, call.data)
                except OSError as error:
                    raise FailedPrecondition(
                        f"error while mounting volume '{volume.mountpoint}': failed to mount local volume: mount "
                        f"{call.device}:{volume.mountpoint}: {os.strerror(error.errno or 0).lower()}",
                        object=name,
                        hint="see the volume's driver options",
                    ) from error
            self._users[name].add(user)
            return Path(volume.mountpoint)

    def release(self, name: str, user: str) -> None:
        """`user` has no more need of it; unmounted after the last. Idempotent."""
        with self._lock:
            users = self._users.get(name)
            if users is None:
                return
            users.discard(user)
            if not users:
                del self._users[name]
                if name in self._volumes:
                    self._unmount(self._volumes[name])

    def release_unused(self) -> None:
        """Unmount what nobody has acquired: once, after a start, when every live container's volumes are acquired."""
        with self._lock:
            for volume in self._volumes.values():
                if volume.name not in self._users:
                    self._unmount(volume)

    def open_subpath(self, name: str, subpath: str) -> int:
        """An O_PATH descriptor of `subpath` in the volume; links that lead out of it are refused."""
        if subpath.startswith("/") or ".." in subpath.split("/"):
            raise InvalidArgument(f"subpath {subpath!r} must be a relative path within the volume", object=name)
        with _opened(self.path(name)) as fd:
            try:
                return open_beneath(fd, subpath or ".")
            except FileNotFoundError:
                raise NotFound(f"cannot access path {subpath!r} in volume {name}: no such file", object=name) from None
            except OSError as error:
                raise InvalidArgument(
                    f"cannot access path {subpath!r} in volume {name}: {os.strerror(error.errno or 0).lower()}",
                    object=name,
                ) from error

    def populate(self, name: str, source: int, path: str) -> None:
        """Copy what `path` holds in the tree `source` (a descriptor) into the volume, when that is empty.

        The volume's directory takes owner and mode along. A plain volume is filled aside and put in place whole; one
        that is mounted or in use is filled in place.
        """
        with self._lock:
            volume = self.get(name)
            if os.listdir(volume.mountpoint):
                return
            try:
                origin = open_in_root(source, path.strip("/") or ".", os.O_PATH | os.O_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                return
            try:
                with _reopened(origin) as listing:
                    self._fill(volume, listing)
            finally:
                os.close(origin)

    def check(self, findings: Findings) -> None:
        """Records, directories and mounts against each other."""
        with self._lock:
            for volume in self.list():
                if not os.path.isdir(volume.mountpoint):
                    act = partial(os.makedirs, volume.mountpoint, 0o755, exist_ok=True)
                    problem = "its directory is gone, and its data with it"
                    findings.add("volumes", volume.name, problem, "make an empty directory", act)
                if volume.options and volume.name not in self._users and os.path.ismount(volume.mountpoint):
                    findings.add(
                        "volumes", volume.name, "it is mounted for nobody", "unmount it", partial(self._unmount, volume)
                    )
            for name in self._strays():
                findings.add("volumes", name, "it has data but no record", "take it in", partial(self._take_in, name))

    def close(self) -> None:
        """Release what is held open; volumes stay mounted for their containers."""
        os.close(self._directory)

    def _fill(self, volume: Volume, source: int) -> None:
        if volume.options or self._users.get(volume.name):
            with _opened(Path(volume.mountpoint)) as target:
                copy_tree(source, target)
            return
        aside = f"{volume.name}/_filling"
        remove_tree(self._directory, aside)
        os.mkdir(aside, 0o700, dir_fd=self._directory)
        with _opened(self._root / aside) as target:
            copy_tree(source, target)
        # Onto an empty directory, so at once or not at all.
        os.rename(aside, f"{volume.name}/{_DATA}", src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def _unmount(self, volume: Volume) -> None:
        if volume.options and os.path.ismount(volume.mountpoint):
            umount(volume.mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW)

    def _load(self) -> dict[str, Volume]:
        """Records and directories brought together: a directory without a record is taken in (its data may be wanted),
        a record without a directory is dropped."""
        found: dict[str, Volume] = {}
        for key, data in self._store.scan(_PREFIX):
            name = key.removeprefix(_PREFIX)
            if os.path.isdir(self._mountpoint(name)):
                found[name] = Volume.from_bytes(name, self._mountpoint(name), data)
            else:
                self._store.write(Delete(key))
        self._volumes = found
        for name in self._strays():
            self._take_in(name)
        return found

    def _strays(self) -> builtins.list[str]:
        """Directories that look like volumes and have no record."""
        names = sorted(os.listdir(self._directory))
        return [n for n in names if n not in self._volumes and is_name(n) and os.path.isdir(self._mountpoint(n))]

    def _take_in(self, name: str) -> None:
        mountpoint = self._mountpoint(name)
        created = _timestamp(os.stat(mountpoint).st_mtime)
        self._volumes[name] = Volume(name=name, created=created, mountpoint=mountpoint)
        self._store.write(Put(_PREFIX + name, self._volumes[name].to_bytes()))

    def _mountpoint(self, name: str) -> str:
        return f"{self._root}/{name}/{_DATA}"


class _opened:
    """A directory of ours, open for listing."""

    def __init__(self, path: Path) -> None:
        self._path: Path | str = path
        self._at: int | None = None

    def __enter__(self) -> int:
        self._fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._at)
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


class _reopened(_opened):
    """A directory held by an O_PATH descriptor, open for listing."""

    def __init__(self, handle: int) -> None:
        self._path, self._at = ".", handle


def _timestamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
