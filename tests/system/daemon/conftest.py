"""A daemon to break, one per test module."""

import os
from collections.abc import Iterator

import pytest
from wreck import Wreck


@pytest.fixture(scope="module")
def shared_wreck() -> Iterator[Wreck]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    wreck = Wreck()
    try:
        yield wreck
    finally:
        wreck.close()


@pytest.fixture
def wreck(shared_wreck: Wreck) -> Iterator[Wreck]:
    """Running, with no container; so it must be afterwards too."""
    yield shared_wreck
    if shared_wreck.daemon.process is not None and shared_wreck.daemon.process.poll() is not None:
        shared_wreck.daemon.start()
    shared_wreck.clear()
    shared_wreck.settle()
