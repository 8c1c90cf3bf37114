"""`system fsck`: state, disk and kernel against each other, while the engine goes on serving.

Each check lists what is there first and asks the records second: whatever an operation under way has just made is
known to the index by then (a creation reserves its id before it touches anything, a removal is waited for). Before a
remedy touches a container it takes its lock and looks again.
"""

import asyncio
import os
import re
import shutil
from collections.abc import Collection
from functools import partial
from typing import Any

from wherry.engine import exits, mounting, shared_memory
from wherry.engine.container import Container
from wherry.engine.core import Core
from wherry.engine.parts import ContainerState
from wherry.engine.records import definition_key, dump, state_key
from wherry.errors import WherryError
from wherry.kernel.cgroups import children
from wherry.runtime.client import Exit
from wherry.spec.digest import ChainID
from wherry.spec.finding import Finding, Findings
from wherry.state import Delete, Put

_ID = re.compile(r"[0-9a-f]{64}")


async def fsck(core: Core, *, mend: bool, deep: bool) -> list[Finding]:
    """Every disagreement; with `mend`, mended where that loses nothing. `deep`: read every blob of every image."""
    await core.disposed()
    await core.released()
    findings = Findings(mend=mend)
    _check_records(core, findings)
    await asyncio.to_thread(core.parts.volumes.check, findings)
    await asyncio.to_thread(core.parts.images.check, findings, deep=deep)
    await _check_disk(core, findings)
    await _check_monitor(core, findings)
    await _check_logger(core, findings)
    await _check_kernel(core, findings)
    await asyncio.to_thread(core.parts.networks.check, findings)
    return findings.found


def document(found: list[Finding]) -> dict[str, Any]:
    """What the API gives."""
    return {"Findings": [finding.to_json() for finding in found], "Left": sum(not finding.mended for finding in found)}


def _check_records(core: Core, findings: Findings) -> None:
    known = core.index.ids()
    for prefix in ("containers/", "states/"):
        for key, _ in core.store.scan(prefix):
            if key.removeprefix(prefix) not in known:
                act = partial(core.store.write, Delete(key))
                findings.add("containers", key, "a record of no container", "remove the record", act)
    for container in list(core.index):
        written = Put(definition_key(container.id), dump(container.definition))
        if core.store.get(written.key) != written.value:
            act = partial(core.store.write, written)
            findings.add("containers", container.name, "its definition is not what is recorded", "record it", act)
        if core.store.get(state_key(container.id)) is None:
            act = partial(core.save_state, container)
            findings.add("containers", container.name, "its state is not recorded", "record it", act)


async def _check_disk(core: Core, findings: Findings) -> None:
    config, snapshots = core.config, core.parts.snapshots
    keys = set(await asyncio.to_thread(snapshots.keys))
    owners = core.index.ids() | core.transient
    for key in sorted(key for key in keys if mounting.owner(key) not in owners and key not in owners):
        findings.add("snapshots", key, "it belongs to no container", "remove it", partial(snapshots.remove, key))
    for container in list(core.index):
        _check_tree(core, container, keys, findings)
    for directory, kept in ((config.containers_dir, core.index.ids), (config.bundles_dir, partial(_started, core))):
        for name in sorted(set(await asyncio.to_thread(os.listdir, directory)) - kept() - core.transient):
            act = partial(shutil.rmtree, directory / name)
            findings.add(directory.name, name, "it belongs to no container that could use it", "remove it", act)


def _check_tree(core: Core, container: Container, keys: Collection[str], findings: Findings) -> None:
    chain = container.definition.chain
    if container.id not in keys:
        problem = "its writable layer is missing"
        findings.add("containers", container.name, problem, "remove it: what it had written is lost")
    if chain and not core.parts.snapshots.has(ChainID(chain)):
        problem = "the layers of its image are missing"
        findings.add("containers", container.name, problem, f"pull {container.definition.config.image} again")
    if not core.directory(container.id).is_dir():
        act = partial(os.mkdir, core.directory(container.id), 0o710)
        findings.add("containers", container.name, "its directory is missing, with its log", "make it", act)
    for mount in container.definition.mounts:
        if mount.type == "volume" and not _has_volume(core, mount.name):
            remedy = f"make an empty one: wherry volume create {mount.name}"
            findings.add("containers", container.name, f"its volume {mount.name} is missing", remedy)


def _has_volume(core: Core, name: str) -> bool:
    try:
        core.parts.volumes.get(name)
    except WherryError:
        return False
    return True


def _started(core: Core) -> set[str]:
    """Those that run, or are on their way to."""
    return {c.id for c in core.index if c.run is not None or c.state.status == "starting"}


async def _check_monitor(core: Core, findings: Findings) -> None:
    monitor = await core.backends.monitor()
    seen = {found.id: found for found in await monitor.list()}
    for id in sorted(seen.keys() - _started(core) - core.transient):
        act = partial(_drop_run, core, id)
        await findings.add_async("processes", id, "the monitor has it, and nobody runs it", "end it", act)
    for container in list(core.index):
        if container.run is not None and _ended(container, seen.get(container.id)):
            problem, act = "it is said to run, and does not", partial(_end_run, core, container)
            await findings.add_async("containers", container.name, problem, "deal with its exit", act)


def _ended(container: Container, seen: ContainerState | None) -> bool:
    return container.state.status in ("running", "paused") and (seen is None or seen.status == "stopped")


async def _drop_run(core: Core, id: str) -> None:
    container = core.index.get(id)
    monitor = await core.backends.monitor()
    if container is None:
        await monitor.delete(id, force=True)
        return
    async with container.lock:
        if container.run is None:
            await monitor.delete(id, force=True)


async def _end_run(core: Core, container: Container) -> None:
    # An exit on its way wins: `finish` ignores the second report.
    monitor = await core.backends.monitor()
    seen = {found.id: found for found in await monitor.list()}.get(container.id)
    if _ended(container, seen):
        known = seen.exit if seen is not None else None
        await exits.finish(core, container, known or Exit(container.id, None, -1, False, 0))


async def _check_logger(core: Core, findings: Findings) -> None:
    logger = await core.backends.logger()
    streams = set(await logger.streams())
    for id in sorted(streams - _started(core) - core.transient):
        # One attached to before its start has streams that wait for it.
        if id not in core.index:
            await findings.add_async(
                "logs", id, "its streams are open for nobody", "close them", partial(logger.close, id)
            )


async def _check_kernel(core: Core, findings: Findings) -> None:
    for name in sorted(set(await asyncio.to_thread(shared_memory.names, core.config)) - _started(core)):
        act = partial(shared_memory.remove, core.config, name)
        findings.add("mounts", f"shm/{name}", "it is mounted for no container that runs", "unmount it", act)
    groups = await asyncio.to_thread(_cgroups, core)
    for id in sorted(groups - _started(core) - core.transient):
        group = core.parts.cgroup(f"{core.config.cgroup_parent}/{id}")
        drop = partial(_drop_cgroup, group)
        await findings.add_async("cgroups", id, "it belongs to no container that runs", "remove it", drop)


def _cgroups(core: Core) -> set[str]:
    return {name for name in children(core.config.cgroup_parent) if _ID.fullmatch(name)}


async def _drop_cgroup(group: Any) -> None:
    def drop() -> None:
        group.kill()
        group.delete()

    await asyncio.to_thread(drop)
