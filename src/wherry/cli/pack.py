"""A tree of this machine as a tar stream, for `wherry cp` into a container."""

from __future__ import annotations

import os
import stat
import tarfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_READ = 1 << 18


class Packer:
    """`stream` yields the archive; `size` is what it came to."""

    def __init__(self, follow: bool) -> None:
        self._follow = follow
        self._links: dict[tuple[int, int], str] = {}
        self.size = 0

    def stream(self, source: str, name: str) -> Iterator[bytes]:
        """The file or tree at `source`, called `name` in the archive; with "" the contents of a directory alone."""
        yield from self._count(self._entry(source, name, self._follow or not name))
        yield from self._count(iter([b"\0" * tarfile.BLOCKSIZE * 2]))

    def _count(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        for block in blocks:
            self.size += len(block)
            yield block

    def _entry(self, path: str, name: str, follow: bool = False) -> Iterator[bytes]:
        found = os.stat(path) if follow else os.lstat(path)
        if stat.S_ISSOCK(found.st_mode):
            return  # tar has no form for it; docker leaves it out as well
        if name:
            info = self._header(path, name, found)
            if info.isreg():
                yield from _file(path, info)
                return
            yield info.tobuf(tarfile.PAX_FORMAT)
        if stat.S_ISDIR(found.st_mode):
            for child in sorted(os.listdir(path)):
                yield from self._entry(f"{path}/{child}", f"{name}/{child}" if name else child)

    def _header(self, path: str, name: str, found: os.stat_result) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.mode = stat.S_IMODE(found.st_mode)
        info.uid, info.gid, info.mtime = found.st_uid, found.st_gid, found.st_mtime
        if stat.S_ISDIR(found.st_mode):
            info.type, info.name = tarfile.DIRTYPE, f"{name}/"
        elif stat.S_ISLNK(found.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
        elif stat.S_ISFIFO(found.st_mode):
            info.type = tarfile.FIFOTYPE
        elif stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
            info.type = tarfile.CHRTYPE if stat.S_ISCHR(found.st_mode) else tarfile.BLKTYPE
            info.devmajor, info.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
        elif first := self._links.get((found.st_dev, found.st_ino)):
            info.type, info.linkname = tarfile.LNKTYPE, first
        else:
            info.size = found.st_size
            if found.st_nlink > 1:
                self._links[found.st_dev, found.st_ino] = name
        return info


def _file(path: str, info: tarfile.TarInfo) -> Iterator[bytes]:
    """Header and contents; the size was promised, so a file that changes meanwhile is cut or padded to it."""
    with open(path, "rb") as file:
        yield info.tobuf(tarfile.PAX_FORMAT)
        left = info.size
        while left and (block := file.read(min(left, _READ))):
            left -= len(block)
            yield block
    yield b"\0" * (left + -info.size % tarfile.BLOCKSIZE)
