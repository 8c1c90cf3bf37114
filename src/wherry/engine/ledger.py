"""What containers and volumes take on disk: kept, not counted anew for every question.

A tree that nothing of ours can write to keeps its figure until its stamp changes. One in use is counted again once its
figure is older than a second or than twenty times what counting took, whichever is longer: so counting never takes
more than a twentieth of the time, however often it is asked for. Whoever asks waits for a first figure as long as it
takes, and for a newer one a moment; after that the last one is given, and the newer one is there next time.

Rejected: watching for writes (fanotify marks a whole file system or one directory, both too much and too little), and
project quotas as the only way (few machines mount their data with them).
"""

import asyncio
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import NamedTuple

from wherry.errors import NotFound

_FRESH_SECONDS = 1.0
_REST = 20.0
_PATIENCE_SECONDS = 0.25


class Tree(NamedTuple):
    """A directory tree to be accounted for.

    `stamp` differs whenever the tree may have changed for a reason we know; `busy`: it may change at any time.
    `measure` gives its bytes, in a thread; OSError or NotFound when it is gone.
    """

    key: str
    stamp: Hashable
    busy: bool
    measure: Callable[[], int]


class _Account(NamedTuple):
    stamp: Hashable
    size: int
    at: float  # when counting began: what is written meanwhile may be missed
    cost: float


class Ledger:
    """The accounts. Only the loop's thread touches it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, patience: float = _PATIENCE_SECONDS) -> None:
        self._accounts: dict[str, _Account] = {}
        self._counting: dict[str, asyncio.Future[None]] = {}
        self._clock = clock
        self._patience = patience
        self._tasks: set[asyncio.Task[None]] = set()

    async def sizes(self, trees: Sequence[Tree]) -> dict[str, int]:
        """Bytes by key; a tree that is gone has 0."""
        due = [tree for tree in trees if not self._is_current(tree)]
        if due:
            self._count([tree for tree in due if tree.key not in self._counting])
            waited = {tree.key: self._counting[tree.key] for tree in due if tree.key in self._counting}
            new = [future for key, future in waited.items() if key not in self._accounts]
            if new:
                await asyncio.wait(new)
            if newer := [future for future in waited.values() if not future.done()]:
                await asyncio.wait(newer, timeout=self._patience)
        return {tree.key: self._size(tree.key) for tree in trees}

    def forget(self, key: str) -> None:
        """The tree is gone, or was changed by us."""
        self._accounts.pop(key, None)

    def keep(self, prefix: str, keys: Collection[str]) -> None:
        """Forget all that begin with `prefix` and are not among `keys`."""
        for key in [key for key in self._accounts if key.startswith(prefix) and key not in keys]:
            del self._accounts[key]

    def _size(self, key: str) -> int:
        account = self._accounts.get(key)
        return account.size if account is not None else 0

    def _is_current(self, tree: Tree) -> bool:
        account = self._accounts.get(tree.key)
        if account is None or account.stamp != tree.stamp:
            return False
        return not tree.busy or self._clock() - account.at < max(_FRESH_SECONDS, _REST * account.cost)

    def _count(self, trees: Sequence[Tree]) -> None:
        """Begin to count them, the cheap ones first, all in one thread."""
        if not trees:
            return
        loop = asyncio.get_running_loop()
        for tree in trees:
            self._counting[tree.key] = loop.create_future()
        ordered = sorted(trees, key=lambda tree: self._expected(tree.key))
        task = loop.create_task(self._count_all(ordered), name="the count of what is on disk")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _expected(self, key: str) -> float:
        account = self._accounts.get(key)
        return account.cost if account is not None else 0.0

    async def _count_all(self, trees: Sequence[Tree]) -> None:
        loop = asyncio.get_running_loop()

        def tell(tree: Tree, account: _Account | None) -> None:
            loop.call_soon_threadsafe(self._enter, tree.key, account)

        try:
            await asyncio.to_thread(_count_each, trees, self._clock, tell)
        finally:
            # Behind whatever the thread has told; a count that failed altogether leaves nobody waiting.
            loop.call_soon(self._give_up, [tree.key for tree in trees])

    def _enter(self, key: str, account: _Account | None) -> None:
        if account is None:
            self._accounts.pop(key, None)
        else:
            self._accounts[key] = account
        self._end(key)

    def _give_up(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._end(key)

    def _end(self, key: str) -> None:
        waited = self._counting.pop(key, None)
        if waited is not None and not waited.done():
            waited.set_result(None)


def _count_each(
    trees: Sequence[Tree], clock: Callable[[], float], tell: Callable[[Tree, _Account | None], None]
) -> None:
    for tree in trees:
        began = clock()
        try:
            size = tree.measure()
        except (OSError, NotFound):
            tell(tree, None)
        else:
            tell(tree, _Account(tree.stamp, size, began, clock() - began))
