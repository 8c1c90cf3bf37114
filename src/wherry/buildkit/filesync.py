"""Files of a client: a directory brought up to date, or a few small files read."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from wherry.archive import read_file
from wherry.buildkit.grpc import check_end
from wherry.buildkit.receiver import Receiver
from wherry.buildkit.sessions import Session
from wherry.buildkit.synced import Slot
from wherry.buildkit.threads import finished
from wherry.errors import FailedPrecondition, InvalidArgument, Unavailable, WherryError

DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"
OnBytes = Callable[[int], None]
SMALL_MAX = 16 << 20


async def sync(
    session: Session, name: str, patterns: Mapping[str, Sequence[str]], slot: Slot, on_bytes: OnBytes
) -> None:
    """Make `slot` what the client's directory `name` is, seen through `patterns` (as headers of the call)."""
    kept = await finished(slot.begin)
    root = os.open(slot.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    receiver = Receiver(root, kept, slot.changing)
    try:
        await _transfer(session, name, patterns, receiver, on_bytes, None)
        if receiver.changed:
            await finished(slot.complete, receiver.listing)
    finally:
        receiver.close()
        os.close(root)


async def read_small(
    session: Session, name: str, wanted: Sequence[str], on_bytes: OnBytes, scratch: Path
) -> dict[str, bytes]:
    """The contents of those files of directory `name` that are there, links followed inside it."""
    directory = await asyncio.to_thread(tempfile.mkdtemp, prefix="read-", dir=scratch)
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    receiver = Receiver(root, ())
    try:
        await _transfer(session, name, {"followpaths": wanted}, receiver, on_bytes, SMALL_MAX)
        return await finished(_read_all, root, wanted)
    finally:
        receiver.close()
        os.close(root)
        await asyncio.to_thread(shutil.rmtree, directory, True)


def _read_all(root: int, wanted: Sequence[str]) -> dict[str, bytes]:
    found = {}
    for path in wanted:
        try:
            found[path] = read_file(root, path, limit=SMALL_MAX)
        except WherryError:
            continue
    return found


async def _transfer(
    session: Session,
    name: str,
    patterns: Mapping[str, Sequence[str]],
    receiver: Receiver,
    on_bytes: OnBytes,
    limit: int | None,
) -> None:
    if not session.offers(DIFF_COPY):
        raise FailedPrecondition(
            "the client offers no files to this build", hint="it is a build without a local context"
        )
    try:
        async with session.calling(DIFF_COPY, {**patterns, "dir-name": [name]}) as call:
            stream = call.stream
            while True:
                packets = stream.take()
                if not packets:
                    if stream.ended:
                        break
                    if stream.closed:
                        raise Unavailable("the client has gone")
                    await stream.wait()
                    continue
                packets = receiver.skip(packets)
                answers = await finished(receiver.feed, packets) if packets else []
                on_bytes(receiver.received)
                if limit is not None and receiver.received > limit:
                    raise InvalidArgument(
                        f"the client sent more than {limit >> 20} MiB for a Dockerfile or an ignore file"
                    )
                if answers:
                    await stream.send(answers)
            check_end(stream)
            if not receiver.finished:
                raise Unavailable("the client ended the transfer early")
    except ConnectionError:
        raise Unavailable("the client has gone") from None
