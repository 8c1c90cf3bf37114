"""The engine: every room wired together."""

import asyncio
import os
from typing import Any

from wherry.engine import exits, lifecycle, reconcile, reconfigure, shutdown, system
from wherry.engine.assembly import assemble
from wherry.engine.backends import Backends
from wherry.engine.build_documents import cache_documents
from wherry.engine.config import DaemonConfig
from wherry.engine.container import Container
from wherry.engine.containers import Containers
from wherry.engine.core import Core
from wherry.engine.disk_usage import disk_usage
from wherry.engine.events import Events
from wherry.engine.execs import Execs
from wherry.engine.fsck import document, fsck
from wherry.engine.health import HealthChecks
from wherry.engine.naming import Naming
from wherry.engine.parts import Exit, Parts


class Engine:
    """One daemon's whole state. Make it with `open`."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.config: DaemonConfig = core.config
        self.events: Events = core.events
        core.health = HealthChecks(core, self._on_unhealthy)
        self.execs = Execs(core)
        self.containers = Containers(core, self.execs)
        self.images: Any = core.parts.images
        self.volumes: Any = core.parts.volumes
        self.networks: Any = core.parts.networks
        self.builds: Any = None
        self.store = core.store

    @classmethod
    async def open(cls, config: DaemonConfig, parts: Parts | None = None) -> "Engine":
        """Open the state, start or find monitor and logger, reconcile. `parts`: other than the real ones, for tests."""
        for directory in (config.data_root, config.exec_root, config.containers_dir, config.bundles_dir):
            os.makedirs(directory, mode=0o711, exist_ok=True)
        if parts is None:
            parts = await asyncio.to_thread(assemble, config)
        engine = cls(Core(config, parts))
        try:
            await engine._start()
        except BaseException:
            await engine.close()
            raise
        return engine

    async def _start(self) -> None:
        core = self._core
        core.backends = Backends(
            core.parts, self._on_exit, core.whole_logs.add, self._after_monitor, self._after_logger
        )
        core.naming = Naming(core, core.parts.open_resolver)
        core.parts.volumes.tell = core.events.teller("volume")
        await core.backends.open()
        if core.parts.builder is not None:
            self.builds = core.parts.builder(core)
        reconcile.load(core)
        await reconcile.reconcile(core)

    async def close(self) -> None:
        """Let go of everything; containers run on. With none running, nothing of the engine's is left in the kernel."""
        core = self._core
        core.closing = True
        core.health.close()
        for container in core.index:
            if container.restarter is not None:
                container.restarter.cancel()
        await core.settle()
        if hasattr(core, "backends"):
            await core.naming.close()
            await core.backends.close()
        for container in core.index:
            if container.run is not None:
                container.run.let_go()
        if not any(container.state.running or container.run for container in core.index):
            await asyncio.to_thread(core.parts.clear)
        await asyncio.to_thread(core.parts.close)

    @property
    def health_checks(self) -> tuple[int, int]:
        """How many were made, and how many of them failed."""
        return self._core.health.done, self._core.health.failed

    async def stop_all(self) -> None:
        """Stop every container, before `close`: for those who want them to end with the daemon."""
        await shutdown.stop_all(self._core)

    def longest_stop(self, at_least: float) -> float | None:
        """Seconds that containers may take to stop by their own settings; None: one may take for ever."""
        return shutdown.longest_stop(self._core, at_least)

    def reconfigure(self, config: DaemonConfig) -> None:
        """Take over what can change while running."""
        self.config = config
        reconfigure.reconfigure(self._core, config)

    async def version(self) -> dict[str, Any]:
        """Docker's version document."""
        return system.version()

    async def info(self) -> dict[str, Any]:
        """Docker's info document."""
        return await system.info(self._core)

    async def fsck(self, *, mend: bool, deep: bool) -> dict[str, Any]:
        """Check state, disk and kernel against each other: {"Findings": [...], "Left": how many were not mended}."""
        return document(await fsck(self._core, mend=mend, deep=deep))

    async def disk_usage(self) -> dict[str, Any]:
        """Docker's system df document."""
        document = await disk_usage(self._core, await self.containers.list(all=True, size=True))
        if self.builds is not None:
            document["BuildCache"] = await asyncio.to_thread(cache_documents, self.builds)
        return document

    async def settle(self) -> None:
        """Wait until nothing is left to do in the background."""
        await self._core.settle()

    def _on_exit(self, exit: Exit) -> None:
        if self.builds is not None and self.builds.on_exit(exit):
            return
        if exit.exec_id is None:
            exits.on_exit(self._core, exit, self.execs.drop)
        else:
            self.execs.on_exit(exit)

    async def _on_unhealthy(self, container: Container, action: str) -> None:
        """As its health check says: `kill` leaves what follows to the restart policy, `stop` ends it for good."""
        if action == "restart":
            await lifecycle.restart(self._core, container.id, None, None)
        elif action == "stop":
            await lifecycle.stop(self._core, container.id, None, None)
        else:
            await lifecycle.strike(self._core, container)

    async def _after_monitor(self) -> None:
        await reconcile.after_monitor(self._core)

    async def _after_logger(self) -> None:
        await reconcile.adopt_streams(self._core)
