"""GET, HEAD, PUT and DELETE of manifests, and lists of referrers."""

import json

from aiohttp import web

from wherry.registry.errors import Refused
from wherry.registry.manifest import parse_manifest
from wherry.registry.service import Call
from wherry.registry.store import check_digest, content_digest, is_tag
from wherry.spec.oci_image import DOCUMENT_MAX, OCI_INDEX

_TAGS_MAX = 100


async def get(call: Call) -> web.StreamResponse:
    """GET and HEAD, by tag or digest."""
    service = call.service
    if service.proxy is not None:
        await service.proxy.refresh(call.name, call.reference)
    digest, media_type, data = await service.repositories.manifest(call.name, call.reference)
    headers = {"Content-Type": media_type, "Docker-Content-Digest": digest, "ETag": f'"{digest}"'}
    if f'"{digest}"' in call.request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    if call.request.method == "HEAD":
        return web.Response(headers={**headers, "Content-Length": str(len(data))})
    call.tell("pull", media_type, digest, len(data), call.reference if is_tag(call.reference) else "")
    return web.Response(body=data, headers=headers)


async def put(call: Call) -> web.StreamResponse:
    """PUT: by tag, or by digest and then perhaps with tags in the query."""
    data = await _body(call)
    tags = call.request.query.getall("tag", [])
    if is_tag(call.reference):
        digest, tags = content_digest(data, ""), [call.reference]
    else:
        digest = check_digest(call.reference)
        if content_digest(data, digest) != digest:
            raise Refused("DIGEST_INVALID", "provided digest did not match uploaded content", detail={"digest": digest})
    if len(tags) > _TAGS_MAX:
        raise Refused("MANIFEST_INVALID", f"more than {_TAGS_MAX} tags in one request", status=414)
    for tag in tags:
        if not is_tag(tag):
            raise Refused("MANIFEST_INVALID", f"{tag[:200]!r} is not a tag")
    media_type = call.request.headers.get("Content-Type", "").partition(";")[0].strip()
    manifest = parse_manifest(data, "" if media_type in ("application/json", "") else media_type, digest)
    await call.service.repositories.put_manifest(call.name, manifest, tags)
    call.tell("push", manifest.media_type, digest, len(data), tags[0] if tags else "")
    response = web.Response(status=201)
    response.headers["Location"] = call.url("manifests", digest)
    response.headers["Docker-Content-Digest"] = digest
    if manifest.subject:
        response.headers["OCI-Subject"] = manifest.subject
    if not is_tag(call.reference):
        for tag in tags:
            response.headers.add("OCI-Tag", tag)
    return response


async def _body(call: Call) -> bytes:
    parts, size = [], 0
    async for part in call.request.content.iter_any():
        size += len(part)
        if size > DOCUMENT_MAX:
            raise Refused("MANIFEST_INVALID", f"the manifest is larger than {DOCUMENT_MAX >> 20} MiB", status=413)
        parts.append(part)
    return b"".join(parts)


async def delete(call: Call) -> web.StreamResponse:
    """DELETE: a tag, or by digest the manifest with its tags."""
    repositories = call.service.repositories
    if is_tag(call.reference):
        digest = await repositories.resolve(call.name, call.reference)
        await repositories.delete_tag(call.name, call.reference)
    else:
        digest = check_digest(call.reference)
        await repositories.delete_manifest(call.name, digest)
    call.tell("delete", "application/vnd.oci.image.manifest.v1+json", digest, 0)
    return web.Response(status=202)


async def referrers(call: Call) -> web.StreamResponse:
    """GET of what names a digest as its subject, perhaps of one artifact type."""
    found = await call.service.repositories.referrers(call.name, check_digest(call.reference))
    headers = {}
    wanted = call.request.query.get("artifactType")
    if wanted is not None:
        found = [descriptor for descriptor in found if descriptor.get("artifactType") == wanted]
        headers["OCI-Filters-Applied"] = "artifactType"
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}
    # As bytes: of a text aiohttp would name the character set, which is no part of this type.
    return web.Response(body=json.dumps(document).encode(), headers={**headers, "Content-Type": OCI_INDEX})
