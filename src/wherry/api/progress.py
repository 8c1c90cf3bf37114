"""Long work that reports its progress: one JSON document per line while it goes on, its error as the last one."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from wherry.api.call import Call
from wherry.api.reply import JSON, Answer, Reply, Stream, dump_json
from wherry.errors import WherryError

_BEHIND = 256 << 10
"""Bytes unsent above which mere progress (not results) is left out for a slow client."""


class ProgressStream:
    """Sends progress documents; safe to call from any thread. The head goes out with the first of them."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._stream: Stream | None = None

    def __call__(self, message: dict[str, Any]) -> None:
        self._loop.call_soon_threadsafe(self._send, message)

    def _send(self, message: dict[str, Any]) -> None:
        transport = self._call.request.transport
        if transport is None or transport.is_closing():
            return
        if message.get("progressDetail") and transport.get_write_buffer_size() > _BEHIND:
            return
        self.open().send(dump_json(message))

    def open(self) -> Stream:
        """The answer, opened if it was not yet."""
        if self._stream is None:
            self._stream = Stream(self._call.request).open(JSON)
        return self._stream

    @property
    def opened(self) -> bool:
        """Whether the head has been sent, so that errors must follow in the stream."""
        return self._stream is not None


async def run_with_progress(call: Call, work: Callable[[ProgressStream], Awaitable[dict[str, Any] | None]]) -> Answer:
    """Run `work`; what it returns is sent last. An error before any progress is answered as any other error."""
    progress = ProgressStream(call)
    try:
        last = await work(progress)
        # What threads reported before is in the loop's queue: let it out first.
        await asyncio.sleep(0)
    except WherryError as error:
        await asyncio.sleep(0)
        if not progress.opened:
            raise
        last = {"errorDetail": {"message": str(error)}, "error": str(error)}
    if last is None and not progress.opened:
        return Reply(200, b"", headers={"Content-Type": JSON})
    if last is not None:
        progress.open().send(dump_json(last))
    return await progress.open().end()
