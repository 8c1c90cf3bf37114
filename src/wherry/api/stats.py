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


async def all_stats(call: Call) -> Answer:
    """GET /wherry/containers/stats: of all that run (`all`: of all), or of each `name`, in one list; `stream`: lists.

    Each is of docker's form, less what is in no table.
    """
    query = call.query
    samples = call.engine.containers.stats_of_all(query.all("name"), all=query.flag("all"), stream=query.flag("stream"))
    if not query.flag("stream"):
        with cancelled_when_gone(call.request):
            return reply_json(await anext(samples))
    first = await anext(samples)
    answer = Stream(call.request).open(JSON)
    with cancelled_when_gone(call.request):
        await answer.write(dump_json(first))
        async for documents in samples:
            await answer.write(dump_json(documents))
    return await answer.end()


ROUTES = (
    Route("GET", "/wherry/containers/stats", all_stats),
    Route("GET", "/containers/{id}/stats", stats),
)
