"""Build contexts that are no directory of the client's: an archive it sends, a repository, an address."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from wherry.archive import UnpackOptions, read_file, unpack
from wherry.build.copying import is_archive
from wherry.build.graph import Remote
from wherry.build.progress import BuildOutput
from wherry.build.remote import git_remote, is_url
from wherry.buildkit.grpc import check_end
from wherry.buildkit.messages import buildkit_pb2 as pb
from wherry.buildkit.report import Report
from wherry.buildkit.sessions import Session
from wherry.buildkit.threads import finished
from wherry.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from wherry.images.compression import decompressed

_PULL = "/moby.upload.v1.Upload/Pull"
_SESSION_HOST = "buildkit-session"
_DOCKERFILE_MAX = 16 << 20


class RemoteContext(NamedTuple):
    """`path`: the files. `dockerfile`: the text, where all there is is a Dockerfile. `release` takes them away."""

    path: str
    dockerfile: bytes | None
    release: Callable[[], object]


async def fetch(fetcher: Any, address: str, session: Session | None, report: Report, scratch: Path) -> RemoteContext:
    """Bring the context that `address` names."""
    git = git_remote(address)
    if git is not None:
        with report.vertex(f"[internal] load git source {address}") as vertex:
            tree = await fetcher.git(git, BuildOutput(lambda data, stream: vertex.log(data, stream)))
            return RemoteContext(tree.path, None, lambda: fetcher.release(tree))
    if not is_url(address):
        raise InvalidArgument(f"context {address!r} is neither a git repository nor a URL", object=address)
    directory = scratch / os.urandom(8).hex()
    directory.mkdir(mode=0o700)
    try:
        with report.vertex(f"[internal] load remote build context {_shown(address)}") as vertex:
            if urlsplit(address).hostname == _SESSION_HOST:
                file = str(directory / "sent")
                await _pull(
                    session, address, file, lambda count: vertex.status("receiving", count, name="transferring")
                )
                dockerfile = await finished(_open, file, str(directory / "tree"))
            else:
                tree = await fetcher.remote(Remote(address), lambda now, all: vertex.status("download", now, all))
                try:
                    (name,) = os.listdir(tree.path)
                    dockerfile = await finished(_open, f"{tree.path}/{name}", str(directory / "tree"))
                finally:
                    fetcher.release(tree)
    except BaseException:
        await finished(shutil.rmtree, directory, True)
        raise
    return RemoteContext(str(directory / "tree"), dockerfile, lambda: shutil.rmtree(directory, ignore_errors=True))


def _shown(address: str) -> str:
    return "" if urlsplit(address).hostname == _SESSION_HOST else address


async def _pull(session: Session | None, address: str, file: str, on_bytes: Callable[[int], None]) -> None:
    """What the client uploads under an address of its own session, into a file."""
    if session is None or not session.offers(_PULL):
        raise FailedPrecondition("the client uploads no build context")
    parts = urlsplit(address)
    count = 0
    try:
        async with session.calling(_PULL, {"urlpath": [parts.path], "urlhost": [parts.netloc]}) as call:
            with open(file, "wb") as out:
                while (message := await call.recv(pb.BytesMessage)) is not None:
                    count += len(message.data)
                    await finished(out.write, message.data)
                    on_bytes(count)
            check_end(call.stream)
    except ConnectionError:
        raise Unavailable("the client has gone") from None


def _open(file: str, root: str) -> bytes | None:
    """In a thread: an archive becomes a tree; anything else is a Dockerfile, alone in an empty one."""
    os.mkdir(root, 0o755)
    with open(file, "rb") as sent:
        if not is_archive(sent):
            sent.seek(0)
            return sent.read(_DOCKERFILE_MAX)
        sent.seek(0)
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with decompressed(sent, name="the build context") as tar:
                unpack(tar, fd, UnpackOptions(owner=(0, 0)))
        finally:
            os.close(fd)
    os.unlink(file)
    return None


def read_below(root: str, name: str) -> bytes | None:
    """In a thread: a file of a context, links followed inside it."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return read_file(fd, name, limit=_DOCKERFILE_MAX)
    except NotFound:
        return None
    finally:
        os.close(fd)
