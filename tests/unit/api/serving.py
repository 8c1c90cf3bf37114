"""An API over a fake engine, on a real unix socket."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from fake_engine import FakeEngine

from wherry.api import Api

Test = Callable[[FakeEngine, str], Awaitable[None]]
Serve = Callable[[Test], None]


async def serve_engine(test: Test, path: str) -> None:
    """Run `test` with a fake engine and the path of the socket its API listens on."""
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
