"""The tree a step begins with, looked at without mounting it; mount points made in it and taken away again."""

import os
import stat
from collections.abc import Sequence
from typing import Any, NamedTuple

from wherry.build.layer_view import find, view
from wherry.engine.users import Accounts, read_accounts
from wherry.kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, open_in_root, openat2

_MAX_FILE = 4 << 20


class Stub(NamedTuple):
    """A mount point that is not in the tree: `made` is the first of its directories that lacks, or itself."""

    path: str
    made: str
    parent_mtime: int


def look(snapshots: Any, key: str, targets: list[str], cwd: str) -> tuple[Accounts, list[Stub], bool]:
    """Accounts, the mount points that lack, and whether `cwd` does, in the tree the step begins with."""
    layers = snapshots.mounts(key)[0].lowerdirs
    try:
        texts = [_text(layers, path) for path in ("etc/passwd", "etc/group")]
        stubs = [stub for target in targets if (stub := _stub_of(layers, target)) is not None]
        return Accounts(*texts), stubs, cwd != "/" and find(layers, cwd) is None
    except (LookupError, OSError):
        # Links on the way: only the whole tree can tell.
        root = snapshots.open_root(key)
        try:
            found = [stub for target in targets if (stub := _stub(root, target)) is not None]
            return read_accounts(root), found, _missing(root, cwd)
        finally:
            os.close(root)


def remove_stubs(snapshots: Any, key: str, stubs: list[Stub]) -> None:
    """In a thread: empty mount points go, as far as the command left them empty; no link is followed."""
    options = snapshots.mounts(key)[0].options
    upper = next(option.partition("=")[2] for option in options if option.startswith("upperdir="))
    # What the tree lacked can only be in what the step wrote, which nobody has mounted any more.
    root = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for stub in reversed(stubs):
            _remove_stub(root, stub)
    finally:
        os.close(root)


def _missing(root: int, path: str) -> bool:
    try:
        os.close(open_in_root(root, path.lstrip("/") or "."))
    except OSError:
        return True
    return False


def _stub(root: int, path: str) -> Stub | None:
    parts = [part for part in path.split("/") if part]
    if not parts or parts[0] in ("dev", "proc", "sys"):
        return None
    for count in range(1, len(parts) + 1):
        here = "/".join(parts[:count])
        if _missing(root, here):
            parent = open_in_root(root, "/".join(parts[: count - 1]) or ".")
            try:
                return Stub("/".join(parts), here, os.fstat(parent).st_mtime_ns)
            finally:
                os.close(parent)
    return None


def _stub_of(layers: Sequence[str], path: str) -> Stub | None:
    """As `_stub`, without the tree being mounted."""
    parts = [part for part in path.split("/") if part]
    if not parts or parts[0] in ("dev", "proc", "sys"):
        return None
    above = os.stat(layers[0])
    for count in range(1, len(parts) + 1):
        here = "/".join(parts[:count])
        status = find(layers, here)
        if status is None:
            return Stub("/".join(parts), here, above.st_mtime_ns)
        above = status
    return None


def _text(layers: Sequence[str], path: str) -> str:
    status = find(layers, path)
    if status is None or not stat.S_ISREG(status.st_mode):
        return ""
    found = view(layers, path)
    if found is None or not found.file:
        return ""
    fd = os.open(found.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        return file.read(_MAX_FILE).decode("utf-8", "replace")


def _remove_stub(root: int, stub: Stub) -> None:
    path = stub.path
    plain = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
    while path.startswith(stub.made):
        head, _, name = path.rpartition("/")
        try:
            parent = openat2(root, head or ".", os.O_RDONLY | os.O_DIRECTORY, resolve=plain)
        except OSError:
            return
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                os.rmdir(name, dir_fd=parent)
            elif stat.S_ISREG(found.st_mode) and not found.st_size:
                os.unlink(name, dir_fd=parent)
            else:
                return
            if path == stub.made:
                os.utime(parent, ns=(stub.parent_mtime, stub.parent_mtime))
        except OSError:
            return
        finally:
            os.close(parent)
        if not head:
            return
        path = head
