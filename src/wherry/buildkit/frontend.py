"""dockerfile.v0: from the options of a build to its steps, made. Asked for by Control.Solve and by the bridge."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wherry.build.checks import Finding, check
from wherry.build.dockerfile import Dockerfile, DockerfileError, Source, parse
from wherry.build.execution import Sources
from wherry.build.fetch import FetchedTree
from wherry.build.graph import Plan
from wherry.build.ignore import Ignore, read_ignore_file
from wherry.build.request import BuildRequest, NamedContext, Tree
from wherry.build.trees import resolve_directory
from wherry.buildkit import questions
from wherry.buildkit.base_images import SessionImages
from wherry.buildkit.contexts import IGNORE_FILE, SessionContexts, read_files
from wherry.buildkit.failures import build_failed
from wherry.buildkit.jobs import Job
from wherry.buildkit.links import input_of
from wherry.buildkit.messages import buildkit_pb2 as pb
from wherry.buildkit.options import Options
from wherry.buildkit.remote_contexts import fetch, read_below
from wherry.buildkit.report import Report, Vertex
from wherry.buildkit.sessions import Session, Sessions
from wherry.buildkit.ssh import Agents
from wherry.buildkit.synced import SyncedDirectories
from wherry.buildkit.threads import finished
from wherry.engine.builds import BuildRun
from wherry.errors import InvalidArgument, NotFound, Unimplemented, WherryError

if TYPE_CHECKING:
    from wherry.engine import Engine

FRONTENDS = ("dockerfile.v0", "gateway.v0")
_LINKS_KEPT = 64


class Built:
    """One platform's result, held until its job ends."""

    def __init__(self, run: BuildRun, report: Report) -> None:
        self.run, self.report = run, report

    def close(self) -> None:
        self.run.close()


@dataclass(slots=True)
class _Place:
    """Where a build comes from: its Dockerfile, the ignore rules that belong to it alone, its context if it is here."""

    source: Source
    ignore: str | None = None
    tree: Tree | None = None


