"""What is being copied into a container, for as long as the client likes.

It does not hold the container's lock, for a client that stalls would then hold up everybody else. Its start waits for
what is on its way (two mounts must not write to the same files), but only while that gets on; its removal does not.
"""

import asyncio
import contextlib
import io
import threading
from collections.abc import Awaitable, Callable
from typing import BinaryIO, cast

from wherry.engine.container import Container
from wherry.errors import Conflict

STALL_SECONDS = 10.0


class Copy(io.RawIOBase):
    """The stream that is being copied. `ended` is done when no thread works on it any more."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        self.progress = 0
        self.ended: asyncio.Future[None] = loop.create_future()
        self.given_up: asyncio.Future[None] = loop.create_future()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.progress += 1
        return data

    def give_up(self) -> None:
        """Tell who waits for it that it will not be."""
        if not self.given_up.done():
            self.given_up.set_result(None)


def copy_in(container: Container, stream: BinaryIO, work: Callable[[BinaryIO], None]) -> Awaitable[None]:
    """`work` on `stream` in a thread, begun and registered now; Conflict when somebody could not wait any longer."""
    loop, copy = asyncio.get_running_loop(), Copy(stream)
    result: asyncio.Future[None] = loop.create_future()
    container.copies.add(copy)

    def end(error: BaseException | None) -> None:
        container.copies.discard(copy)
        copy.ended.set_result(None)
        if result.done():
            return
        if error is None:
            result.set_result(None)
        else:
            result.set_exception(error)

    def run() -> None:
        failure = None
        try:
            work(cast(BinaryIO, copy))
        except BaseException as error:  # noqa: BLE001 - a thread's root: it is raised where the result is waited for
            failure = error
        # The loop is closed when the daemon ended meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(end, failure)

    threading.Thread(target=run, name="wherry-stream", daemon=True).start()
    return _wait(container, copy, result)


async def _wait(container: Container, copy: Copy, result: "asyncio.Future[None]") -> None:
    try:
        await asyncio.wait((result, copy.given_up), return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise Conflict(
                f"copying into container {container.id} stalled while it was to be started or removed",
                object=container.id,
                hint="what came until then is there",
            )
        result.result()
    finally:
        result.cancel()


async def finish_copies(container: Container, stall_seconds: float | None = None) -> None:
    """Wait for what is being copied into it, unless nothing moves for so long; Conflict when it does not even end."""
    stall_seconds = STALL_SECONDS if stall_seconds is None else stall_seconds
    while container.copies:
        copy: Copy = next(iter(container.copies))
        before = copy.progress
        if await _ended(copy, stall_seconds) or copy.progress != before:
            continue
        copy.give_up()
        if not await _ended(copy, STALL_SECONDS):
            raise Conflict(f"something is being copied into container {container.id}", object=container.id)


async def _ended(copy: Copy, seconds: float) -> bool:
    done, _ = await asyncio.wait((copy.ended,), timeout=seconds)
    return bool(done)
