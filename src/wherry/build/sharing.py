"""One execution for all who want the same at the same time."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from wherry.build.cache import CacheRecord
from wherry.build.progress import BuildOutput

_PARALLEL = 16


@dataclass(slots=True, eq=False)
class _Shared:
    """An execution that several builds wait for."""

    task: "asyncio.Task[CacheRecord]"
    listeners: list[Callable[[bytes, int], None]] = field(default_factory=list)
    history: list[tuple[bytes, int]] = field(default_factory=list)
    waiting: int = 0


class Sharing:
    """The executions of a daemon's builds that are under way."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._running: dict[str, _Shared] = {}

    async def shared(
        self, key: str, work: Callable[[BuildOutput], Awaitable[CacheRecord]], listener: Callable[[bytes, int], None]
    ) -> CacheRecord:
        """The result of `work`, which is run once for all who ask for `key` meanwhile; all hear its output."""
        shared = self._running.get(key)
        if shared is None:
            shared = self._begin(key, work)
        for data, stream in shared.history:
            listener(data, stream)
        shared.listeners.append(listener)
        shared.waiting += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            shared.listeners.remove(listener)
            if not shared.waiting and not shared.task.done():
                # No one wants it any more; whoever comes now begins anew.
                self._running.pop(key, None)
                shared.task.cancel()
                await asyncio.gather(shared.task, return_exceptions=True)

    def _begin(self, key: str, work: Callable[[BuildOutput], Awaitable[CacheRecord]]) -> _Shared:
        def heard(data: bytes, stream: int) -> None:
            shared.history.append((data, stream))
            for listener in list(shared.listeners):
                listener(data, stream)

        async def run() -> CacheRecord:
            try:
                async with self._slots:
                    return await work(BuildOutput(heard))
            finally:
                if self._running.get(key) is shared:
                    del self._running[key]

        shared = _Shared(asyncio.get_running_loop().create_task(run(), name=f"build step {key[:12]}"))
        shared.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._running[key] = shared
        return shared


class Busy:
    """Ids that something works on, told to whoever looks for leftovers through the set `shown`."""

    def __init__(self, shown: set[str]) -> None:
        self._shown = shown
        self._held: Counter[str] = Counter()

    def hold(self, id: str) -> None:
        self._held[id] += 1
        self._shown.add(id)

    def release(self, id: str) -> None:
        """On the loop, as `hold`: the last of them takes the id away."""
        self._held[id] -= 1
        if not self._held[id]:
            del self._held[id]
            self._shown.discard(id)
