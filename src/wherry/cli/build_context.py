"""A directory as a build context: what is sent of it, its manifest, and its files as a tar stream.

The tar is written by hand: thousands of small files are what contexts are made of, and tarfile costs each of them
more than reading it does.
"""

from __future__ import annotations

import os
import stat

from wherry.cli.flags import StatusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from wherry.build.ignore import Ignore

_READ = 1 << 18
_BLOCK = 512
_PLAIN_SIZE = 1 << 33


class Context:
    """The files of a directory. `entries` are (path relative to it, status), parents first, sorted."""

    def __init__(self, root: str, dockerfile: str) -> None:
        """`dockerfile`: its path in the context, which is sent whatever the rules say; "" when it is elsewhere."""
        self.root = root
        self.entries: list[tuple[str, os.stat_result]] = []
        self._always = {dockerfile, f"{dockerfile}.dockerignore", ".dockerignore"}
        self._rules = _rules(root, dockerfile)
        self._walk("", 0)

    def manifest(self) -> bytes:
        """As the engine compares it: a line for each entry that changes when the entry may have changed."""
        return b"".join(
            [
                b"%o %d %d %d %d %b\0"
                % (found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, os.fsencode(path))
                for path, found in self.entries
            ]
        )

    def tar(self, wanted: list[int] | None = None, further: dict[str, bytes] | None = None) -> Iterator[bytes]:
        """The entries (those with the numbers `wanted`) and files made up, in blocks of a sensible size."""
        pending: list[bytes] = []
        size = 0
        for block in self._blocks(wanted, further or {}):
            pending.append(block)
            size += len(block)
            if size >= _READ:
                yield b"".join(pending)
                pending, size = [], 0
        pending.append(b"\0" * _BLOCK * 2)
        yield b"".join(pending)

    def _blocks(self, wanted: list[int] | None, further: dict[str, bytes]) -> Iterator[bytes]:
        chosen = self.entries if wanted is None else [self.entries[number] for number in wanted]
        for path, found in chosen:
            kind = stat.S_IFMT(found.st_mode)
            full = f"{self.root}/{path}"
            if kind == stat.S_IFREG:
                yield from _file(full, path, found)
            elif kind == stat.S_IFDIR:
                yield header(path + "/", found.st_mode, 0, found.st_mtime_ns, b"5")
            elif kind == stat.S_IFLNK:
                yield header(path, 0o777, 0, found.st_mtime_ns, b"2", os.readlink(full))
            elif kind == stat.S_IFIFO:
                yield header(path, found.st_mode, 0, found.st_mtime_ns, b"6")
        for path, data in further.items():
            yield header(path, 0o600, len(data), 0, b"0") + data + b"\0" * (-len(data) % _BLOCK)

    def _walk(self, directory: str, marks: int) -> None:
        try:
            with os.scandir(f"{self.root}/{directory}" if directory else self.root) as found:
                children = sorted(found, key=_name)
        except OSError as error:
            raise StatusError(f"error checking context: {error.filename}: {error.strerror}", 1) from None
        prefix = f"{directory}/" if directory else ""
        for child in children:
            path = prefix + child.name
            below = marks
            is_directory = child.is_dir(follow_symlinks=False)
            if self._rules is not None:
                rule, below = self._rules.child(path, marks)
                if rule is not None and not rule.exception and path not in self._always:
                    if is_directory and self._descends(path):
                        self._inside(path, below, child)
                    continue
            try:
                status = child.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISSOCK(status.st_mode):
                continue
            self.entries.append((path, status))
            if is_directory:
                self._walk(path, below)

    def _descends(self, path: str) -> bool:
        assert self._rules is not None
        return self._rules.descends(path) or any(name.startswith(path + "/") for name in self._always)

    def _inside(self, path: str, marks: int, child: os.DirEntry[str]) -> None:
        """An ignored directory that may hold an exception: it goes along only when it does."""
        count = len(self.entries)
        self.entries.append((path, child.stat(follow_symlinks=False)))
        self._walk(path, marks)
        if len(self.entries) == count + 1:
            self.entries.pop()


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _rules(root: str, dockerfile: str) -> Ignore | None:
    for name in (f"{dockerfile}.dockerignore" if dockerfile else "", ".dockerignore"):
        try:
            with open(f"{root}/{name}", encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        except (FileNotFoundError, IsADirectoryError):
            continue
        from wherry.build.ignore import Ignore, read_ignore_file

        rules = Ignore(read_ignore_file(text))
        return rules if rules.rules else None
    return None


def _file(full: str, path: str, found: os.stat_result) -> Iterator[bytes]:
    """Header and contents; the size was promised, so a file that changes meanwhile is cut or padded to it."""
    try:
        fd = os.open(full, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise StatusError(f"error reading the build context: {error.filename}: {error.strerror}", 1) from None
    try:
        left = found.st_size
        head = header(path, found.st_mode, left, found.st_mtime_ns, b"0")
        if left <= _READ:
            data = os.read(fd, left) if left else b""
            yield head + data + b"\0" * (left - len(data) + -left % _BLOCK)
            return
        yield head
        while left and (block := os.read(fd, min(left, 1 << 20))):
            left -= len(block)
            yield block
        yield b"\0" * (left + -found.st_size % _BLOCK)
    finally:
        os.close(fd)


def header(path: str, mode: int, size: int, mtime_ns: int, kind: bytes, link: str = "") -> bytes:
    """One entry's header block; with a pax header before it where ustar's fields are too small."""
    name, target = os.fsencode(path), os.fsencode(link)
    mtime = max(0, mtime_ns // 10**9)
    if len(name) > 100 or len(target) > 100 or size >= _PLAIN_SIZE or mtime >= _PLAIN_SIZE:
        return _long(path, mode, size, mtime, kind, link)
    block = b"%b%07o\x000000000\x000000000\x00%011o\x00%011o\x00        %b%bustar\x0000" % (
        name.ljust(100, b"\0"),
        mode & 0o7777,
        size,
        mtime,
        kind,
        target.ljust(100, b"\0"),
    )
    return b"%b%06o\0 %b%b" % (block[:148], sum(block), block[156:], b"\0" * (_BLOCK - len(block)))


def _long(path: str, mode: int, size: int, mtime: int, kind: bytes, link: str) -> bytes:
    import tarfile

    info = tarfile.TarInfo(path)
    info.mode, info.size, info.mtime, info.type, info.linkname = mode & 0o7777, size, mtime, kind, link
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
