"""Work in threads that is never left behind."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def finished(work: Callable[..., T], *arguments: Any) -> T:
    """As asyncio.to_thread, but a cancellation waits for its end: what it works on may be taken away after it."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
