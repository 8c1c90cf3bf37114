"""A tar stream becomes files below a directory descriptor, and nowhere else.

The archive is written by an attacker, and in a running container another attacker may rename and link while we work.
So: a parent is resolved by the kernel inside the root and used as a descriptor; the last part of a name is created
with O_EXCL and O_NOFOLLOW or by a call that follows no link; attributes are set through the descriptor of what was
just made. Owners are numbers: nothing of the root file system (passwd, nss) is looked at (CVE-2019-14271).
"""

import errno
import os
import stat

from wherry.archive._attributes import Attributes
from wherry.archive._blocks import Readable, SourceError
from wherry.archive._directories import Directories
from wherry.archive._entry import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Entry,
    malformed,
    show,
)
from wherry.archive._names import components, split
from wherry.archive._options import UnpackOptions, UnpackResult, Whiteouts
from wherry.archive._path import refuse
from wherry.archive._reader import TarReader
from wherry.archive._whiteouts import OPAQUE, PREFIX, OverlayWhiteouts, PlainNames, RemovingWhiteouts, target_of
from wherry.errors import Internal, InvalidArgument, PermissionDenied, WherryError
from wherry.kernel.paths import fd_path, open_in_root
from wherry.kernel.removal import remove_tree

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEVICES = {CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}
# These speak of the machine, not of the archive.
_MACHINE = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE))


def unpack(tar: Readable, root: int, options: UnpackOptions | None = None) -> UnpackResult:
    """Unpack an uncompressed tar stream below the directory `root` (a descriptor, borrowed).

    Reads to the end of the stream. What was unpacked before an error stays: a caller that needs all or nothing unpacks
    into a directory of its own. InvalidArgument when the archive is malformed or tries to get out, Internal when the
    machine fails (no space...), both naming the entry. What reading the stream raises is passed on.
    """
    unpacker = _Unpacker(TarReader(tar), root, options or UnpackOptions())
    try:
        return unpacker.run()
    except SourceError as error:
        raise error.error from None
    finally:
        unpacker.close()


