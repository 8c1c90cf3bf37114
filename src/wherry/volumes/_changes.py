"""Beyond docker: local volumes renamed, cloned, written to a stream and made from one.

What is made is made aside, in the trash that a start empties, and put in place by one rename(2). The record comes
first: one without a directory is dropped by a start, as the old record is after a rename; so a crash leaves either what
was there before, or all of what was asked for.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from wherry.archive import PackOptions, UnpackOptions, copy_tree, pack, remove_tree, unpack
from wherry.errors import Conflict, FailedPrecondition
from wherry.state import Delete, Put, Store
from wherry.volumes._filters import Users
from wherry.volumes._local import TRASH, LocalDriver, timestamp
from wherry.volumes._locks import Locks
from wherry.volumes._opened import opened
from wherry.volumes._volume import Volume, check_name, random_name

PREFIX = "volumes/"
Tell = Callable[[str, str, Mapping[str, str]], None]
"""`(action, name, attributes)`: told of each volume made, renamed or destroyed, whoever asked for it; in any thread."""


def _nobody_listens(action: str, name: str, attributes: Mapping[str, str]) -> None:
    pass


class Changes:
    """Shares what `Volumes` has: its driver, its records, its locks."""

    _store: Store
    _local: LocalDriver
    _locked: Locks
    _volumes: dict[str, Volume]
    _users: Mapping[str, set[str]]
    tell: Tell = staticmethod(_nobody_listens)

    def rename(self, name: str, new: str, users: Users) -> Volume:
        """Conflict when `new` is taken or anything, running or not, uses the volume."""
        check_name(new)
        first, second = sorted((name, new))
        with self._locked(first), self._locked(second):
            volume = self._plain(name)
            self._check_free(new)
            self._check_unused(name, users)
            self._local.unmount_idle(name)
            renamed = replace(volume, name=new, mountpoint=self._local.mountpoint(new))
            self._store.write(Put(PREFIX + new, renamed.to_bytes()))
            directory = self._local.directory
            os.rename(name, new, src_dir_fd=directory, dst_dir_fd=directory)
            self._store.write(Delete(PREFIX + name))
            self._local.forget(name)
            self._local.know(new, volume.options)
            del self._volumes[name]
            self._volumes[new] = renamed
            self.tell("rename", new, {"driver": volume.driver, "oldName": name})
            return renamed

    def clone(self, name: str, new: str, labels: Mapping[str, str] | None = None) -> Volume:
        """A copy under another name; blocks are shared where the file system can. A volume in use is copied as it is
        found, file by file."""
        volume = self._plain(name)
        if volume.options:
            raise FailedPrecondition(
                f"clone {name}: what is in it is elsewhere: it has driver options", object=name, hint="export it"
            )

        def fill(target: int) -> None:
            with self._locked(name), opened(self._local.mountpoint(name)) as source:
                copy_tree(source, target)

        return self._make(new, {**volume.labels, **(labels or {})}, fill)

    def import_(self, name: str, tar: BinaryIO, labels: Mapping[str, str] | None = None) -> Volume:
        """A new volume with what the (uncompressed) tar stream holds, owners included."""

        def fill(target: int) -> None:
            unpack(tar, target, UnpackOptions(path="/"))

        return self._make(name, labels or {}, fill)

    def export(self, name: str, out: BinaryIO) -> None:
        """Everything in it, mounted or not, as a tar stream."""
        user = random_name()
        place = self.acquire(name, user)
        try:
            with opened(place) as root:
                pack(root, "/", out, PackOptions(name=""))
        finally:
            self.release(name, user)

    def acquire(self, name: str, user: str) -> Path:
        raise NotImplementedError

    def release(self, name: str, user: str) -> None:
        raise NotImplementedError

    def _make(self, name: str, labels: Mapping[str, str], fill: Callable[[int], None]) -> Volume:
        check_name(name)
        directory, aside = self._local.directory, f"{TRASH}/{random_name()}"
        with suppress(FileExistsError):
            os.mkdir(TRASH, 0o700, dir_fd=directory)
        os.mkdir(aside, 0o701, dir_fd=directory)
        try:
            self._check_free(name)
            os.mkdir(f"{aside}/_data", 0o755, dir_fd=directory)
            with opened(f"{self._local.root}/{aside}/_data") as target:
                fill(target)
            with self._locked(name):
                self._check_free(name)
                place = self._local.mountpoint(name)
                volume = Volume(name=name, created=timestamp(time.time()), mountpoint=place, labels=dict(labels))
                self._store.write(Put(PREFIX + name, volume.to_bytes()))
                os.rename(aside, name, src_dir_fd=directory, dst_dir_fd=directory)
                self._local.know(name, {})
                self._volumes[name] = volume
                self.tell("create", name, {"driver": volume.driver})
                return volume
        except BaseException:
            with suppress(FileNotFoundError):
                remove_tree(directory, aside)
            raise

    def _plain(self, name: str) -> Volume:
        volume = self.get(name)
        if volume.driver != "local":
            raise FailedPrecondition(f"{name}: volumes of the driver {volume.driver} cannot do this", object=name)
        return volume

    def get(self, name: str) -> Volume:
        raise NotImplementedError

    def _check_free(self, name: str) -> None:
        if name in self._volumes:
            raise Conflict(f"a volume named {name} exists already", object=name)

    def _check_unused(self, name: str, users: Users) -> None:
        used = sorted({*users(name), *self._users.get(name, ())})
        if used:
            raise Conflict(f"rename {name}: volume is in use - [{', '.join(used)}]", object=name)
