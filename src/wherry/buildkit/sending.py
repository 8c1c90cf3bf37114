"""fsutil's protocol, the sending side: a tree here, described file by file; a client asks for those it wants."""

import os
import stat
from collections.abc import Iterator, Sequence

from google.protobuf.message import DecodeError

from wherry.archive import walk
from wherry.buildkit.listing import go_mode
from wherry.buildkit.messages.buildkit_pb2 import Packet, Stat
from wherry.buildkit.receiver import DATA, ERROR, FINISHED, REQUEST, STAT
from wherry.errors import Internal, InvalidArgument
from wherry.kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, fd_path, openat2

_CHUNK = 256 << 10
_XATTRS = ("user.", "security.capability")


class Sender:
    """One transfer of the tree below the descriptor `root`. Blocks: to be used in threads, one at a time."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._paths: list[bytes] = []
        self._regular: set[int] = set()
        self.finished = False
        self.sent = 0

    def describe(self) -> Iterator[list[bytes]]:
        """The packets that describe the tree, a batch at a time, with the one that ends them."""
        found = [
            (directory.path + b"/" + name if directory.path else name, status)
            for directory in walk(self._root)
            for name, status in directory.entries
            if not stat.S_ISSOCK(status.st_mode)
        ]
        # As clients insist: what is in a directory follows it at once.
        found.sort(key=lambda one: one[0].replace(b"/", b"\0"))
        links: dict[tuple[int, int], bytes] = {}
        batch: list[bytes] = []
        for index, (path, status) in enumerate(found):
            self._paths.append(path)
            batch.append(Packet(type=STAT, stat=self._stat(index, path, status, links)).SerializeToString())
            if len(batch) == 1024:
                yield batch
                batch = []
        yield [*batch, Packet(type=STAT).SerializeToString()]

    def _stat(self, index: int, path: bytes, status: os.stat_result, links: dict[tuple[int, int], bytes]) -> Stat:
        found = Stat(
            path=path.decode("utf-8", "replace"),
            mode=go_mode(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mod_time=status.st_mtime_ns,
        )
        if stat.S_ISLNK(status.st_mode):
            found.linkname = os.readlink(path, dir_fd=self._root).decode("utf-8", "replace")
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            found.devmajor, found.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        elif stat.S_ISREG(status.st_mode):
            found.size = status.st_size
            first = links.setdefault((status.st_dev, status.st_ino), path) if status.st_nlink > 1 else path
            if first != path:
                found.linkname = first.decode("utf-8", "replace")
            else:
                self._regular.add(index)
            self._attributes(path, found)
        return found

    def _attributes(self, path: bytes, found: Stat) -> None:
        fd = self._open(path, os.O_PATH)
        try:
            for name in os.listxattr(fd_path(fd)):
                if name.startswith(_XATTRS):
                    found.xattrs[name] = os.getxattr(fd_path(fd), name)
        finally:
            os.close(fd)

    def wanted(self, packets: Sequence[bytes]) -> list[int]:
        """The files a client asks for; `finished` once it has all."""
        found = []
        for data in packets:
            try:
                packet = Packet.FromString(data)
            except DecodeError:
                raise InvalidArgument("the client sent a packet that cannot be read") from None
            if packet.type == ERROR:
                raise Internal(f"error from receiver: {packet.data.decode('utf-8', 'replace')[:2000]}")
            if packet.type == FINISHED:
                self.finished = True
            elif packet.type == REQUEST and packet.id in self._regular:
                found.append(packet.id)
            else:
                raise InvalidArgument("the client asked for a file that there is not")
        return found

    def contents(self, index: int) -> Iterator[bytes]:
        """The packets of one file."""
        fd = self._open(self._paths[index], os.O_RDONLY)
        try:
            while chunk := os.read(fd, _CHUNK):
                self.sent += len(chunk)
                yield Packet(type=DATA, id=index, data=chunk).SerializeToString()
        finally:
            os.close(fd)
        yield Packet(type=DATA, id=index).SerializeToString()

    def _open(self, path: bytes, flags: int) -> int:
        return openat2(self._root, path, flags | os.O_NOFOLLOW, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)


FINISH = Packet(type=FINISHED).SerializeToString()
