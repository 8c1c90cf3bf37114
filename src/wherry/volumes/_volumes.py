import builtins
import json
import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from wherry.archive import copy_tree, remove_tree, tree_size
from wherry.errors import Conflict, InvalidArgument, NotFound, Unavailable, WherryError
from wherry.kernel.paths import open_beneath, open_in_root
from wherry.plugins import Places
from wherry.spec.finding import Findings
from wherry.state import Delete, Put, Store
from wherry.volumes import _filters
from wherry.volumes._changes import PREFIX as _PREFIX
from wherry.volumes._changes import Changes
from wherry.volumes._driver import Driver, Found
from wherry.volumes._drivers import Drivers
from wherry.volumes._filters import Filters, Users
from wherry.volumes._local import LocalDriver, timestamp
from wherry.volumes._locks import Locks
from wherry.volumes._opened import opened
from wherry.volumes._volume import ANONYMOUS_LABEL, Volume, is_name, random_name

# Who has what of a plugin: it must be told, by whichever daemon, when they are done.
_MOUNTED = "volume-mounts/"


class Pruned(NamedTuple):
    names: list[str]
    reclaimed: int


class Listing(NamedTuple):
    volumes: Sequence[Volume]
    warnings: Sequence[str]


def _nobody(name: str) -> tuple[str, ...]:
    return ()


