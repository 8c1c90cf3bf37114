"""Online collection: what no manifest refers to goes, while clients push and pull.

First each repository lets go of blobs that none of its manifests refers to, then blobs no repository has are deleted,
then uploads nobody came back for. Nothing that was written, touched or asked for within `grace` seconds goes, so a push
may take that long between its first blob and its manifest. `store` says why this needs no lock. Any process may run
it; several at once do no harm.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from wherry.registry.backend import Busy, Missing
from wherry.registry.errors import Refused
from wherry.registry.manifest import parse_manifest
from wherry.registry.store import Repositories, blob_key, blob_link
from wherry.spec.digest import Digest


@dataclass(frozen=True, slots=True)
class Collected:
    """How many went: links of repositories, blobs and their bytes, uploads."""

    links: int
    blobs: int
    size: int
    uploads: int


async def collect(
    repositories: Repositories, grace: float, *, untagged: bool = False, now: Callable[[], float] = time.time
) -> Collected:
    """One round. `untagged`: manifests go too that have no tag, belong to no index and refer to no subject."""
    backend = repositories.backend
    links = 0
    needed: set[Digest] = set()
    async for name in repositories.names():
        if untagged:
            await _drop_untagged(repositories, name, now() - grace)
        manifests = await repositories.linked(name, "manifests")
        referred = {blob for digest in manifests for blob in await _blobs(repositories, name, digest)}
        needed.update(manifests)
        for digest in await repositories.linked(name, "blobs"):
            if digest not in referred and await _is_old(repositories, blob_link(name, digest), now() - grace):
                await backend.delete(blob_link(name, digest))
                links += 1
            else:
                needed.add(digest)
    blobs, size = await _drop_blobs(repositories, needed, now() - grace)
    return Collected(links, blobs, size, await _drop_uploads(repositories, now() - grace))


async def _blobs(repositories: Repositories, name: str, digest: Digest) -> tuple[Digest, ...]:
    try:
        _, media_type, data = await repositories.manifest(name, digest)
        return parse_manifest(data, media_type).blobs
    except Refused:
        return ()


async def _is_old(repositories: Repositories, key: str, limit: float) -> bool:
    """Asked last before a deletion."""
    found = await repositories.backend.stat(key)
    return found is not None and found.time < limit


async def _drop_blobs(repositories: Repositories, needed: set[Digest], limit: float) -> tuple[int, int]:
    blobs = size = 0
    for algorithm in ("sha256", "sha512"):
        for prefix in await repositories.backend.names(f"blobs/{algorithm}"):
            for encoded in await repositories.backend.names(f"blobs/{algorithm}/{prefix}"):
                key = blob_key(Digest(f"{algorithm}:{encoded}"))
                found = await repositories.backend.stat(key)
                if f"{algorithm}:{encoded}" in needed or found is None or found.time >= limit:
                    continue
                await repositories.backend.delete(key)
                blobs, size = blobs + 1, size + found.size
    return blobs, size


async def _drop_uploads(repositories: Repositories, limit: float) -> int:
    dropped = 0
    for id, written in await repositories.backend.uploads():
        if written < limit:
            try:
                await (await repositories.backend.resume(id)).discard()
            except (Missing, Busy):
                continue
            dropped += 1
    return dropped


async def _drop_untagged(repositories: Repositories, name: str, limit: float) -> None:
    tagged: set[Digest] = set()
    for tag in await repositories.backend.names(f"repositories/{name}/_tags"):
        try:
            tagged.add(await repositories.resolve(name, tag))
        except Refused:
            continue
    parsed = {}
    for digest in await repositories.linked(name, "manifests"):
        try:
            _, media_type, data = await repositories.manifest(name, digest)
            parsed[digest] = parse_manifest(data, media_type)
        except Refused:
            continue
    kept: set[Digest] = set()
    waiting = list(tagged)
    while waiting:
        digest = waiting.pop()
        if digest not in kept:
            kept.add(digest)
            waiting += parsed[digest].manifests if digest in parsed else ()
            # What refers to a kept manifest is kept with it: signatures, attestations.
            waiting += [other.digest for other in parsed.values() if other.subject == digest]
    for digest in parsed.keys() - kept:
        found = await repositories.backend.stat(f"repositories/{name}/_manifests/{digest.replace(':', '/')}")
        if found is not None and found.time < limit:
            await repositories.delete_manifest(name, digest)
