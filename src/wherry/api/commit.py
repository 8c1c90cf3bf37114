"""Images from containers."""

from wherry.api.call import Call
from wherry.api.reply import Answer, reply_json
from wherry.api.router import Route
from wherry.engine.commit import CommitRequest
from wherry.errors import InvalidArgument
from wherry.spec.decode import decode
from wherry.spec.docker import ContainerConfig


async def commit(call: Call) -> Answer:
    """POST /commit. Beyond docker's: `timestamp`, seconds since 1970, instead of the times of now and of the files."""
    query = call.query
    container = query.get("container")
    if not container:
        raise InvalidArgument('invalid name or ID supplied: ""', object="container")
    body = await call.json(optional=True)
    repository, tag = query.get("repo"), query.get("tag")
    timestamp = query.integer("timestamp")
    if timestamp is not None and timestamp < 0:
        raise InvalidArgument("the timestamp must not be before 1970", object="timestamp")
    wanted = CommitRequest(
        # As docker has it: a tag for no repository is of no consequence.
        reference=(f"{repository}:{tag}" if tag else repository) if repository else None,
        config=None if body is None else decode(ContainerConfig, body),
        changes=query.all("changes"),
        author=query.get("author"),
        comment=query.get("comment"),
        pause=query.flag("pause", True),
        timestamp=timestamp,
    )
    return reply_json({"Id": await call.engine.containers.commit(container, wanted)}, 201)


ROUTES = [Route("POST", "/commit", commit)]
