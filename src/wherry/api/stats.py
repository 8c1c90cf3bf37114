"""What a container uses: one sample, or one a second."""

from wherry.api.call import Call
from wherry.api.connection import cancelled_when_gone
from wherry.api.reply import JSON, Answer, Stream, dump_json, reply_json
from wherry.api.router import Route


async def stats(call: Call) -> Answer:
    """GET /containers/{id}/stats. Without `stream` two samples a second apart, unless `one-shot`."""
    stream = call.query.flag("stream") if "stream" in call.query else True
    samples = call.engine.containers.stats(call.name, one_shot=call.query.flag("one-shot") and not stream)
    if not stream:
        with cancelled_when_gone(call.request):
            return reply_json(await anext(samples))
    first = await anext(samples)
    answer = Stream(call.request).open(JSON)
    with cancelled_when_gone(call.request):
        await answer.write(dump_json(first))
        async for document in samples:
            await answer.write(dump_json(document))
    return await answer.end()


ROUTES = (Route("GET", "/containers/{id}/stats", stats),)
