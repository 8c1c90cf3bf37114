import asyncio
from pathlib import Path

import pytest
from serving import Serve, Test, serve_engine


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Runs a coroutine function with a fake engine and the path of the socket its API listens on."""

    def run(test: Test) -> None:
        asyncio.run(asyncio.wait_for(serve_engine(test, str(tmp_path / "s")), 20))

    return run
