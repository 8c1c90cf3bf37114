"""Building by the classic endpoint: POST /build with the context as a tar, progress as JSON lines; the build cache.

Besides docker's query parameters: `allow` (an entitlement, may be repeated), `nocachefilter` (a stage), `call=check`.
With the header `X-Wherry-Progress: events` the answer's lines are {"wherry": event} instead of docker's text, and with
`X-Wherry-Secrets` (base64 of a JSON object of base64 values) RUN steps may mount secrets.
"""

import asyncio
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from wherry.api.bodies import upload
from wherry.api.build_cache import prune
from wherry.api.build_context import read_dockerfile, read_ignore, receive
from wherry.api.build_query import build_request, refuse, registry_config, secrets, strings
from wherry.api.build_text import ClassicText, EventText
from wherry.api.call import Call
from wherry.api.connection import cancelled_when_gone
from wherry.api.progress import ProgressStream, run_with_progress
from wherry.api.reply import Answer, Reply, reply_json
from wherry.api.router import Route
from wherry.build.checks import BaseImage, check
from wherry.build.dockerfile import DockerfileError, Source, parse
from wherry.build.dockerfile.source import excerpt
from wherry.build.execution import Sources
from wherry.build.fetch import FetchedTree
from wherry.build.graph import Plan
from wherry.build.trees import Digests
from wherry.engine.builds import BuildResult
from wherry.engine.threads import in_own_thread
from wherry.errors import Conflict, InvalidArgument, NotFound, WherryError

_DOCKERFILE_MAX = 16 << 20
_SECRET_MAX = 500 << 10


class DirectoryContext:
    """A context that is here already: the build context, and named ones below it."""

    def __init__(self, trees: Mapping[str, FetchedTree]) -> None:
        self._trees = trees

    async def tree(self, name: str, wanted: tuple[str, ...]) -> FetchedTree:
        """NotFound for one that was not sent."""
        if name not in self._trees:
            raise NotFound(f"there is no context {name!r}" if name else "there is no build context", object=name)
        return self._trees[name]

    async def close(self) -> None:
        """Its owner removes it."""


async def build(call: Call) -> Answer:
    """POST /build."""
    refuse(call)

    async def work(progress: ProgressStream) -> dict[str, Any] | None:
        with cancelled_when_gone(call.request):
            return await _build(call, progress)

    return await run_with_progress(call, work)


async def _build(call: Call, progress: ProgressStream) -> dict[str, Any] | None:
    builds = call.engine.builds
    if call.query.get("context"):
        return await _build_kept(call, progress)
    directory = builds.contexts / os.urandom(8).hex()
    identity = call.query.get("buildid")
    task = asyncio.current_task()
    assert task is not None
    if identity:
        if identity in builds.running:
            raise Conflict(f"build ID {identity} exists", object=identity)
        builds.running[identity] = task
    try:
        await asyncio.to_thread(directory.mkdir, 0o700, True)
        tree, source = await receive(call, str(directory))
        return await _run(call, progress, tree, source)
    finally:
        if identity:
            builds.running.pop(identity, None)
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, directory, True))


async def _build_kept(call: Call, progress: ProgressStream) -> dict[str, Any] | None:
    """With `context` and `contextdigest`: on files that were sent before."""
    kept, query = call.engine.builds.kept, call.query
    context = kept.use(query.get("context"), query.get("contextdigest"))
    try:
        name = query.get("dockerfile") or "Dockerfile"
        source = await asyncio.to_thread(read_dockerfile, context.path, name)
        tree = FetchedTree(context.path, context.key)
        return await _run(call, progress, tree, source, context.digests)
    finally:
        kept.done(context)


async def begin_context(call: Call) -> Answer:
    """POST /wherry/buildcontexts/{id}: a manifest; the numbers of the lines whose files are wanted."""
    manifest = await _manifest(call)
    return reply_json({"wanted": await call.engine.builds.kept.begin(call.name, manifest)})


