"""Changing an existing container beyond docker's update. Ours; docker's own update is in `containers`."""

from wherry.api.call import Call
from wherry.api.reply import Answer, reply_json
from wherry.api.router import Route
from wherry.spec.alteration import parse_alteration


async def alter(call: Call) -> Answer:
    """POST /containers/{id}/alter: {"Id", "Restarted": whether it was stopped and started for it, "Warnings"}."""
    done = await call.engine.containers.alter(call.name, parse_alteration(await call.json()))
    return reply_json({"Id": done.id, "Restarted": done.restarted, "Warnings": done.warnings or None})


ROUTES = [Route("POST", "/containers/{id}/alter", alter)]
