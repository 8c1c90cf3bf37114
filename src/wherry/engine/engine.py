"""The engine: every room wired together."""

from typing import Any

from wherry.engine.config import DaemonConfig
from wherry.engine.containers import Containers
from wherry.engine.events import Events
from wherry.engine.execs import Execs


class Engine:
    """One daemon's whole state. Make it with `open`."""

    config: DaemonConfig
    containers: Containers
    execs: Execs
    events: Events
    images: Any
    volumes: Any
    networks: Any

    @classmethod
    async def open(cls, config: DaemonConfig) -> "Engine":
        """Open the state, start or find monitor and logger, reconcile."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of everything; containers run on."""
        raise NotImplementedError

    async def version(self) -> dict[str, Any]:
        """Docker's version document."""
        raise NotImplementedError

    async def info(self) -> dict[str, Any]:
        """Docker's info document."""
        raise NotImplementedError

    async def disk_usage(self) -> dict[str, Any]:
        """Docker's system df document."""
        raise NotImplementedError
