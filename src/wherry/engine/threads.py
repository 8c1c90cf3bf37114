"""Work in a thread of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def in_own_thread(work: Callable[..., T], *arguments: Any) -> T:
    """As asyncio.to_thread, for what lasts as long as a client likes: uploads, and answers that it must read.

    The loop's own threads are few and serve every operation; clients that stall would have them all.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = work(*arguments)
        except BaseException as error:  # noqa: BLE001 - a thread's root: it is raised where the result is waited for
            failure = error
        # The loop is closed when the daemon ended meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="wherry-stream", daemon=True).start()
    return await future
