"""Build contexts kept between builds, so that only what changed is sent (`wherry build`).

    <root>/<id>/tree/        the files
    <root>/<id>/manifest     what they were when they were sent; absent while they are being changed

A manifest is the client's own list: "MODE SIZE MTIME CTIME INODE PATH" for each path, each ended by a zero byte, sorted
by path. It is compared as text: a line that is there already stands for a file that is here already.
"""

import asyncio
import hashlib
import os
import re
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from wherry.archive import UnpackOptions, open_directory, remove_tree, unpack
from wherry.build.trees import Digests
from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.images.compression import decompressed

Runner = Callable[..., Awaitable[object]]
"""How blocking work that lasts as long as a client likes is run: run(work, *arguments)."""
_ID = re.compile(r"[0-9a-f]{32}\Z")
_MANIFEST_MAX = 256 << 20


@dataclass(slots=True, eq=False)
class KeptContext:
    """One context. `key` names its content as long as nobody changes it; `digest` is its manifest's."""

    path: str
    digest: str
    key: str
    digests: Digests
    readers: int = 0
    changing: bool = False


class ContextStore:
    """The contexts of one daemon. The loop's thread, but for what says otherwise."""

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root = root
        self._kept: dict[str, KeptContext] = {}
        self._generation = 0
        for directory in root.iterdir():
            manifest = directory / "manifest"
            if _ID.match(directory.name) and manifest.is_file():
                digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
                self._kept[directory.name] = self._context(directory, digest)
            else:
                shutil.rmtree(directory, ignore_errors=True)

    def use(self, id: str, digest: str) -> KeptContext:
        """The context whose manifest has this digest, to be given back with `done`; NotFound when it is another."""
        context = self._kept.get(id)
        if context is None or context.changing or context.digest != digest:
            raise NotFound("the build context must be sent", object=id)
        context.readers += 1
        return context

    def done(self, context: KeptContext) -> None:
        context.readers -= 1

    async def begin(self, id: str, manifest: bytes) -> list[int]:
        """Take over a manifest: what is gone goes; the numbers of the lines whose files must be sent.

        Conflict while a build reads the context.
        """
        _check(id, manifest)
        context = self._kept.get(id)
        if context is not None and (context.readers or context.changing):
            raise Conflict("the build context is in use", object=id, hint="send it under another id")
        context = self._kept[id] = self._context(self._root / id, "")
        context.changing = True
        try:
            return await asyncio.to_thread(_compare, self._root / id, manifest)
        except BaseException:
            context.changing = False
            raise

    async def finish(self, id: str, manifest_digest: str, tar: BinaryIO, run: Runner) -> None:
        """Unpack the files that were asked for; then the context is what the manifest says."""
        context = self._kept.get(id)
        if context is None or not context.changing:
            raise NotFound("no build context is being sent under this id", object=id)
        try:
            await run(_complete, self._root / id, manifest_digest, tar)
            self._kept[id] = self._context(self._root / id, manifest_digest)
        finally:
            context.changing = False

    def prune(self, older_than_seconds: float) -> int:
        """In a thread: remove contexts no build has used for so long; how many."""
        limit, gone = time.time() - older_than_seconds, 0
        for id, context in list(self._kept.items()):
            directory = self._root / id
            with suppress(OSError):
                if not context.readers and not context.changing and (directory / "manifest").stat().st_mtime < limit:
                    del self._kept[id]
                    shutil.rmtree(directory, ignore_errors=True)
                    gone += 1
        return gone

    def _context(self, directory: Path, digest: str) -> KeptContext:
        self._generation += 1
        known = self._kept.get(directory.name)
        digests = known.digests if known is not None else Digests()
        return KeptContext(str(directory / "tree"), digest, f"{directory.name}.{self._generation}", digests)


def _check(id: str, manifest: bytes) -> None:
    if not _ID.match(id):
        raise InvalidArgument("a context's id is 32 hexadecimal digits", object=id)
    if len(manifest) > _MANIFEST_MAX:
        raise InvalidArgument(f"the manifest is larger than {_MANIFEST_MAX >> 20} MiB")


def _compare(directory: Path, manifest: bytes) -> list[int]:
    tree = directory / "tree"
    tree.mkdir(mode=0o755, parents=True, exist_ok=True)
    kept = directory / "manifest"
    before: set[bytes] = set()
    with suppress(FileNotFoundError):
        before = set(kept.read_bytes().split(b"\0"))
        # From here on the files are neither the old nor the new ones.
        kept.unlink()
    if not before:
        shutil.rmtree(tree)
        tree.mkdir(mode=0o755)
    lines = manifest.split(b"\0")
    wanted = [number for number, line in enumerate(lines) if line and line not in before]
    _remove(tree, before.difference(lines), lines)
    (directory / "manifest.new").write_bytes(manifest)
    return wanted


def _remove(tree: Path, gone: set[bytes], lines: list[bytes]) -> None:
    """What is in no line any more, and files in the place of which something else is to come."""
    present = {_path(line): line for line in lines if line}
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for line in sorted(gone, key=_path, reverse=True):
            path = _path(line)
            if not path or (path in present and _is_directory(line) and _is_directory(present[path])):
                continue
            head, _, name = path.rpartition(b"/")
            with suppress(OSError):
                parent = open_directory(root, head)
                try:
                    remove_tree(parent, os.fsdecode(name))
                finally:
                    os.close(parent)
    finally:
        os.close(root)


def _complete(directory: Path, digest: str, tar: BinaryIO) -> None:
    new = directory / "manifest.new"
    manifest = new.read_bytes()
    if hashlib.sha256(manifest).hexdigest() != digest:
        raise InvalidArgument("the manifest is another than was announced", object=digest)
    root = os.open(directory / "tree", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with decompressed(tar, name="the build context") as plain:
            unpack(plain, root, UnpackOptions(owner=(0, 0)))
        while tar.read(1 << 16):
            pass
    finally:
        os.close(root)
    new.rename(directory / "manifest")


def _path(line: bytes) -> bytes:
    parts = line.split(b" ", 5)
    return parts[5] if len(parts) == 6 else b""


def _is_directory(line: bytes) -> bool:
    return line.startswith(b"4")