class _Unpacker:
    def __init__(self, reader: TarReader, root: int, options: UnpackOptions) -> None:
        self._reader = reader
        self._options = options
        self._attributes = Attributes(options.owner, options.ids)
        # Docker copies into a directory without leaving it; into the whole root, links mean what they mean there.
        self._destination, beneath = _destination(root, options.path)
        self._directories = Directories(self._destination, self._adopt, beneath=beneath)
        self._layer = options.whiteouts is not Whiteouts.PLAIN
        self._whiteouts = _whiteouts(options)
        self._note = None if options.whiteouts is not Whiteouts.REMOVE else self._whiteouts.note
        # Of directories, set last: every entry made inside changes them.
        self._times: dict[tuple[bytes, bytes], int] = {}
        self._size = 0

    def run(self) -> UnpackResult:
        reader, trim, limit = self._reader, self._directories.trim, self._options.max_entries
        count = 0
        while (entry := reader.next()) is not None:
            count += 1
            if count > limit:
                raise InvalidArgument(f"archive has more than {limit} entries", hint="raise the limit if you trust it")
            trim()
            try:
                self._unpack(entry)
            except SourceError:
                raise
            except OSError as error:
                raise _failure(entry, error) from error
        reader.drain()
        self._whiteouts.finish(self._destination)
        self._set_directory_times()
        return UnpackResult(count, self._size, frozenset(self._attributes.skipped), (b"", b"") in self._times)

    def close(self) -> None:
        self._directories.close()
        os.close(self._destination)

    def _unpack(self, entry: Entry) -> None:
        parent, base = split(entry.name)
        if not base:
            self._root(entry)
            return
        if self._layer and base.startswith(PREFIX):
            self._whiteout(b"/".join(components(parent)), base)
            return
        directory = self._directories.get(parent)
        if directory is None:
            directory = self._directories.open(parent)
        if self._note is not None:
            self._note(b"/".join(components(parent)), base)
        kind = entry.kind
        if kind == REGULAR:
            self._file(entry, directory, base)
        elif kind == DIRECTORY:
            self._directory(entry, directory, parent, base)
        elif kind == SYMLINK:
            self._symlink(entry, directory, base)
        elif kind == HARD_LINK:
            self._hard_link(entry, directory, base)
        elif kind in _DEVICES:
            self._special(entry, directory, base)
        else:
            raise malformed(f"unknown entry type {chr(kind)!r}", entry.name)

    def _whiteout(self, directory: bytes, name: bytes) -> None:
        if name == OPAQUE:
            self._whiteouts.clear(self._directories.open(directory), directory)
        else:
            target = target_of(name)
            if target is not None:
                self._whiteouts.delete(self._directories, directory, target)
        self._directories.stale = True

    def _root(self, entry: Entry) -> None:
        """The destination itself: a layer may set its attributes; a copy into a container leaves them alone."""
        if entry.kind != DIRECTORY:
            raise malformed("the root can only be a directory", entry.name)
        if not self._layer:
            return
        fd = os.open(b".", _DIRECTORY, dir_fd=self._directories.open(b""))
        try:
            self._attributes.set(fd, entry)
        finally:
            os.close(fd)
        self._times[b"", b""] = entry.mtime

    def _file(self, entry: Entry, directory: int, base: bytes) -> None:
        size = entry.real_size
        self._size += size
        if self._size > self._options.max_bytes:
            raise InvalidArgument(f"archive holds more than {self._options.max_bytes} bytes", object=show(entry.name))
        try:
            fd = os.open(base, _CREATE, 0o600, dir_fd=directory)
        except FileExistsError:
            self._clear(entry, directory, base)
            fd = os.open(base, _CREATE, 0o600, dir_fd=directory)
        try:
            if size:
                self._reader.write_body(entry, fd)
            self._attributes.set(fd, entry)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _directory(self, entry: Entry, directory: int, parent: bytes, base: bytes) -> None:
        replaced = None
        try:
            os.mkdir(base, 0o700, dir_fd=directory)
        except FileExistsError:
            replaced = os.stat(base, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISDIR(replaced.st_mode):
                self._clear(entry, directory, base)
                os.mkdir(base, 0o700, dir_fd=directory)
        fd = os.open(base, _DIRECTORY, dir_fd=directory)
        try:
            if replaced is not None:
                self._whiteouts.replace(fd, b"/".join(components(entry.name)), replaced)
            self._attributes.set(fd, entry)
        except BaseException:
            os.close(fd)
            raise
        self._directories.hold(parent + b"/" + base if parent else base, fd)
        self._times[parent, base] = entry.mtime

    def _symlink(self, entry: Entry, directory: int, base: bytes) -> None:
        # The target is data: whoever resolves it does so inside the root.
        try:
            os.symlink(entry.link, base, dir_fd=directory)
        except FileExistsError:
            self._clear(entry, directory, base)
            os.symlink(entry.link, base, dir_fd=directory)
        self._attributes.set_link(directory, base, entry)
        os.utime(base, ns=(entry.mtime, entry.mtime), dir_fd=directory, follow_symlinks=False)

    def _hard_link(self, entry: Entry, directory: int, base: bytes) -> None:
        parent, name = split(entry.link)
        if not name:
            raise malformed("hard link to the root", entry.name)
        source = self._directories.open(parent)
        try:
            os.link(name, base, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
        except FileExistsError:
            if _same(source, name, directory, base):
                return
            self._clear(entry, directory, base)
            os.link(name, base, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)

    def _special(self, entry: Entry, directory: int, base: bytes) -> None:
        device = os.makedev(entry.devmajor, entry.devminor)
        mode = _DEVICES[entry.kind] | 0o600
        try:
            os.mknod(base, mode, device, dir_fd=directory)
        except FileExistsError:
            self._clear(entry, directory, base)
            os.mknod(base, mode, device, dir_fd=directory)
        self._attributes.set_special(directory, base, entry)
        os.utime(base, ns=(entry.mtime, entry.mtime), dir_fd=directory, follow_symlinks=False)

    def _clear(self, entry: Entry, directory: int, base: bytes) -> None:
        """Make room for `entry`. Names may lead elsewhere afterwards, but `directory` stays open."""
        is_directory = stat.S_ISDIR(os.stat(base, dir_fd=directory, follow_symlinks=False).st_mode)
        if self._options.no_overwrite_dir_non_dir and is_directory != (entry.kind == DIRECTORY):
            old, new = ("directory", "non-directory") if is_directory else ("non-directory", "directory")
            name = show(entry.name.rstrip(b"/"))
            raise InvalidArgument(f"cannot overwrite {old} {name} with {new} {name}", object=name)
        if is_directory:
            remove_tree(directory, base)
        else:
            os.unlink(base, dir_fd=directory)
        self._directories.stale = True

    def _adopt(self, directory: int, base: bytes, path: bytes) -> None:
        status = self._whiteouts.adopt(directory, base, path)
        if status is not None:
            self._times[path.rpartition(b"/")[0], base] = status.st_mtime_ns

    def _set_directory_times(self) -> None:
        for (parent, base), mtime in self._times.items():
            self._directories.trim()
            directory = self._directories.open(parent)
            times = (mtime, mtime)
            if base:
                try:
                    os.utime(base, ns=times, dir_fd=directory, follow_symlinks=False)
                except FileNotFoundError:
                    # Replaced or whited out by a later entry.
                    pass
            else:
                os.utime(fd_path(directory), ns=times)


def _destination(root: int, path: str) -> tuple[int, bool]:
    relative = path.strip("/")
    try:
        return open_in_root(root, relative or ".", os.O_PATH | os.O_DIRECTORY), bool(relative)
    except NotADirectoryError:
        raise InvalidArgument("extraction point is not a directory", object=path) from None
    except OSError as error:
        refuse(path, error)


def _whiteouts(options: UnpackOptions) -> OverlayWhiteouts | RemovingWhiteouts:
    if options.whiteouts is Whiteouts.OVERLAY:
        return OverlayWhiteouts(options.lowers)
    return RemovingWhiteouts() if options.whiteouts is Whiteouts.REMOVE else PlainNames()


def _same(source: int, name: bytes, directory: int, base: bytes) -> bool:
    """Whether two names are one file already: linking a file to itself is no work, and must not remove it."""
    try:
        one = os.stat(name, dir_fd=source, follow_symlinks=False)
    except FileNotFoundError:
        return False
    other = os.stat(base, dir_fd=directory, follow_symlinks=False)
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _failure(entry: Entry, error: OSError) -> WherryError:
    name = show(entry.name)
    if error.errno == errno.EXDEV and entry.kind != HARD_LINK:
        return InvalidArgument(f"cannot unpack {name}: a link leads out of the destination", object=name)
    message = f"cannot unpack {name}: {error.strerror or error}"
    if error.errno in _MACHINE:
        return Internal(message, object=name)
    if error.errno in (errno.EPERM, errno.EACCES, errno.EROFS):
        return PermissionDenied(message, object=name)
    return InvalidArgument(message, object=name)
