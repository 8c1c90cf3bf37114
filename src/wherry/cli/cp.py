"""`wherry cp`."""

from __future__ import annotations

import posix
import posixpath
import sys

from wherry.cli.flags import Command, StatusError
from wherry.client import codec
from wherry.client.engine import segment
from wherry.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

FLAGS = (
    ("archive", "a", "bool", False, "Keep the owners of files"),
    ("follow-link", "L", "bool", False, "Follow a symbolic link that SRC_PATH is"),
    ("quiet", "q", "bool", False, "Do not say what was copied"),
)
_GO_DIRECTORY = 1 << 31
_GO_SYMLINK = 1 << 27
_STAT = "x-docker-container-path-stat"


def cp(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    source, target = arguments
    if not source:
        raise InvalidArgument("source can not be empty")
    if not target:
        raise InvalidArgument("destination can not be empty")
    from_container, from_path = _split(source)
    to_container, to_path = _split(target)
    if from_container and to_container:
        raise StatusError("copying between containers is not supported", 1)
    if from_container:
        return _out(cli, flags, from_container, from_path, to_path)
    if to_container:
        return _in(cli, flags, from_path, to_container, to_path)
    raise StatusError("must specify at least one container source", 1)


def _split(text: str) -> tuple[str, str]:
    """CONTAINER:PATH, or a path of this machine, which may hold a colon when it begins with / or a dot."""
    if text.startswith(("/", ".")) or ":" not in text:
        return "", text
    container, _, path = text.partition(":")
    return container, path


def _stat(cli: Cli, container: str, path: str) -> dict[str, Any]:
    """name, size, mode (Go's bits), linkTarget of a path in a container. Raises NotFound."""
    try:
        response = cli.engine.open("HEAD", f"/containers/{segment(container)}/archive", [("path", path)])
    except NotFound:
        raise NotFound(f"Error response from daemon: Could not find the file {path} in container {container}") from None
    found = response.headers.get(_STAT, "")
    response.read()
    cli.engine.recycle(response)
    return _decode(found)


def _decode(text: str) -> dict[str, Any]:
    import binascii

    found: dict[str, Any] = codec.loads(binascii.a2b_base64(text))
    return found


def _is_directory(found: dict[str, Any]) -> bool:
    return bool(found["mode"] & _GO_DIRECTORY)


def _inner(path: str) -> str:
    """A path in a container, from its root; a last `/` or `/.` is kept, for it has a meaning."""
    clean = posixpath.normpath("/" + path)
    clean = "/" + clean.lstrip("/")
    if path.endswith("/.") or path == ".":
        return clean.rstrip("/") + "/."
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def _out(cli: Cli, flags: Flags, container: str, path: str, target: str) -> int:
    path = _inner(path)
    if target == "-":
        response = cli.engine.open("GET", f"/containers/{segment(container)}/archive", [("path", path)])
        from wherry.cli.streams import copy_raw

        copy_raw(response.chunks(), 1)
        return 0
    parent, name, directory_wanted = _destination(target)
    if flags["follow-link"]:
        found = _stat(cli, container, path)
        if found["mode"] & _GO_SYMLINK:
            path = posixpath.join(posixpath.dirname(path), found["linkTarget"])
    response = cli.engine.open("GET", f"/containers/{segment(container)}/archive", [("path", path)])
    found = _decode(response.headers[_STAT])
    is_directory = _is_directory(found)
    if name is None:  # the target is a directory that exists
        rename = "" if path.endswith("/.") else _base(path) if path != "/" else ""
        into = target
    else:
        if directory_wanted and not is_directory:
            raise StatusError("no such directory", 1)
        if is_directory and posix.access(target, 0):
            raise StatusError("cannot copy directory", 1)
        into, rename = parent, name
        if is_directory and not posix.access(target, 0):
            posix.mkdir(target)
            into, rename = target, ""
    from wherry.cli.unpack import unpack

    size = unpack(response.chunks(), into, rename, flags["archive"])
    _say(flags, size, target)
    return 0


def _base(path: str) -> str:
    return posixpath.basename(path.rstrip("/"))


def _destination(target: str) -> tuple[str, str | None, bool]:
    """(directory to unpack into, name for the copy or None to keep its own, whether it must be a directory)."""
    if posixpath.isdir(target):
        return target, None, True
    wanted = target.endswith(("/", "/."))
    clean = target.rstrip("/.") if target.endswith("/.") else target.rstrip("/")
    parent = posixpath.dirname(clean) or "."
    if not posixpath.isdir(parent):
        raise StatusError(f'invalid output path: directory "{posixpath.abspath(parent)}" does not exist', 1)
    return parent, posixpath.basename(clean), wanted


def _in(cli: Cli, flags: Flags, source: str, container: str, path: str) -> int:
    path = _inner(path)
    target = _container_target(cli, container, path)
    query = [("path", path), ("noOverwriteDirNonDir", "true")]
    if flags["archive"]:
        query.append(("copyUIDGID", "true"))
    if source == "-":
        if target is None or not _is_directory(target):
            raise StatusError(f'destination "{container}:{path}" must be a directory', 1)
        _put(cli, container, query, _stdin())
        return 0
    clean = source.rstrip("/") or "/"
    contents_only = source.endswith("/.") or source == "."
    try:
        info = posix.stat(clean) if flags["follow-link"] or source.endswith(("/", "/.")) else posix.lstat(clean)
    except OSError as error:
        raise StatusError(f"lstat {source}: {(error.strerror or '').lower()}", 1) from None
    is_directory = (info.st_mode & 0o170000) == 0o040000
    if target is not None and _is_directory(target):
        rename = "" if contents_only else posixpath.basename(posixpath.abspath(clean))
    else:
        if target is not None and is_directory:
            raise StatusError("cannot copy directory", 1)
        if target is None and not is_directory and path.endswith(("/", "/.")):
            raise StatusError("no such directory", 1)
        stripped = path.removesuffix("/.").rstrip("/")
        query[0] = ("path", posixpath.dirname(stripped) or "/")
        rename = posixpath.basename(stripped)
    from wherry.cli.pack import Packer

    packer = Packer(flags["follow-link"])
    _put(cli, container, query, packer.stream(clean, rename))
    _say(flags, packer.size, f"{container}:{path}")
    return 0


def _container_target(cli: Cli, container: str, path: str) -> dict[str, Any] | None:
    """What stands at the target, a symbolic link followed; None when nothing does."""
    try:
        found = _stat(cli, container, path)
        if found["mode"] & _GO_SYMLINK:
            link = posixpath.join(posixpath.dirname(path.rstrip("/")), found["linkTarget"])
            found = _stat(cli, container, link)
    except NotFound:
        parent = posixpath.dirname(path.removesuffix("/.").rstrip("/")) or "/"
        _stat(cli, container, parent)  # names the container, or the directory, that is missing
        return None
    return found


def _put(cli: Cli, container: str, query: list[tuple[str, str]], body: Iterator[bytes]) -> None:
    response = cli.engine.open(
        "PUT", f"/containers/{segment(container)}/archive", query, body, [("Content-Type", "application/x-tar")]
    )
    response.read()


def _stdin() -> Iterator[bytes]:
    while block := posix.read(0, 1 << 18):
        yield block


def _say(flags: Flags, size: int, where: str) -> None:
    if not flags["quiet"] and posix.isatty(2):
        from wherry.cli.units import decimal_size

        sys.stderr.write(f"Successfully copied {decimal_size(size, 3)} to {where}\n")


COMMANDS = {"cp": Command(cp, FLAGS, (2, 2))}
