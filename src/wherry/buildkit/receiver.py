"""fsutil's protocol, the receiving side: a directory here becomes what the client says its directory is.

The client describes every file; those whose description is the one they were last received with are here already, the
others are asked for. All of this blocks: it runs in a thread, a batch of packets at a time.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice

from google.protobuf.message import DecodeError

from wherry.archive import remove_tree
from wherry.buildkit.listing import Entry, Listing, paths_of
from wherry.buildkit.messages.buildkit_pb2 import Packet, Stat
from wherry.errors import Internal, InvalidArgument
from wherry.kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

STAT, REQUEST, DATA, FINISHED, ERROR = range(5)
_ASKED_MAX = 128
"""Files asked for at a time: so many may be open, and wait in memory with a chunk each."""
_SMALL = 256 << 10
_XATTRS = ("user.", "security.capability")
_UNLIKE = Packet(id=1).SerializeToString()
_FINISHED = Packet(type=FINISHED).SerializeToString()


class _File:
    """A file that is being received."""

    __slots__ = ("data", "entry", "fd", "received")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.data = b""
        self.fd = -1
        self.received = 0


class Receiver:
    """One transfer into the directory `root`, which holds what `kept` describes. Not for two threads at once."""

    def __init__(self, root: int, kept: Sequence[bytes], on_change: Callable[[], object] = lambda: None) -> None:
        """`on_change` is called before the first change."""
        self._root, self._kept, self._on_change = root, kept, on_change
        self._listing = Listing()
        self._same = 0
        """So many packets equal the kept ones from the first on."""
        self._entries: list[Entry] = []
        self._wanted: deque[tuple[int, Entry]] = deque()
        self._asked: dict[int, _File] = {}
        self._stale: set[int] = set()
        self._links: list[Entry] = []
        self._directories: dict[str, Entry] = {}
        self._touched: set[str] = set()
        self._described = False
        self._parent: tuple[str, int] = ("", -1)
        self.changed = False
        self.finished = False
        self.received = 0
        """Bytes of files and descriptions."""
        self.files = 0

    @property
    def listing(self) -> list[bytes]:
        """What the directory holds now; a file that changed while it was sent counts as unknown."""
        raw = self._listing.raw
        if not self._stale:
            return raw
        # With a field that no description has: equal to none the client can send.
        return [one + _UNLIKE if index in self._stale else one for index, one in enumerate(raw)]

    def skip(self, packets: list[bytes]) -> list[bytes]:
        """Take in those packets that say what is known already, which blocks nobody; the others, for `feed`."""
        if self._described:
            return packets
        kept, first = self._kept, len(self._listing.raw)
        if self._same != first:
            return packets
        count = 0
        for packet, known in zip(packets, islice(kept, first, None), strict=False):
            if packet != known:
                break
            self._listing.count(packet)
            self.received += len(packet)
            count += 1
        self._same += count
        return packets[count:]

    def feed(self, packets: Sequence[bytes]) -> list[bytes]:
        """Take in packets; the packets to send for them."""
        answers: list[bytes] = []
        for data in packets:
            self.received += len(data)
            if not self._described:
                self._describe(data, answers)
            else:
                self._take(data, answers)
        return answers

    def close(self) -> None:
        """Let go of what is open."""
        for file in self._asked.values():
            if file.fd >= 0:
                os.close(file.fd)
                file.fd = -1
        if self._parent[1] >= 0:
            os.close(self._parent[1])
            self._parent = ("", -1)

    # -- descriptions

    def _describe(self, data: bytes, answers: list[bytes]) -> None:
        position = len(self._listing.raw)
        if self._same == position and position < len(self._kept) and data == self._kept[position] and data:
            self._listing.count(data)
            self._same += 1
            return
        packet = _parse(data)
        if packet.type != STAT:
            raise InvalidArgument("the client sent a file before it had described all")
        if self._same == position and self._same and (packet.HasField("stat") or position < len(self._kept)):
            # The first that differs: from here on every entry is looked at, so the earlier ones must be known.
            self._recall()
        if packet.HasField("stat"):
            self._entries.append(self._listing.add(data))
            return
        self._described = True
        self._compare(answers)

    def _recall(self) -> None:
        same, self._listing = self._listing.raw, Listing()
        self._entries = [self._listing.add(data) for data in same]
        self._same = -1

    def _compare(self, answers: list[bytes]) -> None:
        raw = self._listing.raw
        if not self._entries and len(raw) == len(self._kept):
            self._end(answers)
            return
        self.changed = True
        self._on_change()
        before = paths_of(self._kept)
        now = {entry.path: entry for entry in self._entries}
        self._directories = {path: entry for path, entry in now.items() if stat.S_ISDIR(entry.mode)}
        self._remove(before, now)
        changed: set[str] = set()
        for index, entry in enumerate(self._entries):
            kind = stat.S_IFMT(entry.mode)
            link = entry.link if kind == stat.S_IFREG else ""
            if before.get(entry.path) == raw[index] and link not in changed:
                continue
            changed.add(entry.path)
            self._make(index, entry, before)
        self._ask(answers)
        self._end_if_done(answers)

    def _remove(self, before: dict[str, bytes], now: dict[str, Entry]) -> None:
        """What is gone, and what is of another kind now; children before parents."""
        for path in sorted(before, reverse=True):
            entry = now.get(path)
            if entry is not None and stat.S_ISDIR(entry.mode) and _was_directory(before[path]):
                continue
            if entry is None or _was_directory(before[path]) or not stat.S_ISREG(entry.mode):
                parent, name = self._open_parent(path)
                with suppress(FileNotFoundError):
                    remove_tree(parent, name)

    def _make(self, index: int, entry: Entry, before: dict[str, bytes]) -> None:
        kind = stat.S_IFMT(entry.mode)
        if kind == stat.S_IFREG:
            if entry.link:
                self._links.append(entry)
            elif entry.size == 0 and entry.path not in before:
                self._write_whole(_File(entry))
            else:
                self._wanted.append((index, entry))
            return
        parent, name = self._open_parent(entry.path)
        if kind == stat.S_IFDIR:
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent)
            self._touched.add(entry.path)
            return
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
        if kind == stat.S_IFLNK:
            os.symlink(entry.link, name, dir_fd=parent)
            os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)
        elif kind != stat.S_IFSOCK:
            os.mknod(name, entry.mode, os.makedev(*entry.device), dir_fd=parent)
            os.chmod(name, stat.S_IMODE(entry.mode), dir_fd=parent)

    # -- contents

    def _ask(self, answers: list[bytes]) -> None:
        while self._wanted and len(self._asked) < _ASKED_MAX:
            index, entry = self._wanted.popleft()
            self._asked[index] = _File(entry)
            answers.append(Packet(type=REQUEST, id=index).SerializeToString())

    def _take(self, data: bytes, answers: list[bytes]) -> None:
        packet = _parse(data)
        if packet.type == FINISHED and self.finished:
            return
        file = self._asked.get(packet.id)
        if packet.type != DATA or file is None:
            raise InvalidArgument("the client sent what was not asked for")
        if packet.data:
            self._receive(file, packet.data)
            return
        del self._asked[packet.id]
        if file.received != file.entry.size:
            self._stale.add(packet.id)
        self.files += 1
        if file.fd >= 0:
            self._complete(file)
        else:
            self._write_whole(file)
        self._ask(answers)
        self._end_if_done(answers)

    def _receive(self, file: _File, data: bytes) -> None:
        file.received += len(data)
        if file.fd < 0:
            file.data = file.data + data if file.data else data
            if len(file.data) < _SMALL:
                return
            file.fd = self._create(file.entry)
            data, file.data = file.data, b""
        _write(file.fd, data)

    def _create(self, entry: Entry) -> int:
        parent, name = self._open_parent(entry.path)
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)

    def _write_whole(self, file: _File) -> None:
        file.fd = self._create(file.entry)
        try:
            if file.data:
                _write(file.fd, file.data)
        except BaseException:
            os.close(file.fd)
            raise
        self._complete(file)

    def _complete(self, file: _File) -> None:
        fd, file.fd = file.fd, -1
        entry = file.entry
        try:
            _set_attributes(fd, entry)
            os.fchmod(fd, stat.S_IMODE(entry.mode))
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    # -- the end

    def _end_if_done(self, answers: list[bytes]) -> None:
        if not self._asked and not self._wanted:
            self._end(answers)

    def _end(self, answers: list[bytes]) -> None:
        for entry in self._links:
            self._link(entry)
        # Last, and the deepest first: what is made in a directory changes its time.
        for entry in reversed(self._directories.values()):
            if entry.path not in self._touched:
                continue
            fd = self._open(entry.path)
            try:
                _set_attributes(fd, entry)
                os.fchmod(fd, stat.S_IMODE(entry.mode))
                os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
            finally:
                os.close(fd)
        self.finished = True
        answers.append(_FINISHED)

    def _link(self, entry: Entry) -> None:
        parent, name = self._open_parent(entry.path)
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
        directory, _, first = entry.link.rpartition("/")
        source = self._open(directory)
        try:
            os.link(first, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _open(self, directory: str) -> int:
        """A directory of the tree that no link leads to."""
        resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
        return openat2(self._root, directory or ".", os.O_RDONLY | os.O_DIRECTORY, resolve=resolve)

    def _open_parent(self, path: str) -> tuple[int, str]:
        """The directory `path` is in, kept open for the next; and the name in it."""
        directory, _, name = path.rpartition("/")
        self._touched.add(directory)
        if self._parent[1] < 0 or self._parent[0] != directory:
            if self._parent[1] >= 0:
                os.close(self._parent[1])
                self._parent = ("", -1)
            self._parent = (directory, self._open(directory))
        return self._parent[1], name


def _parse(data: bytes) -> Packet:
    try:
        packet = Packet.FromString(data)
    except DecodeError:
        raise InvalidArgument("the client sent a packet that cannot be read") from None
    if packet.type == ERROR:
        raise Internal(f"error from sender: {packet.data.decode('utf-8', 'replace')[:2000]}")
    return packet


def _was_directory(data: bytes) -> bool:
    found: Stat = Packet.FromString(data).stat
    return bool(found.mode & 1 << 31)


def _set_attributes(fd: int, entry: Entry) -> None:
    for name, value in entry.xattrs:
        if name.startswith(_XATTRS):
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM):
                    raise


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
