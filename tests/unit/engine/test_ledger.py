"""The accounts of what is on disk: counted when they must be, and only then."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from wherry.engine.ledger import Ledger, Tree
from wherry.errors import NotFound


class Disk:
    """A tree of one size, and how often it was counted. While `gate` is clear, counting waits."""

    def __init__(self) -> None:
        self.size, self.counts, self.now = 10, 0, 100.0
        self.cost = 0.0
        self.gate = threading.Event()
        self.gate.set()
        self.gone: Exception | None = None

    def count(self) -> int:
        assert self.gate.wait(10)
        self.counts += 1
        self.now += self.cost
        if self.gone is not None:
            raise self.gone
        return self.size

    def tree(self, stamp: int = 0, *, busy: bool = False) -> Tree:
        return Tree("t", stamp, busy, self.count)


def asked(ledger: Ledger, disk: Disk, stamp: int = 0, *, busy: bool = False) -> Callable[[], int]:
    return lambda: asyncio.run(ledger.sizes([disk.tree(stamp, busy=busy)]))["t"]


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def ledger(disk: Disk) -> Ledger:
    return Ledger(lambda: disk.now, patience=10)


def test_a_tree_at_rest_is_counted_once_for_each_stamp(ledger: Ledger, disk: Disk) -> None:
    assert asked(ledger, disk)() == 10
    disk.size, disk.now = 20, 1e6
    assert asked(ledger, disk)() == 10
    assert asked(ledger, disk, stamp=1)() == 20
    assert asked(ledger, disk, stamp=1)() == 20
    assert disk.counts == 2


def test_a_busy_tree_is_counted_again_after_a_while_that_grows_with_the_cost(ledger: Ledger, disk: Disk) -> None:
    disk.cost = 2.0
    assert asked(ledger, disk, busy=True)() == 10
    disk.size = 20
    disk.now += 37
    assert asked(ledger, disk, busy=True)() == 10
    disk.now += 2
    assert asked(ledger, disk, busy=True)() == 20


def test_a_first_figure_is_waited_for_and_shared_by_all_who_ask(ledger: Ledger, disk: Disk) -> None:
    async def ask_twice() -> list[dict[str, int]]:
        disk.gate.clear()
        both = [asyncio.create_task(ledger.sizes([disk.tree()])) for _ in range(2)]
        done, _ = await asyncio.wait(both, timeout=0)
        assert not done
        disk.gate.set()
        return await asyncio.gather(*both)

    assert asyncio.run(ask_twice()) == [{"t": 10}, {"t": 10}]
    assert disk.counts == 1


def test_who_asks_for_a_newer_figure_is_not_held_up(disk: Disk) -> None:
    async def ask() -> tuple[int, int]:
        hasty = Ledger(lambda: disk.now, patience=0)
        await hasty.sizes([disk.tree()])
        disk.size = 20
        disk.gate.clear()
        held = (await hasty.sizes([disk.tree(1)]))["t"]
        disk.gate.set()
        await asyncio.gather(*hasty._tasks)
        return held, (await hasty.sizes([disk.tree(1)]))["t"]

    assert asyncio.run(ask()) == (10, 20)


@pytest.mark.parametrize("gone", [NotFound("no snapshot"), FileNotFoundError("gone")])
def test_a_tree_that_is_gone_has_nothing_and_does_not_spoil_others(ledger: Ledger, disk: Disk, gone: Exception) -> None:
    disk.gone = gone
    other = Tree("u", 0, False, lambda: 5)
    assert asyncio.run(ledger.sizes([disk.tree(), other])) == {"t": 0, "u": 5}


def test_what_is_forgotten_is_counted_anew(ledger: Ledger, disk: Disk) -> None:
    asked(ledger, disk)()
    ledger.keep("t", {"t"})
    asked(ledger, disk)()
    assert disk.counts == 1
    ledger.keep("t", set())
    asked(ledger, disk)()
    ledger.forget("t")
    asked(ledger, disk)()
    assert disk.counts == 3
