"""One path inside a root: where it leads, what it is, its contents. As a process chrooted there would see it."""

import os
import stat as st
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

from wherry.errors import InvalidArgument, NotFound
from wherry.kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, fd_path, open_in_root, openat2

# Go's os.FileMode.
_KINDS = {
    st.S_IFDIR: 1 << 31,
    st.S_IFLNK: 1 << 27,
    st.S_IFBLK: 1 << 26,
    st.S_IFCHR: 1 << 26 | 1 << 21,
    st.S_IFIFO: 1 << 25,
    st.S_IFSOCK: 1 << 24,
}
_BITS = ((st.S_ISUID, 1 << 23), (st.S_ISGID, 1 << 22), (st.S_ISVTX, 1 << 20))
_MAX_LINKS = 40


@dataclass(frozen=True, slots=True)
class PathStat:
    """docker's ContainerPathStat. `mode` is Go's os.FileMode, `link_target` an absolute path in the root, or ""."""

    name: str
    size: int
    mode: int
    mtime_ns: int
    link_target: str

    @property
    def is_directory(self) -> bool:
        return bool(self.mode & 1 << 31)

    def to_json(self) -> dict[str, Any]:
        """What X-Docker-Container-Path-Stat holds, base64-encoded."""
        return {
            "name": self.name,
            "size": self.size,
            "mode": self.mode,
            "mtime": rfc3339(self.mtime_ns),
            "linkTarget": self.link_target,
        }


def stat(root: int, path: str) -> PathStat:
    """What `path` is; a link itself is looked at, unless a slash or "/." follows it. NotFound, InvalidArgument."""
    with opened(root, path) as (fd, name):
        status = os.fstat(fd)
    target = ""
    if st.S_ISLNK(status.st_mode):
        target = os.fsdecode(follow(root, os.fsencode(path)))
    return PathStat(name, status.st_size, go_mode(status.st_mode), status.st_mtime_ns, target)


def read_file(root: int, path: str, *, limit: int = 1 << 20) -> bytes:
    """The contents of the regular file `path`, links followed inside the root.

    NotFound; InvalidArgument when it is no regular file or longer than `limit`. For files of an image, such as
    /etc/passwd: nothing else is ever opened, so no device acts and no fifo blocks.
    """
    try:
        handle = open_in_root(root, path.lstrip("/") or ".")
    except OSError as error:
        refuse(path, error)
    try:
        fd = reopen_file(handle, path)
    finally:
        os.close(handle)
    with open(fd, "rb", buffering=0) as file:
        parts = []
        left = limit + 1
        while left and (part := file.read(left)):
            parts.append(part)
            left -= len(part)
    if not left:
        raise InvalidArgument(f"{path} is longer than {limit} bytes", object=path)
    return b"".join(parts)


def reopen_file(handle: int, path: str) -> int:
    """A descriptor to read from, of the regular file that the O_PATH descriptor `handle` holds."""
    if not st.S_ISREG(os.fstat(handle).st_mode):
        raise InvalidArgument(f"{path} is not a regular file", object=path)
    return os.open(fd_path(handle), os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def opened(root: int, path: str) -> Iterator[tuple[int, str]]:
    """(O_PATH descriptor, docker's name) of `path`, its last part not followed when it is a link."""
    absolute = "/" + path
    base = absolute.rpartition("/")[2]
    flags = os.O_PATH | os.O_NOFOLLOW
    try:
        # "d/" and "d/." are d as a directory: the link d is followed.
        if base in ("", ".", ".."):
            fd = open_in_root(root, absolute.lstrip("/") or ".", os.O_PATH | os.O_DIRECTORY)
        else:
            fd = open_in_root(root, absolute.lstrip("/"), flags)
    except OSError as error:
        refuse(path, error)
    try:
        yield fd, absolute.rstrip("/").rpartition("/")[2] or "/"
    finally:
        os.close(fd)


def follow(root: int, path: bytes) -> bytes:
    """The absolute path in `root` that `path` leads to through all links; the last parts need not exist.

    For showing only: by the time it is used it may lead elsewhere.
    """
    done: list[bytes] = []
    waiting = path.split(b"/")[::-1]
    links = 0
    while waiting:
        part = waiting.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            done = done[:-1]
            continue
        target = _read_link(root, b"/".join([*done, part]))
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise InvalidArgument(f"too many links in {os.fsdecode(path)!r}", object=os.fsdecode(path))
        if target.startswith(b"/"):
            done = []
        waiting.extend(target.split(b"/")[::-1])
    return b"/" + b"/".join(done)


def go_mode(mode: int) -> int:
    """st_mode as Go's os.FileMode."""
    found = mode & 0o777 | _KINDS.get(st.S_IFMT(mode), 0)
    for bit, go_bit in _BITS:
        if mode & bit:
            found |= go_bit
    return found


def rfc3339(ns: int) -> str:
    """Nanoseconds since the epoch as Go's time.RFC3339Nano in UTC."""
    seconds, fraction = divmod(ns, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{fraction:09}".rstrip("0").rstrip(".") + "Z" if fraction else text + "Z"


def refuse(path: str, error: OSError) -> NoReturn:
    """Raise what it means for the caller that `path` cannot be opened."""
    if isinstance(error, FileNotFoundError):
        raise NotFound(f"Could not find the file {path}", object=path) from None
    raise InvalidArgument(f"cannot open {path}: {os.strerror(error.errno or 0).lower()}", object=path) from error


def _read_link(root: int, path: bytes) -> bytes | None:
    try:
        fd = openat2(root, path, os.O_PATH | os.O_NOFOLLOW, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    except OSError:
        return None
    try:
        if not st.S_ISLNK(os.fstat(fd).st_mode):
            return None
        return os.readlink(b"", dir_fd=fd)
    finally:
        os.close(fd)
