"""Repositories over a backend: what is kept where, and in which order, so that nothing half-made is ever seen.

    blobs/<algorithm>/<2 digits>/<hex>                        bytes: blobs and manifests alike
    repositories/<name>/_blobs/<algorithm>/<hex>              this repository has that blob (empty)
    repositories/<name>/_manifests/<algorithm>/<hex>          this repository has that manifest: its Descriptor as JSON
    repositories/<name>/_tags/<tag>                           the digest
    repositories/<name>/_referrers/<algorithm>/<hex>/<algorithm>:<hex>   the descriptor of what refers to the first

Collection runs beside all this without locks (see `collect`). What keeps the two apart is an order that both follow:
who says that something is there *touches* it first and looks *after* it has written what refers to it; the
collector deletes only what was not touched for its grace period, looking last. Then either the collector sees the
touch, or the writer sees that it is gone, says so, and the client sends it again.
"""

import json
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any

from wherry.errors import InvalidArgument
from wherry.registry.backend import Backend, Entry, Missing
from wherry.registry.errors import Refused
from wherry.registry.manifest import Manifest, parse_manifest
from wherry.spec.digest import Digest, parse_digest, sha256

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_NAME_MAX = 255


def check_name(name: str) -> str:
    """A repository's name; Refused(NAME_INVALID)."""
    if len(name) > _NAME_MAX or not _NAME.fullmatch(name):
        raise Refused("NAME_INVALID", f"invalid repository name {name[:300]!r}", detail={"name": name[:300]})
    return name


def is_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


def check_digest(text: str) -> Digest:
    """Refused(DIGEST_INVALID) unless it is a sha256 or sha512 digest."""
    try:
        return parse_digest(text)
    except InvalidArgument as error:
        raise Refused("DIGEST_INVALID", str(error), detail={"digest": text[:200]}) from None


def blob_key(digest: Digest) -> str:
    algorithm, _, encoded = digest.partition(":")
    return f"blobs/{algorithm}/{encoded[:2]}/{encoded}"


def blob_link(name: str, digest: str) -> str:
    return f"repositories/{name}/_blobs/{digest.replace(':', '/')}"


def manifest_link(name: str, digest: str) -> str:
    return f"repositories/{name}/_manifests/{digest.replace(':', '/')}"


def _tag_key(name: str, tag: str) -> str:
    return f"repositories/{name}/_tags/{tag}"


def _referrer_key(name: str, subject: str, digest: str) -> str:
    return f"repositories/{name}/_referrers/{subject.replace(':', '/')}/{digest}"


