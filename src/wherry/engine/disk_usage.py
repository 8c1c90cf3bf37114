"""What is on disk and by whom: docker's `system df`, and the sizes `ps --size` shows."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from wherry.engine.container import Container
from wherry.engine.core import Core
from wherry.engine.ledger import Tree
from wherry.images.image import Image, unix_seconds
from wherry.spec.digest import ChainID
from wherry.volumes import Volume

_VOLUME = "volume/"


async def container_sizes(core: Core, containers: Sequence[Container]) -> dict[str, int]:
    """Bytes of their writable layers, by id."""
    return await core.ledger.sizes([_writable(core, container) for container in containers])


def _writable(core: Core, container: Container) -> Tree:
    state, count = container.state, partial(core.parts.snapshots.usage, container.id)
    return Tree(container.id, (state.started_ns, state.finished_ns), state.running, count)


async def disk_usage(core: Core, containers: list[dict[str, Any]]) -> dict[str, Any]:
    """Docker's document. `containers`: the summaries of all, with their sizes."""
    images, layers, volumes = await asyncio.to_thread(_stored, core)
    sizes = await _volume_sizes(core, volumes)
    users = Counter(container["ImageID"] for container in containers)
    mounted = Counter(
        name for container in containers for name in {mount.get("Name") for mount in container["Mounts"]} if name
    )
    standing = Counter(chain for image in images for chain in set(image.layers))
    shared = {chain: layers[chain] for chain, count in standing.items() if count > 1}
    return {
        "LayersSize": sum(layers.values()),
        "Images": [_image(image, shared, users[image.id]) for image in images],
        "Containers": containers,
        "Volumes": [_volume(volume, mounted[volume.name], sizes[_VOLUME + volume.name]) for volume in volumes],
        "BuildCache": [],
    }


def _stored(core: Core) -> tuple[Sequence[Image], dict[ChainID, int], Sequence[Volume]]:
    images = core.parts.images.list(all=True)
    chains = {chain for image in images for chain in image.layers}
    return images, {chain: core.parts.snapshots.layer_size(chain) for chain in chains}, core.parts.volumes.list()


async def _volume_sizes(core: Core, volumes: Sequence[Volume]) -> dict[str, int]:
    # Anyone on the host may write to a volume's directory: it counts as busy always.
    size = core.parts.volumes.size
    trees = [Tree(_VOLUME + each.name, each.created, True, partial(size, each.name)) for each in volumes]
    core.ledger.keep(_VOLUME, {tree.key for tree in trees})
    return await core.ledger.sizes(trees)


def _image(image: Image, shared: dict[ChainID, int], users: int) -> dict[str, Any]:
    return {
        "Id": image.id,
        "ParentId": image.parent or "",
        "RepoTags": list(image.references),
        "RepoDigests": list(image.digests),
        "Created": unix_seconds(image.created),
        "Size": image.size,
        "SharedSize": sum(shared.get(chain, 0) for chain in image.layers),
        "Labels": dict(image.config.config.labels) or None,
        "Containers": users,
    }


def _volume(volume: Volume, references: int, size: int) -> dict[str, Any]:
    return {
        "CreatedAt": volume.created,
        "Driver": volume.driver,
        "Labels": dict(volume.labels) if volume.labels else None,
        "Mountpoint": str(volume.mountpoint),
        "Name": volume.name,
        "Options": dict(volume.options) if volume.options else None,
        "Scope": "local",
        "UsageData": {"RefCount": references, "Size": size},
    }
