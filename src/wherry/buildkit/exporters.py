"""What becomes of a build: an image here, archives and files at the client, images in registries."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from wherry.buildkit.frontend import Built
from wherry.buildkit.jobs import Job
from wherry.buildkit.messages import buildkit_pb2 as pb
from wherry.buildkit.sessions import Sessions
from wherry.errors import InvalidArgument, Unimplemented
from wherry.spec.reference import Reference, parse_reference

if TYPE_CHECKING:
    from wherry.engine import Engine


async def export(
    engine: "Engine", sessions: Sessions, job: Job, request: pb.SolveRequest, result: Sequence[Built]
) -> Mapping[str, str]:
    """Carry out every exporter of the request; what the client is told of them."""
    response: dict[str, str] = {}
    if not result:
        return response
    for exporter in request.exporters:
        if exporter.type not in ("moby", "image"):
            raise Unimplemented(f"exporter {exporter.type!r} is not supported yet", object=exporter.type)
        response |= await _image(result[0], dict(exporter.attrs))
    return response


async def _image(built: Built, attrs: Mapping[str, str]) -> Mapping[str, str]:
    names = [_name(text) for text in attrs.get("name", "").split(",") if text]
    with built.report.vertex("exporting to image") as vertex:
        vertex.status("exporting layers")
        done = await built.run.image(names)
        vertex.status("exporting layers", done=True)
        vertex.status(f"writing image {done.image.id}", done=True)
        for name in names:
            vertex.status(f"naming to {name}", done=True)
    response = {"containerimage.config.digest": str(done.image.id), "containerimage.digest": str(done.image.id)}
    if names:
        response["image.name"] = ",".join(f"{name}" for name in names)
    return response


def _name(text: str) -> Reference:
    parsed = parse_reference(text)
    if parsed.digest:
        raise InvalidArgument("invalid tag: a digest cannot be given to what is built", object=text)
    return parsed.tagged()