class Volumes(Changes):
    """Named and anonymous volumes of all drivers. Every method may be called from any thread; one that has to ask a
    plugin waits for it, and holds up nobody but who wants the same volume."""

    def __init__(self, root: Path, store: Store, places: Places | None = None, **limits: float) -> None:
        self._store = store
        self._local = LocalDriver(root)
        self._drivers = Drivers(self._local, places, **limits)
        self._locked = Locks()
        self._users: defaultdict[str, set[str]] = defaultdict(set)
        self._paths: dict[str, Path] = {}
        self._left: dict[str, set[str]] = {
            key.removeprefix(_MOUNTED): set(json.loads(data)) for key, data in store.scan(_MOUNTED)
        }
        self._volumes = self._load()

    def create(
        self,
        name: str | None = None,
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """Make a volume, or give the one there is: docker compares neither its labels nor its options.

        `driver`: "" is the driver of the one there is, or the local one. Conflict when another driver has the name.
        """
        labels, options = dict(labels or {}), dict(options or {})
        if not name:
            name = random_name()
            labels[ANONYMOUS_LABEL] = ""
        with self._locked(name):
            there = self._volumes.get(name)
            if there is not None and self._same(there, driver):
                return there
            if there is None and not driver and ANONYMOUS_LABEL not in labels:
                for foreign in self._drivers.remote([]):
                    with suppress(NotFound, Unavailable):
                        return _foreign(foreign, foreign.get(name))
            try:
                keeper = self._drivers.get(driver)
                keeper.create(name, options)
            except (NotFound, Unavailable) as error:
                raise type(error)(f"create {name}: {error.message}", object=name) from None
            except WherryError as error:
                if error.message.startswith("create "):
                    raise
                raise type(error)(f"create {name}: {error.message}", object=name) from None
            local = keeper is self._local
            volume = Volume(
                name=name,
                created=timestamp(time.time()) if local else "",
                mountpoint=self._local.mountpoint(name) if local else "",
                driver=keeper.name,
                labels=labels,
                options=options,
                scope=keeper.scope,
            )
            self._store.write(Put(_PREFIX + name, volume.to_bytes()))
            self._volumes[name] = volume
            self.tell("create", name, {"driver": volume.driver})
            return volume

    def _same(self, there: Volume, driver: str) -> bool:
        """Whether `there` is what is asked for; Conflict when another driver is, False when it is gone."""
        if there.driver == "local" and driver in ("", "local"):
            return True
        if driver and driver != there.driver:
            raise Conflict(
                f"create {there.name}: driver '{there.driver}' already has volume '{there.name}': "
                "volume name must be unique",
                object=there.name,
            )
        try:
            self._drivers.get(there.driver).get(there.name)
        except NotFound:
            return False
        return True

    def known(self, name: str) -> Volume | None:
        """A volume by its record: at once, and without a plugin's own news of it."""
        return self._volumes.get(name)

    def get(self, name: str) -> Volume:
        """A volume, as its driver knows it by now; of a name without a record every driver is asked."""
        known = self._volumes.get(name)
        if known is not None:
            if known.driver == "local":
                return known
            return known.seen(self._drivers.get(known.driver).get(name))
        for driver in self._drivers.remote([]):
            with suppress(NotFound, Unavailable):
                return _foreign(driver, driver.get(name))
        raise NotFound(f"get {name}: no such volume", object=name)

    def list(self, filters: Filters | None = None, users: Users = _nobody) -> list[Volume]:
        """In order of name, by their records. `users` tells which containers use a volume, for "dangling"."""
        wanted = _filters.listing(filters or {}, users)
        return [volume for _, volume in sorted(self._volumes.items()) if wanted(volume)]

    def list_all(self, filters: Filters | None = None, users: Users = _nobody) -> Listing:
        """With what plugins have, and why some could not be asked. A plugin's volume is there if the plugin says so."""
        wanted = _filters.listing(filters or {}, users)
        found = {volume.name: volume for volume in self._volumes.values() if volume.driver == "local"}
        warnings: list[str] = []
        for driver in self._drivers.remote(warnings):
            try:
                listed = driver.list()
            except WherryError as error:
                warnings.append(f'error while listing volumes from driver "{driver.name}": {error.message}')
                found.update({each.name: each for each in self._volumes.values() if each.driver == driver.name})
                continue
            for each in listed:
                record = self._volumes.get(each.name)
                if record is not None and record.driver == driver.name:
                    found[each.name] = record.seen(each)
                else:
                    found.setdefault(each.name, _foreign(driver, each))
        return Listing([volume for _, volume in sorted(found.items()) if wanted(volume)], warnings)

    def remove(self, name: str, force: bool = False, *, users: Users = _nobody) -> None:
        """Remove a volume and what is in it. Conflict while used; NotFound, unless forced, when absent."""
        with self._locked(name):
            try:
                volume = self.get(name)
            except NotFound:
                known = self._volumes.get(name)
                if known is None and not force:
                    raise
                self._forget(known)
                return
            used = sorted({*users(name), *self._users.get(name, ())})
            if used:
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(used)}]", object=name)
            if volume.driver != "local":
                try:
                    self._drivers.get(volume.driver).remove(name)
                except WherryError as error:
                    raise type(error)(f"remove {name}: {error.message}", object=name) from None
                self._forget(volume)
                return
            trash = self._local.discard(name)
            self._forget(volume)
        remove_tree(self._local.directory, trash)

    def _forget(self, volume: Volume | None) -> None:
        if volume is not None:
            self._store.write(
                Delete(_PREFIX + volume.name), *([Delete(_MOUNTED + volume.name)] * (volume.driver != "local"))
            )
            self._volumes.pop(volume.name, None)
            self.tell("destroy", volume.name, {"driver": volume.driver})

    def prune(self, filters: Filters | None = None, users: Users = _nobody) -> Pruned:
        """Remove the unused ones: anonymous ones, or with the filter all=true all; of the local driver, as docker."""
        wanted = _filters.pruning(filters or {})
        names, reclaimed = [], 0
        for volume in self.list():
            if volume.driver != "local" or not wanted(volume):
                continue
            if users(volume.name) or self._users.get(volume.name):
                continue
            # Used, or removed, by now.
            with suppress(Conflict, NotFound, FileNotFoundError):
                size = self.size(volume.name)
                self.remove(volume.name, users=users)
                names.append(volume.name)
                reclaimed += size
        return Pruned(names, reclaimed)

    def path(self, name: str) -> Path:
        """The directory that holds the data; what `acquire` mounts is not there before, so a plugin's may be "."."""
        return self._paths.get(name) or Path(self._record(name).mountpoint)

    def size(self, name: str) -> int:
        """Bytes of the files in it; -1 when only its driver could tell."""
        if self._record(name).driver != "local":
            return -1
        with opened(self.path(name)) as fd:
            return tree_size(fd)

    def acquire(self, name: str, user: str) -> Path:
        """Make the volume ready for the container `user`, mounted when options or driver say so. Idempotent."""
        with self._locked(name):
            volume = self._record(name)
            if volume.driver == "local":
                path = self._local.mount(name, user)
            else:
                path = self._acquire_remote(volume, user)
            self._users[name].add(user)
            return path

    def _acquire_remote(self, volume: Volume, user: str) -> Path:
        name = volume.name
        if user in self._users.get(name, ()):
            return self._paths[name]
        driver = self._drivers.get(volume.driver)
        left = self._left.get(name, set())
        if user in left:
            # By the daemon before this one: the plugin must not count it twice.
            known = driver.get(name).mountpoint
            if known:
                self._paths[name] = Path(known)
                left.discard(user)
                return self._paths[name]
        self._note(name, {*left, *self._users.get(name, ()), user})
        try:
            self._paths[name] = driver.mount(name, user)
        except WherryError as error:
            self._note(name, {*left, *self._users.get(name, ())} - {user})
            if error.message.startswith("VolumeDriver."):
                message = f"error while mounting volume '{volume.mountpoint}': {error.message}"
                raise type(error)(message, object=name) from None
            raise
        left.discard(user)
        return self._paths[name]

    def release(self, name: str, user: str) -> None:
        """`user` has no more need of it; unmounted after the last. Idempotent."""
        with self._locked(name):
            users = self._users.get(name)
            if users is None or user not in users:
                return
            users.discard(user)
            if not users:
                del self._users[name]
            volume = self._volumes.get(name)
            if volume is None:
                return
            if volume.driver == "local":
                self._local.unmount(name, user)
                return
            if not users:
                self._paths.pop(name, None)
            self._release_remote(volume, user)

    def _release_remote(self, volume: Volume, user: str) -> None:
        """The note stays when the plugin could not be told: it is told at the next start."""
        self._drivers.get(volume.driver).unmount(volume.name, user)
        left = self._left.get(volume.name, set())
        left.discard(user)
        self._note(volume.name, {*left, *self._users.get(volume.name, ())})

    def _note(self, name: str, users: set[str]) -> None:
        key = _MOUNTED + name
        self._store.write(Put(key, json.dumps(sorted(users)).encode()) if users else Delete(key))

    def release_unused(self) -> None:
        """Unmount what nobody has acquired: once, after a start, when every live container's volumes are acquired."""
        for volume in self.list():
            if volume.driver == "local":
                if volume.options and volume.name not in self._users:
                    self._local.unmount_idle(volume.name)
                continue
            for user in sorted(self._left.get(volume.name, ())):
                with suppress(WherryError), self._locked(volume.name):
                    self._release_remote(volume, user)

    def open_subpath(self, name: str, subpath: str) -> int:
        """An O_PATH descriptor of `subpath` in the volume; links that lead out of it are refused."""
        if subpath.startswith("/") or ".." in subpath.split("/"):
            raise InvalidArgument(f"subpath {subpath!r} must be a relative path within the volume", object=name)
        with opened(self.path(name)) as fd:
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
        that is mounted or in use is filled in place; one of a plugin is mounted for it.
        """
        try:
            origin = open_in_root(source, path.strip("/") or ".", os.O_PATH | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            with self._locked(name), opened(".", at=origin) as listing:
                if self._record(name).driver != "local":
                    self._fill_remote(name, listing)
                elif not os.listdir(self._local.mountpoint(name)):
                    self._local.fill(name, listing)
        finally:
            os.close(origin)

    def _fill_remote(self, name: str, listing: int) -> None:
        user = random_name()
        place = self.acquire(name, user)
        try:
            if os.path.isdir(place) and not os.listdir(place):
                with opened(place) as target:
                    copy_tree(listing, target)
        finally:
            self.release(name, user)

    def check(self, findings: Findings) -> None:
        """Records, directories and mounts of the local driver against each other."""
        for volume in self.list({"driver": ["local"]}):
            name = volume.name
            if not os.path.isdir(volume.mountpoint):
                act = partial(os.makedirs, volume.mountpoint, 0o755, exist_ok=True)
                findings.add(
                    "volumes", name, "its directory is gone, and its data with it", "make an empty directory", act
                )
            if name not in self._users and self._local.is_mounted(name):
                undo = partial(self._local.unmount_idle, name)
                findings.add("volumes", name, "it is mounted for nobody", "unmount it", undo)
        for found in self._strays():
            findings.add(
                "volumes", found.name, "it has data but no record", "take it in", partial(self._take_in, found)
            )

    def close(self) -> None:
        """Release what is held open; volumes stay mounted for their containers."""
        self._local.close()

    def _record(self, name: str) -> Volume:
        return self._volumes.get(name) or self.get(name)

    def _load(self) -> dict[str, Volume]:
        """Records and directories brought together: a directory without a record is taken in (its data may be wanted),
        a record without a directory is dropped."""
        found: dict[str, Volume] = {}
        for key, data in self._store.scan(_PREFIX):
            name = key.removeprefix(_PREFIX)
            volume = Volume.from_bytes(name, data)
            if volume.driver != "local":
                found[name] = volume
            elif is_name(name) and os.path.isdir(self._local.mountpoint(name)):
                found[name] = replace(volume, mountpoint=self._local.mountpoint(name))
                self._local.know(name, volume.options)
            else:
                self._store.write(Delete(key))
        self._volumes = found
        for stray in self._strays():
            self._take_in(stray)
        return found

    def _strays(self) -> builtins.list[Found]:
        """Directories that look like volumes and have no record."""
        return [found for found in self._local.list() if found.name not in self._volumes]

    def _take_in(self, found: Found) -> None:
        volume = Volume(name=found.name, created=found.created, mountpoint=found.mountpoint)
        self._volumes[found.name] = volume
        self._store.write(Put(_PREFIX + found.name, volume.to_bytes()))


def _foreign(driver: Driver, found: Found) -> Volume:
    """A volume that a plugin has and that was not made here."""
    blank = Volume(name=found.name, created="", mountpoint="", driver=driver.name, scope=driver.scope)
    return blank.seen(found)