class Repositories:
    """Every repository of one registry. Names and digests are checked by the caller."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    # -- blobs ------------------------------------------------------------------------------------------------------

    async def blob(self, name: str, digest: Digest, *, touch: bool = True) -> Entry:
        """A blob of this repository. `touch`: whoever asks may go on to refer to it. Refused(BLOB_UNKNOWN)."""
        linked = await (self.backend.touch(blob_link(name, digest)) if touch else self._has(blob_link(name, digest)))
        found = await self.backend.stat(blob_key(digest)) if linked else None
        if found is None:
            raise Refused("BLOB_UNKNOWN", "blob unknown to registry", detail={"digest": digest})
        return found

    async def link(self, name: str, digest: Digest) -> bool:
        """Let a repository have a blob that is there; False when it is not (any more)."""
        key = blob_key(digest)
        if not await self.backend.touch(key):
            return False
        await self.backend.write(blob_link(name, digest), b"")
        return await self._has(key)

    async def unlink(self, name: str, digest: Digest) -> None:
        """Refused(BLOB_UNKNOWN) when this repository has no such blob."""
        await self.blob(name, digest, touch=False)
        await self.backend.delete(blob_link(name, digest))

    # -- manifests --------------------------------------------------------------------------------------------------

    async def resolve(self, name: str, reference: str) -> Digest:
        """A tag or digest as the digest of a manifest that is there; Refused(MANIFEST_UNKNOWN)."""
        if ":" in reference:
            return check_digest(reference)
        if not is_tag(reference):
            raise Refused("MANIFEST_INVALID", f"{reference[:200]!r} is neither a tag nor a digest")
        try:
            return Digest((await self.backend.read(_tag_key(name, reference))).decode())
        except Missing:
            raise _unknown(reference) from None

    async def manifest(self, name: str, reference: str) -> tuple[Digest, str, bytes]:
        """Digest, media type and bytes; Refused(MANIFEST_UNKNOWN)."""
        digest = await self.resolve(name, reference)
        try:
            record = json.loads(await self.backend.read(manifest_link(name, digest)))
            return digest, str(record["mediaType"]), await self.backend.read(blob_key(digest))
        except Missing:
            raise _unknown(reference) from None

    async def put_manifest(self, name: str, manifest: Manifest, tags: Iterable[str], *, complete: bool = True) -> None:
        """Keep a manifest and point `tags` at it. `complete`: all it refers to must be there.

        Refused(MANIFEST_BLOB_UNKNOWN) names everything that is missing.
        """
        if complete:
            await self._require(name, manifest)
        digest = manifest.digest
        if not await self.backend.touch(blob_key(digest)):
            await self.backend.write(blob_key(digest), manifest.data)
        await self.backend.write(manifest_link(name, digest), _dump(manifest.descriptor()))
        if complete:
            # Again, now that the record is there: see the module.
            try:
                await self._require(name, manifest)
            except Refused:
                await self.backend.delete(manifest_link(name, digest))
                raise
        if manifest.subject:
            await self.backend.write(_referrer_key(name, manifest.subject, digest), _dump(manifest.referrer()))
        for tag in tags:
            await self.backend.write(_tag_key(name, tag), digest.encode())

    async def delete_tag(self, name: str, tag: str) -> None:
        """Refused(MANIFEST_UNKNOWN) when it is absent."""
        await self.resolve(name, tag)
        await self.backend.delete(_tag_key(name, tag))

    async def delete_manifest(self, name: str, digest: Digest) -> None:
        """With the tags that point to it. Refused(MANIFEST_UNKNOWN) when it is absent."""
        _, media_type, data = await self.manifest(name, digest)
        for tag in await self.backend.names(f"repositories/{name}/_tags"):
            try:
                if await self.resolve(name, tag) == digest:
                    await self.backend.delete(_tag_key(name, tag))
            except Refused:
                continue
        subject = parse_manifest(data, media_type).subject
        if subject:
            await self.backend.delete(_referrer_key(name, subject, digest))
        await self.backend.delete(manifest_link(name, digest))

    async def referrers(self, name: str, subject: Digest) -> list[dict[str, Any]]:
        """The descriptors of what names `subject` as its subject, in order of digest."""
        found = []
        prefix = f"repositories/{name}/_referrers/{subject.replace(':', '/')}"
        for digest in await self.backend.names(prefix):
            try:
                found.append(json.loads(await self.backend.read(f"{prefix}/{digest}")))
            except Missing:
                continue
        return found

    # -- lists ------------------------------------------------------------------------------------------------------

    async def tags(self, name: str) -> list[str]:
        """In ASCII order; Refused(NAME_UNKNOWN) when there is no such repository."""
        found = await self.backend.names(f"repositories/{name}/_tags")
        if not found and not await self.exists(name):
            raise Refused("NAME_UNKNOWN", "repository name not known to registry", detail={"name": name})
        return found

    async def exists(self, name: str) -> bool:
        """Whether anything was ever pushed to it and is there still."""
        return any(part.startswith("_") for part in await self.backend.names(f"repositories/{name}"))

    async def names(self) -> AsyncIterator[str]:
        """Every repository, in ASCII order of path components."""
        waiting = [""]
        while waiting:
            name = waiting.pop()
            parts = await self.backend.names(f"repositories/{name}".rstrip("/"))
            if name and any(part.startswith("_") for part in parts):
                yield name
            below = [part for part in parts if not part.startswith("_")]
            waiting.extend(f"{name}/{part}".lstrip("/") for part in reversed(below))

    async def linked(self, name: str, kind: str) -> list[Digest]:
        """The digests a repository has of `kind`: blobs or manifests."""
        found = []
        for algorithm in ("sha256", "sha512"):
            encodings = await self.backend.names(f"repositories/{name}/_{kind}/{algorithm}")
            found += [Digest(f"{algorithm}:{encoded}") for encoded in encodings]
        return found

    async def _require(self, name: str, manifest: Manifest) -> None:
        missing = [digest for digest in manifest.blobs if not await self._renew(name, digest)]
        missing += [digest for digest in manifest.manifests if not await self._renew_manifest(name, digest)]
        if missing:
            message = f"manifest references content unknown to registry: {', '.join(missing[:5])}"
            raise Refused("MANIFEST_BLOB_UNKNOWN", message, detail=[{"digest": digest} for digest in missing])

    async def _renew(self, name: str, digest: Digest) -> bool:
        return await self.backend.touch(blob_link(name, digest)) and await self.backend.touch(blob_key(digest))

    async def _renew_manifest(self, name: str, digest: Digest) -> bool:
        return await self.backend.touch(manifest_link(name, digest)) and await self.backend.touch(blob_key(digest))

    async def _has(self, key: str) -> bool:
        return await self.backend.stat(key) is not None


def content_digest(data: bytes, like: str) -> Digest:
    """The digest of `data` by the algorithm of the digest `like` (sha256 when that is a tag)."""
    if like.startswith("sha512:"):
        import hashlib

        return Digest("sha512:" + hashlib.sha512(data).hexdigest())
    return sha256(data)


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _unknown(reference: str) -> Refused:
    return Refused("MANIFEST_UNKNOWN", "manifest unknown", detail={"reference": reference})
