"""dockerfile.v0: from the options of a build to its steps, made. Asked for by Control.Solve and by the bridge."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wherry.build.checks import Finding, check
from wherry.build.dockerfile import Dockerfile, Source, parse
from wherry.build.graph import Plan
from wherry.build.ignore import Ignore
from wherry.build.request import BuildRequest
from wherry.build.solver import Sources
from wherry.buildkit.base_images import SessionImages
from wherry.buildkit.contexts import IGNORE_FILE, SessionContexts, read_files
from wherry.buildkit.failures import build_failed
from wherry.buildkit.jobs import Job
from wherry.buildkit.options import Options
from wherry.buildkit.report import Report
from wherry.buildkit.sessions import Session, Sessions
from wherry.buildkit.synced import SyncedDirectories
from wherry.engine.builds import BuildRun
from wherry.errors import InvalidArgument, Unimplemented, WherryError

if TYPE_CHECKING:
    from wherry.engine import Engine


class Built:
    """One platform's result, held until its job ends."""

    def __init__(self, run: BuildRun, report: Report, source: Source) -> None:
        self.run, self.report, self.source = run, report, source

    def close(self) -> None:
        self.run.close()


class Frontend:
    """Builds for one daemon."""

    def __init__(self, engine: "Engine", sessions: Sessions, directories: SyncedDirectories, scratch: Path) -> None:
        self._engine, self._sessions, self._directories, self._scratch = engine, sessions, directories, scratch

    async def solve(self, job: Job, values: Mapping[str, str], entitlements: frozenset[str]) -> Built:
        """Build what the options ask for. BuildFailed carries what a client shows."""
        report = Report(job.send, f"{job.ref} {len(job.outcomes)}")
        sources: list[Source] = []
        try:
            return await self._solve(job, Options(values), entitlements, report, sources)
        except (WherryError, OSError) as error:
            raise build_failed(error, sources[-1] if sources else None, _vertex(error, report)) from error

    async def _solve(
        self, job: Job, options: Options, entitlements: frozenset[str], report: Report, sources: list[Source]
    ) -> Built:
        if options.remote:
            raise Unimplemented("remote contexts are not supported yet", object=options.remote)
        session = await self._sessions.get(job.session)
        source, ignore_text = await self._read_dockerfile(session, options, report)
        sources.append(source)
        dockerfile = await asyncio.to_thread(parse, source)
        platforms = options.platforms
        if len(platforms) > 1:
            raise Unimplemented("builds for several platforms are not supported yet", object="platform")
        request = options.request(source, platforms[0] if platforms else None, entitlements)
        contexts = self._contexts(session, request, options, report)
        try:
            if ignore_text is None:
                ignore_text = await self._read_ignore(session, options.context_name, report)
            contexts.use("", ignore_text)
            for name, context in request.contexts.items():
                if context.kind == "local":
                    contexts.use(name, await self._read_ignore(session, context.value, report, name))
            self._check(dockerfile, contexts.ignores.get(""), report)
            given = Sources(
                context=contexts,
                ignore=contexts.ignores.get(""),
                ignores=contexts.ignores,
                secrets=session,
            )

            def planned(plan: Plan) -> None:
                report.planned(plan)
                contexts.planned(plan)

            run = await self._engine.builds.solve(
                request,
                given,
                report.event,
                base_images=SessionImages(self._engine, session, report),
                dockerfile=dockerfile,
                on_plan=planned,
            )
        finally:
            await contexts.close()
        return Built(run, report, source)

    async def _read_dockerfile(self, session: Session, options: Options, report: Report) -> tuple[Source, str | None]:
        """The Dockerfile, and the ignore file that belongs to it alone."""
        name = options.filename
        own_ignore = f"{name}{IGNORE_FILE}"
        names = [name, own_ignore, *(["dockerfile"] if name == "Dockerfile" else [])]
        found = await read_files(
            session,
            options.dockerfile_name,
            names,
            report,
            f"[internal] load build definition from {name}",
            "dockerfile",
            self._scratch,
        )
        for candidate in names:
            if candidate != own_ignore and candidate in found:
                ignore = found.get(own_ignore)
                text = found[candidate].decode("utf-8", "replace")
                return Source(candidate, text), None if ignore is None else ignore.decode("utf-8", "replace")
        raise InvalidArgument(f"failed to read dockerfile: open {name}: no such file or directory", object=name)

    async def _read_ignore(self, session: Session, local: str, report: Report, name: str = "") -> str:
        title = f"[context {name}] load {IGNORE_FILE}" if name else f"[internal] load {IGNORE_FILE}"
        found = await read_files(session, local, [IGNORE_FILE], report, title, "context", self._scratch)
        return found.get(IGNORE_FILE, b"").decode("utf-8", "replace")

    def _contexts(self, session: Session, request: BuildRequest, options: Options, report: Report) -> SessionContexts:
        locals = {"": options.context_name}
        locals.update({name: one.value for name, one in request.contexts.items() if one.kind == "local"})
        return SessionContexts(session, self._directories, report, self._scratch, locals, {})

    def _check(self, dockerfile: Dockerfile, ignore: Ignore | None, report: Report) -> None:
        findings = check(dockerfile, ignore=ignore)
        vertex = report.definition
        for finding in findings:
            if vertex is not None:
                _warn(vertex, dockerfile.source, finding)
        report.warnings += len(findings)
        if findings and dockerfile.directives.check.error:
            rules = ", ".join(sorted({one.rule for one in findings}))
            raise InvalidArgument(f"lint violation found for rules: {rules}")


def _warn(vertex: Any, source: Source, finding: Finding) -> None:
    short = f"{finding.rule}: {finding.message} (line {finding.span.start})"
    vertex.warn(short, finding.description, finding.url, source, finding.span)


def _vertex(error: BaseException, report: Report) -> str:
    node = getattr(error, "node", None)
    step = report.step_named(node.title) if node is not None else None
    return step.digest if step is not None else ""
