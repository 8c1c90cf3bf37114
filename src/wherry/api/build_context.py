"""The context of POST /build as a directory: from its body, a repository or a URL; its Dockerfile and ignore rules."""

import asyncio
import os
import shutil
from typing import BinaryIO

from wherry.api.bodies import upload
from wherry.api.call import Call
from wherry.archive import UnpackOptions, read_file, unpack
from wherry.build.dockerfile import Source
from wherry.build.fetch import FetchedTree
from wherry.build.graph import Remote
from wherry.build.ignore import Ignore, read_ignore_file
from wherry.build.progress import BuildOutput
from wherry.build.remote import git_remote, is_url
from wherry.engine.threads import in_own_thread
from wherry.errors import InvalidArgument, NotFound, WherryError
from wherry.images.compression import decompressed

_DOCKERFILE_MAX = 16 << 20


async def receive(call: Call, directory: str) -> tuple[FetchedTree, Source]:
    """The context as a directory, and the Dockerfile in it."""
    remote = call.query.get("remote")
    name = call.query.get("dockerfile") or "Dockerfile"
    if remote:
        return await _fetch(call, remote, directory, name)
    root = f"{directory}/tree"
    async with upload(call) as body:
        await in_own_thread(_unpack, body, root)
    return FetchedTree(root), await asyncio.to_thread(read_dockerfile, root, name)


async def _fetch(call: Call, remote: str, directory: str, name: str) -> tuple[FetchedTree, Source]:
    fetcher = call.engine.builds.solver.fetcher
    git = git_remote(remote)
    if git is not None:
        fetched = await fetcher.git(git, BuildOutput(lambda data, stream: None))
        await asyncio.to_thread(shutil.move, fetched.path, f"{directory}/tree")
        fetcher.release(fetched)
        root = f"{directory}/tree"
        return FetchedTree(root), await asyncio.to_thread(read_dockerfile, root, name)
    if not is_url(remote):
        raise InvalidArgument(f"remote URL {remote!r} could not be processed as either Git, tar or Dockerfile")
    fetched = await fetcher.remote(Remote(remote), lambda current, total: None)
    try:
        return await asyncio.to_thread(_open_download, fetched.path, directory, name)
    finally:
        fetcher.release(fetched)


def _open_download(path: str, directory: str, name: str) -> tuple[FetchedTree, Source]:
    from wherry.build.copying import is_archive

    (downloaded,) = os.listdir(path)
    root = f"{directory}/tree"
    with open(f"{path}/{downloaded}", "rb") as file:
        if is_archive(file):
            file.seek(0)
            _unpack(file, root)
            return FetchedTree(root), read_dockerfile(root, name)
        file.seek(0)
        text = file.read(_DOCKERFILE_MAX)
    os.mkdir(root, 0o755)
    return FetchedTree(root), Source("Dockerfile", text.decode("utf-8", "replace"))


def _unpack(body: BinaryIO, root: str) -> None:
    """In a thread: a context may hold anything; what leaves the root is refused by the unpacker."""
    os.mkdir(root, 0o755)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with decompressed(body, name="the build context") as tar:
            unpack(tar, fd, UnpackOptions(owner=(0, 0)))
        # What follows the archive's end belongs to the request all the same.
        while body.read(1 << 16):
            pass
    finally:
        os.close(fd)


def read_dockerfile(root: str, name: str) -> Source:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for candidate in dict.fromkeys((name, name.lower() if name == "Dockerfile" else name)):
            try:
                data = read_file(fd, candidate, limit=_DOCKERFILE_MAX)
            except NotFound:
                continue
            return Source(candidate, data.decode("utf-8", "replace"))
    finally:
        os.close(fd)
    raise InvalidArgument(f"Cannot locate specified Dockerfile: {name}", object=name)


def read_ignore(root: str, dockerfile: str) -> Ignore | None:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
            try:
                text = read_file(fd, name, limit=1 << 20).decode("utf-8", "replace")
            except WherryError:
                continue
            rules = Ignore(read_ignore_file(text))
            return rules if rules.rules else None
    finally:
        os.close(fd)
    return None
