"""Images: what there is, where they come from, how they go."""

import asyncio
import base64
import binascii
import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wherry.api import image_documents
from wherry.api.bodies import send_written, upload
from wherry.api.call import Call, parse_json
from wherry.api.connection import cancelled_when_gone
from wherry.api.downloads import downloaded
from wherry.api.progress import ProgressStream, run_with_progress
from wherry.api.reply import Answer, Reply, reply_json
from wherry.api.router import Route
from wherry.engine.threads import in_own_thread
from wherry.errors import InvalidArgument, NotFound, Unimplemented
from wherry.images import RegistryAuth, Use
from wherry.spec.decode import decode
from wherry.spec.platform import Platform, host_platform, preference
from wherry.spec.reference import parse_reference

if TYPE_CHECKING:
    from wherry.images import Image, Removed

_TAR = "application/x-tar"


async def list_images(call: Call) -> Answer:
    """GET /images/json."""
    filters = call.query.filters()
    if call.query.get("filter"):
        # The form of API 1.24 and before.
        filters.setdefault("reference", []).append(call.query.get("filter"))
    found = call.engine.images.list(all=call.query.flag("all") or "dangling" in filters)
    selected = image_documents.select(found, filters, _moments(call, filters))
    used = await _uses(call) if selected else {}
    documents = []
    for image in selected:
        containers = len(used.get(image.id, ())) if call.version >= (1, 51) else -1
        document = image_documents.summary(image, containers)
        if call.version < (1, 44):
            document["VirtualSize"] = image.size
        documents.append(document)
    return reply_json(documents)


def _moments(call: Call, filters: Mapping[str, list[str]]) -> dict[str, int]:
    moments: dict[str, int] = {}
    for name in ("before", "since"):
        for reference in filters.get(name) or ():
            moments[name] = image_documents.created_seconds(call.engine.images.resolve(reference))
    for text in filters.get("until") or ():
        moments["until"] = parse_until(text)
    return moments


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def parse_until(text: str) -> int:
    """The moment an `until` filter means, in Unix seconds: such a number, or a duration back from now ("1h30m")."""
    if text.replace(".", "", 1).isdigit():
        return int(float(text))
    total, number = 0.0, ""
    for character in text:
        if character.isdigit() or character == ".":
            number += character
        elif character in _UNITS and number and number.count(".") < 2:
            total, number = total + float(number) * _UNITS[character], ""
        else:
            raise InvalidArgument(f"invalid filter 'until={text}'", hint="a Unix time or a duration such as 24h")
    if number or not text:
        raise InvalidArgument(f"invalid filter 'until={text}'", hint="a Unix time or a duration such as 24h")
    return int(time.time() - total)


async def _uses(call: Call) -> dict[str, list[Use]]:
    """Which containers stand on each image, by the image's id."""
    found: dict[str, list[Use]] = {}
    for container in await call.engine.containers.list(all=True):
        running = container["State"] in ("running", "paused", "restarting")
        found.setdefault(container["ImageID"], []).append(Use(container["Id"], running))
    return found


async def inspect(call: Call) -> Answer:
    """GET /images/{name}/json."""
    return reply_json(image_documents.inspect_document(call.engine.images.resolve(call.name), call.version))


async def history(call: Call) -> Answer:
    """GET /images/{name}/history, newest step first."""
    images = call.engine.images
    steps = await asyncio.to_thread(lambda: images.history(images.resolve(call.name)))
    return reply_json(
        [
            {
                "Comment": step.comment,
                "Created": step.created,
                "CreatedBy": step.created_by,
                "Id": step.id,
                "Size": step.size,
                "Tags": list(step.tags) if step.tags else None,
            }
            for step in steps
        ]
    )


async def create(call: Call) -> Answer:
    """POST /images/create: pull (fromImage) or import (fromSrc)."""
    if call.query.get("fromImage"):
        return await _pull(call)
    if call.query.get("fromSrc"):
        return await _import(call)
    raise InvalidArgument("either fromImage or fromSrc must be given", object="fromImage")


