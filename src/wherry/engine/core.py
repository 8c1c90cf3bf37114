"""What every operation of the engine shares: the parts, the index of containers, and work in the background."""

import asyncio
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wherry.engine.backends import Backends
from wherry.engine.cdi import Registry
from wherry.engine.config import DaemonConfig
from wherry.engine.container import Container
from wherry.engine.events import Events
from wherry.engine.index import Index
from wherry.engine.ledger import Ledger
from wherry.engine.parts import Parts
from wherry.engine.records import definition_key, dump, state_key
from wherry.engine.userns import load_remap
from wherry.engine.users import Accounts
from wherry.state import Change, Put

if TYPE_CHECKING:
    from wherry.engine.health import HealthChecks
    from wherry.engine.naming import Naming

log = logging.getLogger(__name__)


class Core:
    """Shared by the engine's modules; only the loop's thread touches it."""

    backends: Backends
    health: "HealthChecks"
    naming: "Naming"

    def __init__(self, config: DaemonConfig, parts: Parts) -> None:
        self.config = config
        self.parts = parts
        self.store = parts.store
        self.index = Index()
        self.events = Events()
        self.ledger = Ledger()
        self.cdi = Registry(config.cdi_spec_dirs)
        self.remap = load_remap(config.userns_remap)
        self.closing = False
        # Until everything found at the start has been dealt with, nothing is started anew.
        self.serving = False
        # By image: /etc/passwd and /etc/group as the image has them, and working directories known to be there.
        self.accounts: dict[str, Accounts] = {}
        self.directories: set[tuple[str, str]] = set()
        # Of containers whose outputs have all ended: nothing is to be waited for when they exit.
        self.whole_logs: set[str] = set()
        # Ids of what runs or has a snapshot without being a container, such as a step of a build.
        self.transient: set[str] = set()
        self.disposals: set[asyncio.Task[None]] = set()
        self.releases: set[asyncio.Future[None]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    def directory(self, id: str) -> Path:
        """Where a container's own files are."""
        return self.config.containers_dir / id

    def bundle(self, id: str) -> Path:
        """A container's OCI bundle."""
        return self.config.bundles_dir / id

    def log_path(self, id: str) -> Path:
        """A container's log."""
        return self.directory(id) / f"{id}-json.log"

    def cgroup_path(self, container: Container) -> str:
        """Its cgroup, below the daemon's parent unless it asks for another."""
        parent = container.definition.host.cgroup_parent or self.config.cgroup_parent
        return f"{parent.rstrip('/')}/{container.id}"

    def save_state(self, container: Container, *also: Change) -> None:
        """Write its state; one short write, so it stays on the loop."""
        self.store.write(Put(state_key(container.id), dump(container.state)), *also)

    def save_definition(self, container: Container) -> None:
        """Write its definition."""
        self.store.write(Put(definition_key(container.id), dump(container.definition)))

    def emit(self, container: Container, action: str, **attributes: str) -> None:
        """An event of a container: docker gives its image, name and labels with each."""
        definition = container.definition
        self.events.emit(
            "container",
            action,
            container.id,
            {
                **(definition.config.labels or {}),
                **attributes,
                "image": definition.config.image,
                "name": definition.name,
            },
        )

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> "asyncio.Task[Any]":
        """Run `work` in the background; its failure is logged, and `settle` waits for it."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def settle(self) -> None:
        """Wait until nothing is left to do in the background."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def disposed(self) -> None:
        """Wait until every removed container is gone from disk too."""
        if self.disposals:
            await asyncio.gather(*self.disposals, return_exceptions=True)

    async def released(self) -> bool:
        """Wait until the networks of containers that ended are given back; False when there was none to wait for."""
        if not self.releases:
            return False
        await asyncio.gather(*self.releases, return_exceptions=True)
        return True

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)
