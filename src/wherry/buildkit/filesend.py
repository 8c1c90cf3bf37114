"""Results to the client: a tree, file by file, or a stream of bytes it keeps as one file."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import BinaryIO, cast

from wherry.buildkit.grpc import Call, check_end
from wherry.buildkit.http2 import Stream
from wherry.buildkit.messages.buildkit_pb2 import BytesMessage
from wherry.buildkit.sending import FINISH, Sender
from wherry.buildkit.sessions import Session
from wherry.buildkit.threads import finished
from wherry.engine.threads import in_own_thread
from wherry.errors import FailedPrecondition, Unavailable

DIFF_COPY = "/moby.filesync.v1.FileSend/DiffCopy"
_CHUNK = 256 << 10
_BATCH = 1 << 20
OnBytes = Callable[[int], None]


async def send_tree(session: Session, exporter: int, root: int, on_bytes: OnBytes) -> None:
    """The tree below `root` into the client's directory."""
    sender = Sender(root)
    try:
        async with _calling(session, exporter) as call:
            stream = call.stream
            async for batch in _threaded(sender.describe()):
                await stream.send(batch)
            while not sender.finished:
                packets = stream.take()
                if packets:
                    await _send_files(stream, sender, sender.wanted(packets), on_bytes)
                elif stream.ended:
                    check_end(stream)
                    raise Unavailable("the client ended the transfer early")
                else:
                    await _more(stream)
            await stream.send([FINISH], end=True)
            await _await_end(call)
    except ConnectionError:
        raise Unavailable("the client has gone") from None


async def _send_files(stream: Stream, sender: Sender, wanted: list[int], on_bytes: OnBytes) -> None:
    async for batch in _threaded(_batches(packet for index in wanted for packet in sender.contents(index))):
        await stream.send(batch)
        on_bytes(sender.sent)


async def send_stream(session: Session, exporter: int, write: Callable[[BinaryIO], None], on_bytes: OnBytes) -> None:
    """What `write` writes, in a thread of its own, into the client's file."""
    loop = asyncio.get_running_loop()
    try:
        async with _calling(session, exporter) as call:
            pipe = _Pipe(loop, call.stream, on_bytes)

            def work() -> None:
                write(cast(BinaryIO, pipe))
                pipe.flush()

            task = asyncio.ensure_future(in_own_thread(work))
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                # What it writes to is gone, so it ends; before that nothing it reads may be taken away.
                call.stream.reset()
                await asyncio.gather(task, return_exceptions=True)
                raise
            await call.stream.send([], end=True)
            await _await_end(call)
    except ConnectionError:
        raise Unavailable("the client has gone") from None


class _Pipe:
    """A file for a thread to write to; what it writes is sent on the loop, no faster than the client takes it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stream: Stream, on_bytes: OnBytes) -> None:
        self._loop, self._stream, self._on_bytes = loop, stream, on_bytes
        self._waiting = bytearray()
        self._count = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self._waiting += data
        if len(self._waiting) >= _BATCH:
            self.flush()
        return len(data)

    def flush(self) -> None:
        data, self._waiting = bytes(self._waiting), bytearray()
        if data:
            self._count += len(data)
            asyncio.run_coroutine_threadsafe(self._send(data), self._loop).result()

    async def _send(self, data: bytes) -> None:
        chunks = (data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK))
        await self._stream.send(BytesMessage(data=chunk).SerializeToString() for chunk in chunks)
        self._on_bytes(self._count)

    def tell(self) -> int:
        return self._count + len(self._waiting)

    def close(self) -> None:
        self.flush()


def _calling(session: Session, exporter: int) -> AbstractAsyncContextManager[Call]:
    if not session.offers(DIFF_COPY):
        raise FailedPrecondition("the client takes no files from this build", hint="give --output a destination")
    return session.calling(DIFF_COPY, {"buildkit-attachable-exporter-id": [str(exporter)]})


async def _more(stream: Stream) -> None:
    if stream.closed:
        raise Unavailable("the client has gone")
    await stream.wait()


async def _await_end(call: Call) -> None:
    while await call.stream.recv() is not None:
        pass
    check_end(call.stream)


def _batches(packets: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for packet in packets:
        batch.append(packet)
        size += len(packet)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


async def _threaded(items: Iterator[list[bytes]]) -> AsyncIterator[list[bytes]]:
    """The items of an iterator that blocks."""
    while (item := await finished(next, items, None)) is not None:
        yield item
