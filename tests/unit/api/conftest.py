"""An API over a fake engine, on a real unix socket."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from fake_engine import FakeEngine

from wherry.api import Api

Serve = Callable[[Callable[[FakeEngine, str], Awaitable[None]]], None]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Runs a coroutine function with a fake engine and the path of the socket its API listens on."""

    def run(test: Callable[[FakeEngine, str], Awaitable[None]]) -> None:
        asyncio.run(asyncio.wait_for(_serve(test, str(tmp_path / "s")), 20))

    return run


async def _serve(test: Callable[[FakeEngine, str], Awaitable[None]], path: str) -> None:
    engine = FakeEngine()
    factory = Api(cast(Any, engine)).server()
    server = await asyncio.get_running_loop().create_unix_server(factory, path)
    try:
        await test(engine, path)
    finally:
        server.close()
        await factory.shutdown(1)
        for container in engine.containers.made.values():
            for streams in container.attached:
                streams.close()
