"""Large bodies: uploads as files for code that reads in a thread, pipes as answers."""

import asyncio
import fcntl
import io
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import BinaryIO, cast

from wherry.api.call import Call
from wherry.api.connection import cancelled_when_gone
from wherry.api.reply import Answer, Stream
from wherry.engine.threads import in_own_thread
from wherry.errors import WherryError

log = logging.getLogger("wherry.api")

_PIPE_SIZE = 1 << 20
_CHUNK = 256 << 10


class _Upload(io.RawIOBase):
    """The reading end of an upload. A client that broke off is an OSError here, never a plain end of file."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.broken = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        if self.closed:
            # Its request was given up; the descriptor's number may be another's by now.
            raise ConnectionResetError("the upload was given up")
        count = os.readv(self._descriptor, [buffer])
        if not count and self.broken:
            raise ConnectionResetError("the client broke off its upload")
        return count

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._descriptor)


@asynccontextmanager
async def upload(call: Call) -> AsyncIterator[BinaryIO]:
    """The request's body as a file to be read by a thread; the body is fetched no faster than it is read."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    _enlarge(writing)
    raw = _Upload(reading)
    feeder = asyncio.create_task(_feed(call, writing, raw))
    try:
        yield cast(BinaryIO, io.BufferedReader(raw, _CHUNK))
    finally:
        raw.close()
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)


async def _feed(call: Call, descriptor: int, raw: _Upload) -> None:
    protocol = _PipeWriter()
    pipe = os.fdopen(descriptor, "wb", 0)
    transport, _ = await asyncio.get_running_loop().connect_write_pipe(lambda: protocol, pipe)
    try:
        await call.send_continue()
        while data := await call.request.content.readany():
            transport.write(data)
            await protocol.can_write.wait()
            if transport.is_closing():
                return
    except (ConnectionError, OSError):
        raw.broken = True
    except asyncio.CancelledError:
        transport.abort()
        raise
    finally:
        transport.close()


class _PipeWriter(asyncio.BaseProtocol):
    def __init__(self) -> None:
        self.can_write = asyncio.Event()
        self.can_write.set()

    def pause_writing(self) -> None:
        self.can_write.clear()

    def resume_writing(self) -> None:
        self.can_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.can_write.set()


async def send_pipe(stream: Stream, descriptor: int) -> None:
    """Copy a pipe to the client until its end. Owns the descriptor."""
    _enlarge(descriptor)
    reader = asyncio.StreamReader(limit=_CHUNK)
    pipe = os.fdopen(descriptor, "rb", 0)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, pipe)
    try:
        while data := await reader.read(_CHUNK):
            await stream.write(data)
    finally:
        transport.close()


async def send_written(call: Call, content_type: str, write: Callable[[BinaryIO], None]) -> Answer:
    """What `write` writes in a thread, as it comes. An error before its first byte is answered as any other error."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    _enlarge(writing)

    def run() -> None:
        with os.fdopen(writing, "wb", _CHUNK) as out:
            write(out)

    writer = asyncio.ensure_future(in_own_thread(run))
    stream = Stream(call.request)
    first = await in_own_thread(os.read, reading, _CHUNK)
    try:
        if not first:
            await writer
        stream.open(content_type)
        with cancelled_when_gone(call.request):
            await stream.write(first)
            await send_pipe(stream, os.dup(reading))
            await writer
    except (WherryError, OSError) as error:
        if not first or isinstance(error, ConnectionError):
            raise
        log.warning("%s was not sent whole: %s", call.request.raw_path, error)
        return stream.abort()
    finally:
        os.close(reading)
        writer.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await stream.end()


def _enlarge(descriptor: int) -> None:
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    except OSError:
        # Beyond the user's limit for pipes (fs.pipe-user-pages-soft): slower, not wrong.
        pass
