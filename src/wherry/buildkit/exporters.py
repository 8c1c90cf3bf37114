"""What becomes of a build: an image here, archives and files at the client, images in registries."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from wherry.archive import PackOptions, pack
from wherry.buildkit.base_images import registry_auth
from wherry.buildkit.filesend import send_stream, send_tree
from wherry.buildkit.frontend import Built
from wherry.buildkit.jobs import Job
from wherry.buildkit.messages import buildkit_pb2 as pb
from wherry.buildkit.report import Vertex
from wherry.buildkit.sessions import Session, Sessions
from wherry.engine.builds import BuildResult
from wherry.errors import InvalidArgument, Unimplemented
from wherry.images.image import Image
from wherry.spec.reference import Reference, parse_reference

if TYPE_CHECKING:
    from wherry.engine import Engine

Response = dict[str, str]
_TRUE, _FALSE = ("true", "1", ""), ("false", "0")
# Attributes that say what is done anyway.
_AS_IT_IS: Mapping[str, Sequence[str]] = {
    "oci-mediatypes": _TRUE,
    "compression": ("uncompressed",),
    "unpack": (*_TRUE, *_FALSE),
    "store": _TRUE,
    "tar": _TRUE,
    "platform-split": _FALSE,
    "force-compression": _FALSE,
    "rewrite-timestamp": _FALSE,
    "push-by-digest": _FALSE,
    "registry.insecure": _FALSE,
    "name-canonical": _FALSE,
    "danglename": (),
}


class Exports:
    """The exporters of one build, one after the other, as the client numbered them."""

    def __init__(self, engine: "Engine", sessions: Sessions, job: Job, built: Built) -> None:
        self._engine, self._sessions, self._job, self._built = engine, sessions, job, built
        self._kinds: Mapping[str, Callable[[int, Mapping[str, str]], Awaitable[Response]]] = {
            "moby": self._image,
            "image": self._image,
            "oci": self._archive,
            "docker": self._archive,
            "tar": self._tar,
            "local": self._local,
        }

    async def run(self, exporters: Sequence[pb.Exporter]) -> Response:
        """What the client is told."""
        response: Response = {}
        for number, exporter in enumerate(exporters):
            kind = self._kinds.get(exporter.type)
            if kind is None:
                raise Unimplemented(f"exporter {exporter.type!r} is not supported", object=exporter.type)
            response |= await kind(number, dict(exporter.attrs))
        return response

    async def _session(self) -> Session:
        return await self._sessions.get(self._job.session)

    # -- images

    async def _image(self, number: int, attrs: Mapping[str, str]) -> Response:
        names = _names(attrs)
        push = _flag(attrs, "push")
        _check(attrs, "name", "push")
        if push and not names:
            raise InvalidArgument("tag is needed when pushing to registry")
        with self._built.report.vertex("exporting to image") as vertex:
            result = await self._record(vertex, names)
            for name in names:
                vertex.status(f"naming to {name}", done=True)
            pushed = [await self._push(vertex, name) for name in names] if push else []
        digest = pushed[0] if pushed and pushed[0] else str(result.image.id)
        return _described(result.image, names) | {"containerimage.digest": digest}

    async def _record(self, vertex: Vertex, names: Sequence[Reference]) -> BuildResult:
        vertex.status("exporting layers")
        result = await self._built.run.image(names)
        vertex.status("exporting layers", done=True)
        vertex.status(f"writing image {result.image.id}", done=True)
        return result

    async def _push(self, vertex: Vertex, name: Reference) -> str:
        """The digest the registry has it by."""
        auth = await registry_auth(await self._session(), name)
        loop = asyncio.get_running_loop()
        vertex.status(f"pushing {name}")

        def progress(message: dict[str, Any]) -> None:
            detail = message.get("progressDetail") or {}
            if message.get("id") and detail.get("total"):
                text = f"pushing layer {message['id']}"
                # Called from any thread.
                loop.call_soon_threadsafe(vertex.status, text, detail.get("current") or 0, detail["total"])

        images = await self._engine.images.push(str(name), auth, progress)
        vertex.status(f"pushing {name}", done=True)
        found = [text.partition("@")[2] for image in images for text in image.digests if text.startswith(name.name)]
        return found[-1] if found else ""

    # -- to the client

    async def _archive(self, number: int, attrs: Mapping[str, str]) -> Response:
        names = _names(attrs)
        _check(attrs, "name")
        session = await self._session()
        with self._built.report.vertex("exporting to oci image format") as vertex:
            result = await self._record(vertex, [])
            image = result.image
            try:
                await self._send(vertex, session, number, lambda out: self._engine.images.save_as(image, names, out))
            finally:
                if result.new:
                    # It was recorded only to be written.
                    await self._forget(image)
        return _described(image, names)

    async def _forget(self, image: Image) -> None:
        images = self._engine.images
        current = images.resolve(image.id)
        if not current.references:
            await asyncio.to_thread(images.remove, image.id, force=False, in_use=lambda digest: [])

    async def _tar(self, number: int, attrs: Mapping[str, str]) -> Response:
        _check(attrs)
        session = await self._session()
        with self._built.report.vertex("exporting to client tarball") as vertex:
            root = await self._open()
            try:
                options = PackOptions(name="", nanoseconds=True)
                await self._send(vertex, session, number, lambda out: pack(root, "/", out, options))
            finally:
                os.close(root)
        return {}

    async def _send(self, vertex: Vertex, session: Session, number: int, write: Callable[[BinaryIO], None]) -> None:
        count = 0

        def on_bytes(sent: int) -> None:
            nonlocal count
            count = sent
            vertex.status("sending tarball", sent, name="transferring")

        await send_stream(session, number, write, on_bytes)
        vertex.status("sending tarball", count, name="transferring", done=True)

    async def _local(self, number: int, attrs: Mapping[str, str]) -> Response:
        _check(attrs)
        session = await self._session()
        with self._built.report.vertex("exporting to client directory") as vertex:
            root = await self._open()
            count = 0

            def on_bytes(sent: int) -> None:
                nonlocal count
                count = sent
                vertex.status("copying files", sent, name="transferring")

            try:
                await send_tree(session, number, root, on_bytes)
            finally:
                os.close(root)
            vertex.status("copying files", count, name="transferring", done=True)
        return {}

    async def _open(self) -> int:
        snapshots = self._engine.builds.solver.snapshots
        return await asyncio.to_thread(snapshots.open_tree, self._built.run.solved.chain)


def _described(image: Image, names: Sequence[Reference]) -> Response:
    response = {"containerimage.config.digest": str(image.id), "containerimage.digest": str(image.id)}
    if names:
        response["image.name"] = ",".join(str(name) for name in names)
    return response


def _names(attrs: Mapping[str, str]) -> list[Reference]:
    found = []
    for text in attrs.get("name", "").split(","):
        if text:
            parsed = parse_reference(text)
            if parsed.digest:
                raise InvalidArgument("invalid tag: a digest cannot be given to what is built", object=text)
            found.append(parsed.tagged())
    return found


def _flag(attrs: Mapping[str, str], name: str) -> bool:
    text = attrs.get(name, "false").lower()
    if text not in (*_TRUE, *_FALSE):
        raise InvalidArgument(f"invalid value {text!r} of {name}: it is true or false", object=name)
    return text in _TRUE


def _check(attrs: Mapping[str, str], *known: str) -> None:
    for name, value in attrs.items():
        if name not in known and value.lower() not in _AS_IT_IS.get(name, ()):
            raise Unimplemented(f"the output option {name}={value} is not supported", object=name)
