"""Removing a container: forgotten at once, by one write; what it had on disk goes in the background.

What a crash in between leaves is known by the container's id and belongs to no record, so reconciliation removes it.
Only volumes have names of their own: those that are to go are noted in the store, at `garbage/<id>`.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Sequence

from wherry.engine import mounting
from wherry.engine.container import Container
from wherry.engine.copies import finish_copies
from wherry.engine.core import Core
from wherry.engine.records import MountPoint, definition_key, state_key
from wherry.errors import Conflict, WherryError
from wherry.state import Delete, Put

log = logging.getLogger(__name__)


def remove_locked(core: Core, container: Container, *, volumes: bool) -> None:
    """Under its lock, when it does not run."""
    anonymous = container.anonymous_volumes if volumes else []
    core.store.write(
        Delete(definition_key(container.id)),
        Delete(state_key(container.id)),
        *([intent(container.id, anonymous)] if anonymous else ()),
    )
    container.set_state(status="removing")
    core.index.remove(container)
    core.ledger.forget(container.id)
    core.emit(container, "destroy")
    container.wake("not-running", "next-exit", "removed")
    task = core.spawn(_dispose(core, container, anonymous), f"the disposal of {container.id[:12]}")
    core.disposals.add(task)
    task.add_done_callback(core.disposals.discard)


def intent(id: str, volumes: Sequence[str]) -> Put:
    """The note that `volumes` go with the container `id`."""
    return Put(f"garbage/{id}", json.dumps({"volumes": volumes}).encode())


async def _dispose(core: Core, container: Container, volumes: Sequence[str]) -> None:
    if container.release is not None:
        await container.release
    if container.copies:
        # Into what nobody will ever see.
        with contextlib.suppress(Conflict):
            await finish_copies(container, 0)
    in_use = {mount.name for other in core.index for mount in other.definition.mounts if mount.name}
    removable = [name for name in volumes if name not in in_use]
    await asyncio.to_thread(dispose, core, container.id, removable, container.definition.mounts)
    if len(removable) < len(volumes):
        core.store.write(Delete(f"garbage/{container.id}"))


def dispose(core: Core, id: str, volumes: Sequence[str], mounted: Sequence[MountPoint] = ()) -> None:
    """In a thread: everything a container may have left, in any state of completion."""
    core.parts.networks.disconnect(id)
    core.parts.snapshots.remove(id)
    mounting.forget_images(core, id, mounted)
    core.parts.images.container_removed()
    core.parts.sweep(str(core.bundle(id)))
    core.parts.sweep(str(core.directory(id)))
    for name in volumes:
        try:
            core.parts.volumes.remove(name, True)
        except WherryError as error:
            log.warning("cannot remove the volume %s of %s: %s", name, id, error)
    if volumes:
        core.store.write(Delete(f"garbage/{id}"))