async def _pull(call: Call) -> Answer:
    query = call.query
    reference, tag = query.get("fromImage"), query.get("tag")
    if tag:
        # A tag in the name itself gives way, as with docker.
        name = parse_reference(reference).familiar_name
        reference = f"{name}@{tag}" if tag.startswith("sha256:") else f"{name}:{tag}"
    auth = _registry_auth(call)

    async def work(progress: ProgressStream) -> None:
        with cancelled_when_gone(call.request):
            image = await call.engine.images.pull(reference, query.get("platform") or None, auth, progress)
        _emit(call, "pull", image, reference)

    return await run_with_progress(call, work)


async def push(call: Call) -> Answer:
    """POST /images/{name}/push: one tag, or all of a repository."""
    tag = call.query.get("tag")
    if call.query.get("platform"):
        raise Unimplemented("pushing one platform of an image is not supported", hint="images here have one platform")
    reference = f"{call.name}:{tag}" if tag else call.name
    auth = _registry_auth(call)

    async def work(progress: ProgressStream) -> None:
        with cancelled_when_gone(call.request):
            images = await call.engine.images.push(reference, auth, progress)
        for image in images:
            _emit(call, "push", image, reference)

    return await run_with_progress(call, work)


async def distribution(call: Call) -> Answer:
    """GET /distribution/{name}/json: what a registry has under this name."""
    with cancelled_when_gone(call.request):
        return reply_json(await call.engine.images.distribution(call.name, _registry_auth(call)))


async def search(call: Call) -> Answer:
    """GET /images/search."""
    term = call.query.get("term")
    if not term:
        raise InvalidArgument("no term to search for", object="term")
    limit = call.query.get("limit") or "25"
    if not limit.isdecimal():
        raise InvalidArgument(f"limit {limit[:20]!r} is not a number", object="limit")
    with cancelled_when_gone(call.request):
        return reply_json(await call.engine.images.search(term, int(limit), call.query.filters()))


def _registry_auth(call: Call) -> RegistryAuth | None:
    text = call.request.headers.get("X-Registry-Auth")
    if not text:
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, RecursionError, binascii.Error):
        # As docker does: what cannot be read is taken as no credentials.
        return None
    if not isinstance(found, dict) or not any(found.values()):
        return None
    texts = {name: value for name, value in found.items() if isinstance(value, str)}
    return RegistryAuth(
        username=texts.get("username", ""),
        password=texts.get("password", ""),
        identity_token=texts.get("identitytoken", ""),
        registry_token=texts.get("registrytoken", ""),
        server=texts.get("serveraddress", ""),
    )


async def _import(call: Call) -> Answer:
    query = call.query
    source = query.get("fromSrc")
    repository, tag = query.get("repo"), query.get("tag")
    reference = f"{repository}:{tag}" if repository and tag else repository or None
    message = query.get("message") or f"Imported from {source}"
    images = call.engine.images

    async def work(progress: ProgressStream) -> dict[str, Any]:
        async with upload(call) if source == "-" else downloaded(source, progress) as tar:
            image = await in_own_thread(
                images.import_, tar, reference, query.all("changes"), message, query.get("platform") or None
            )
        _emit(call, "import", image, reference)
        return {"status": image.id}

    return await run_with_progress(call, work)


async def load(call: Call) -> Answer:
    """POST /images/load."""
    platform = _wanted_platform(call)
    if platform and preference(platform, host_platform()) != 0:
        raise Unimplemented(
            f"loading images for the platform {platform.normalized()} is not supported",
            hint=f"without a platform those for {host_platform()} are loaded",
        )
    quiet = call.query.flag("quiet", call.version >= (1, 23))

    async def work(progress: ProgressStream) -> None:
        def report(message: dict[str, Any]) -> None:
            if not (quiet and message.get("progressDetail")):
                progress(message)

        async with upload(call) as tar:
            names = await in_own_thread(call.engine.images.load, tar, report)
        for name in names:
            _emit(call, "load", call.engine.images.resolve(name), name)

    return await run_with_progress(call, work)


async def bootstrap(call: Call) -> Answer:
    """POST /wherry/images/bootstrap?reference=…: make a base image from a distribution's own packages."""
    reference = call.query.get("reference")
    if not reference:
        raise InvalidArgument("no image named", object="reference", hint="for example reference=debian:bookworm")

    async def work(progress: ProgressStream) -> dict[str, Any]:
        image = await asyncio.to_thread(call.engine.images.bootstrap, reference, progress)
        _emit(call, "import", image, reference)
        return {"status": image.id, "aux": {"ID": image.id}}

    return await run_with_progress(call, work)