async def _manifest(call: Call) -> bytes:
    async with upload(call) as body:
        return await in_own_thread(body.read)


async def finish_context(call: Call) -> Answer:
    """PUT /wherry/buildcontexts/{id}?digest=...: the wanted files as a tar."""
    async with upload(call) as body:
        await call.engine.builds.kept.finish(call.name, call.query.get("digest"), body, in_own_thread)
    return Reply(204)


async def _run(
    call: Call, progress: ProgressStream, tree: FetchedTree, source: Source, digests: Digests | None = None
) -> dict[str, Any] | None:
    try:
        return await _plan_and_build(call, progress, tree, source, digests)
    except WherryError as error:
        place = _place(error, source)
        if place and call.request.headers.get("X-Wherry-Progress") == "events":
            progress({"wherry": {"kind": "failed", "excerpt": place}})
        raise


def _place(error: WherryError, source: Source) -> str:
    """The lines an error is about, as text."""
    if isinstance(error, DockerfileError):
        return error.excerpt()
    span = getattr(getattr(error, "node", None), "span", None)
    return excerpt(source, span) if span is not None else ""


async def _plan_and_build(
    call: Call, progress: ProgressStream, tree: FetchedTree, source: Source, digests: Digests | None
) -> dict[str, Any] | None:
    builds, query = call.engine.builds, call.query
    ignore = await asyncio.to_thread(read_ignore, tree.path, source.name)
    dockerfile = await asyncio.to_thread(parse, source)
    findings = check(dockerfile, ignore=ignore)
    if query.get("call") == "check":
        bases = _local_bases(call, dockerfile)
        findings = check(dockerfile, ignore=ignore, bases=bases)
        return {"wherry": {"kind": "checked", "findings": [_finding(source, one) for one in findings]}}
    if findings and dockerfile.directives.check.error:
        raise InvalidArgument(f"lint violation found for rules: {', '.join(sorted({one.rule for one in findings}))}")
    events = call.request.headers.get("X-Wherry-Progress") == "events"
    quiet = query.flag("q")
    text = EventText(progress) if events else ClassicText(progress, quiet=quiet)
    text.findings([_finding(source, one) for one in findings])
    request = build_request(call, source)
    cached, absent = builds.cache_images(strings(call, "cachefrom"))

    def planned(plan: Plan) -> None:
        missing = (f"{name} is not here: no cache is taken from it" for name in absent)
        text.planned(replace(plan, warnings=(*plan.warnings, *missing)))

    sources = Sources(
        context=DirectoryContext({"": tree}),
        ignore=ignore,
        secrets=secrets(call),
        digests=digests or Digests(),
        cache_from=cached,
    )
    images = builds.base_images(registry_config(call), progress if not quiet and not events else None)
    result: BuildResult = await builds.build(
        request,
        sources,
        text.event,
        names=query.all("t"),
        base_images=images,
        dockerfile=dockerfile,
        on_plan=planned,
    )
    text.finish(result.image.id, query.all("t"))
    return None


def _finding(source: Source, finding: Any) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "message": finding.message,
        "url": finding.url,
        "line": finding.span.start,
        "excerpt": excerpt(source, finding.span),
    }


def _local_bases(call: Call, dockerfile: Any) -> Any:
    def base(stage: Any) -> BaseImage | None:
        try:
            image = call.engine.images.resolve(stage.base.image)
        except WherryError:
            return None
        env = dict(item.partition("=")[::2] for item in image.config.config.env)
        return BaseImage(env)

    return base


async def cancel(call: Call) -> Answer:
    """POST /build/cancel."""
    task = call.engine.builds.running.get(call.query.get("id"))
    if task is not None:
        task.cancel()
    return Reply(204)


ROUTES = [
    Route("POST", "/build", build),
    Route("POST", "/build/cancel", cancel),
    Route("POST", "/build/prune", prune),
    Route("POST", "/wherry/buildcontexts/{id}", begin_context),
    Route("PUT", "/wherry/buildcontexts/{id}", finish_context),
]