class Frontend:
    """Builds for one daemon."""

    def __init__(self, engine: "Engine", sessions: Sessions, directories: SyncedDirectories, scratch: Path) -> None:
        self._engine, self._sessions, self._directories, self._scratch = engine, sessions, directories, scratch
        self._links: OrderedDict[str, BuildRun] = OrderedDict()

    def link(self, id: str, built: Built) -> None:
        """Let later builds stand on a result by its id. Its layers are the build cache's, not held."""
        self._links[id] = built.run
        if len(self._links) > _LINKS_KEPT:
            self._links.popitem(last=False)

    async def solve(
        self, job: Job, values: Mapping[str, str], inputs: Mapping[str, pb.Definition] | None = None
    ) -> Built | questions.Answer:
        """Build what the options ask for, or answer their question. BuildFailed carries what a client shows."""
        report = Report(job.send, f"{job.ref} {job.solved}")
        job.solved += 1
        sources: list[Source] = []
        try:
            async with AsyncExitStack() as stack:
                return await self._solve(job, Options(values), inputs or {}, report, sources, stack)
        except (WherryError, OSError) as error:
            raise build_failed(error, sources[-1] if sources else None, _vertex(error, report)) from error

    async def _solve(
        self,
        job: Job,
        options: Options,
        inputs: Mapping[str, pb.Definition],
        report: Report,
        sources: list[Source],
        stack: AsyncExitStack,
    ) -> Built | questions.Answer:
        if options.request_id:
            questions.check_known(options.request_id)
            if options.request_id == questions.DESCRIBE:
                return questions.describe()
        session = await self._sessions.get(job.session)
        place = await self._locate(session, options, report, stack)
        sources.append(place.source)
        if options.request_id == questions.LINT:
            return await self._lint(session, place, options, report)
        dockerfile = await asyncio.to_thread(parse, place.source)
        if options.request_id == questions.TARGETS:
            return questions.targets(dockerfile)
        if options.request_id == questions.OUTLINE:
            return questions.outline(dockerfile, options.values.get("target", ""), options.build_args)
        platforms = options.platforms
        if len(platforms) > 1:
            raise Unimplemented("builds for several platforms are not supported yet", object="platform")
        request = options.request(place.source, platforms[0] if platforms else None, job.entitlements)
        request = replace(request, contexts=await self._linked(request.contexts, inputs))
        return Built(await self._build(session, place, dockerfile, request, options, report, stack), report)

    async def _build(
        self,
        session: Session,
        place: _Place,
        dockerfile: Dockerfile,
        request: BuildRequest,
        options: Options,
        report: Report,
        stack: AsyncExitStack,
    ) -> BuildRun:
        contexts = self._contexts(session, place, request, options, report)
        stack.push_async_callback(contexts.close)
        contexts.use("", await self._ignore_text(session, place, options, report))
        for name, context in request.contexts.items():
            if context.kind == "local":
                title = f"[context {name}] load {IGNORE_FILE}"
                contexts.use(name, await self._read_ignore(session, context.value, report, title))
        self._check(dockerfile, contexts.ignores.get(""), report)
        agents = Agents(session, self._scratch)
        stack.push_async_callback(agents.close)

        def planned(plan: Plan) -> None:
            report.planned(plan)
            contexts.planned(plan)

        cached = await finished(self._engine.builds.cache_images, options.cache_images)
        for absent in cached[1]:
            # A build goes on without it, as BuildKit's does.
            report.vertex(f"importing cache manifest from {absent}").complete(error="the image is not here")
        given = Sources(
            cache_from=cached[0],
            context=contexts,
            ignore=contexts.ignores.get(""),
            ignores=contexts.ignores,
            secrets=session,
            ssh=agents,
        )
        images = SessionImages(self._engine, session, report)
        run: BuildRun = await self._engine.builds.solve(
            request, given, report.event, base_images=images, dockerfile=dockerfile, on_plan=planned
        )
        return run

    # -- what a build is made of

    async def _locate(self, session: Session, options: Options, report: Report, stack: AsyncExitStack) -> _Place:
        tree: Tree | None = None
        if options.remote:
            fetcher = self._engine.builds.solver.fetcher
            context = await fetch(fetcher, options.remote, session, report, self._scratch)
            stack.push_async_callback(finished, context.release)
            path = context.path
            if options.subdirectory:
                path = await finished(resolve_directory, path, options.subdirectory)
            tree = FetchedTree(path)
            if context.dockerfile is not None:
                return _Place(_source("Dockerfile", context.dockerfile), None, tree)
        names = options.candidates
        own = f"{options.filename}{IGNORE_FILE}"
        if tree is not None and not options.dockerfile_given:
            read = {name: await finished(read_below, tree.path, name) for name in (*names, own)}
            found = {name: data for name, data in read.items() if data is not None}
        else:
            title = f"[internal] load build definition from {options.filename}"
            wanted = [names[0], own, *names[1:]]
            local = options.dockerfile_name
            found = await read_files(session, local, wanted, report, title, "dockerfile", self._scratch)
        for name in names:
            if name in found:
                ignore = found[own].decode("utf-8", "replace") if own in found else None
                return _Place(_source(name, found[name]), ignore, tree)
        message = f"failed to read dockerfile: open {options.filename}: no such file or directory"
        raise InvalidArgument(message, object=options.filename)

    async def _ignore_text(self, session: Session, place: _Place, options: Options, report: Report) -> str:
        if place.ignore is not None:
            return place.ignore
        if place.tree is not None:
            data = await finished(read_below, place.tree.path, IGNORE_FILE)
            return (data or b"").decode("utf-8", "replace")
        return await self._read_ignore(session, options.context_name, report, f"[internal] load {IGNORE_FILE}")

    async def _read_ignore(self, session: Session, local: str, report: Report, title: str) -> str:
        found = await read_files(session, local, [IGNORE_FILE], report, title, "context", self._scratch)
        return found.get(IGNORE_FILE, b"").decode("utf-8", "replace")

    def _contexts(
        self, session: Session, place: _Place, request: BuildRequest, options: Options, report: Report
    ) -> SessionContexts:
        locals = {"": options.context_name}
        locals.update({name: one.value for name, one in request.contexts.items() if one.kind == "local"})
        trees = {"": place.tree} if place.tree is not None else {}
        return SessionContexts(session, self._directories, report, locals, trees)

    async def _linked(
        self, contexts: Mapping[str, NamedContext], inputs: Mapping[str, pb.Definition]
    ) -> dict[str, NamedContext]:
        """Contexts that are results of other builds, as images."""
        found = dict(contexts)
        for name, context in contexts.items():
            if context.kind == "input":
                definition = inputs.get(context.value)
                run = self._links.get(input_of(definition)) if definition is not None else None
                if run is None:
                    raise NotFound(f"the build that context {name!r} comes from is not known here", object=name)
                found[name] = NamedContext("image", str((await run.image([])).image.id))
        return found

    # -- checks

    async def _lint(self, session: Session, place: _Place, options: Options, report: Report) -> questions.Answer:
        try:
            dockerfile = await asyncio.to_thread(parse, place.source)
        except DockerfileError as error:
            return questions.lint(place.source, (), error)
        rules = Ignore(read_ignore_file(await self._ignore_text(session, place, options, report)))
        findings = check(dockerfile, ignore=rules if rules.rules else None)
        return questions.lint(place.source, findings, None)

    def _check(self, dockerfile: Dockerfile, ignore: Ignore | None, report: Report) -> None:
        findings = check(dockerfile, ignore=ignore)
        for finding in findings:
            if report.definition is not None:
                _warn(report.definition, dockerfile.source, finding)
        report.warnings += len(findings)
        if findings and dockerfile.directives.check.error:
            rules = ", ".join(sorted({one.rule for one in findings}))
            raise InvalidArgument(f"lint violation found for rules: {rules}")


def _warn(vertex: Vertex, source: Source, finding: Finding) -> None:
    short = f"{finding.rule}: {finding.message} (line {finding.span.start})"
    vertex.warn(short, finding.description, finding.url, source, finding.span)


def _source(name: str, data: bytes) -> Source:
    return Source(name, data.decode("utf-8", "replace"))


def _vertex(error: BaseException, report: Report) -> str:
    node = getattr(error, "node", None)
    step = report.step_named(node.title) if node is not None else None
    return step.digest if step is not None else ""