async def tag(call: Call) -> Answer:
    """POST /images/{name}/tag."""
    repository, name = call.query.get("repo"), call.query.get("tag")
    reference = f"{repository}:{name}" if name else repository
    images = call.engine.images
    image = images.resolve(call.name)
    await asyncio.to_thread(images.tag, image, reference)
    _emit(call, "tag", image, reference)
    return Reply(201)


async def remove(call: Call) -> Answer:
    """DELETE /images/{name}."""
    used = await _uses(call)
    removed = await asyncio.to_thread(
        call.engine.images.remove,
        call.name,
        force=call.query.flag("force"),
        in_use=lambda image: used.get(image, []),
        prune_parents=not call.query.flag("noprune"),
    )
    return reply_json(_removed_documents(call, removed))


async def prune(call: Call) -> Answer:
    """POST /images/prune."""
    filters = call.query.filters()
    unknown = filters.keys() - {"dangling", "label", "label!", "until"}
    if unknown:
        raise InvalidArgument(f"invalid filter '{min(unknown)}'")
    used = await _uses(call)
    dangling = (filters.get("dangling") or ["true"])[0].lower()
    if dangling not in ("1", "0", "true", "false", "t", "f"):
        raise InvalidArgument(f"invalid filter 'dangling={filters['dangling']}'")
    removed = await asyncio.to_thread(
        call.engine.images.prune,
        dangling_only=dangling in ("1", "true", "t"),
        in_use=lambda image: used.get(image, []),
        until=parse_until(filters["until"][0]) if filters.get("until") else None,
        labels=filters.get("label") or [],
        without_labels=filters.get("label!") or [],
    )
    documents = _removed_documents(call, removed)
    return reply_json({"ImagesDeleted": documents or None, "SpaceReclaimed": sum(item.size for item in removed)})


def _removed_documents(call: Call, removed: "Sequence[Removed]") -> list[dict[str, str]]:
    documents: list[dict[str, str]] = []
    for item in removed:
        if item.untagged:
            documents.append({"Untagged": item.untagged})
            call.engine.events.emit("image", "untag", item.image, {"name": item.image})
        elif item.deleted:
            documents.append({"Deleted": item.deleted})
            if item.deleted == item.image:
                call.engine.events.emit("image", "delete", item.image, {"name": item.image})
    return documents


def _emit(call: Call, action: str, image: "Image", name: str | None) -> None:
    # A pull is known by the name that was asked for, everything else by the image.
    actor = name if action == "pull" and name else image.id
    call.engine.events.emit("image", action, actor, {**image.config.config.labels, "name": name or image.id})


async def save(call: Call) -> Answer:
    """GET /images/get?names=… and /images/{name}/get: an archive that load reads."""
    names = [call.name] if call.name else call.query.all("names")
    if not names:
        raise InvalidArgument("no images named", object="names")
    platform = _wanted_platform(call)
    for name in names:
        if platform and preference(platform, call.engine.images.resolve(name).platform) is None:
            raise NotFound(f"no suitable export target found for platform {platform.normalized()}", object=name)
    answer = await send_written(call, _TAR, lambda out: call.engine.images.save(names, out))
    for name in names:
        image = call.engine.images.resolve(name)
        _emit(call, "save", image, image.id)
    return answer


def _wanted_platform(call: Call) -> Platform | None:
    """The `platform` parameter as API 1.48 has it."""
    text = call.query.get("platform") if call.version >= (1, 48) else ""
    return decode(Platform, parse_json(text.encode()), "platform") if text else None


ROUTES = [
    Route("GET", "/images/json", list_images),
    Route("GET", "/images/get", save),
    Route("GET", "/images/{name:.*}/get", save),
    Route("GET", "/images/{name:.*}/json", inspect),
    Route("GET", "/images/{name:.*}/history", history),
    Route("POST", "/images/create", create),
    Route("POST", "/images/load", load),
    Route("POST", "/images/prune", prune),
    Route("GET", "/images/search", search),
    Route("POST", "/images/{name:.*}/push", push),
    Route("GET", "/distribution/{name:.*}/json", distribution),
    Route("POST", "/images/{name:.*}/tag", tag),
    Route("DELETE", "/images/{name:.*}", remove),
    Route("POST", "/wherry/images/bootstrap", bootstrap),
]
