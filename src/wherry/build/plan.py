"""A Dockerfile and a target become a graph: only what the target needs, base images resolved, variables replaced."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

from wherry.build.dockerfile import instructions as kinds
from wherry.build.dockerfile.interpret import interpret
from wherry.build.dockerfile.mounts import parse_mount
from wherry.build.dockerfile.parse import Dockerfile, Stage
from wherry.build.dockerfile.source import DockerfileError, Source, Span, locate, suggestion
from wherry.build.dockerfile.statements import read_statements
from wherry.build.dockerfile.words import Words
from wherry.build.graph import (
    Context,
    Git,
    ImageTree,
    Node,
    Plan,
    Remote,
    Scratch,
)
from wherry.build.located import Located, located
from wherry.build.remote import git_remote
from wherry.build.request import BuildRequest, ImageSource, NamedContext
from wherry.build.stage_builder import StageBuilder, StageResult
from wherry.build.stage_config import StageConfig
from wherry.build.variables import DEFAULT_PATH, PROXIES, Scope, platform_arguments
from wherry.errors import WherryError
from wherry.images.image import Image
from wherry.spec.oci_image import ImageConfig
from wherry.spec.platform import Platform, host_platform, parse_platform


class Planner:
    """Plans one build. `images` gives base images; nothing else is looked up."""

    def __init__(self, request: BuildRequest, dockerfile: Dockerfile, images: ImageSource) -> None:
        self._request, self._dockerfile, self._images = request, dockerfile, images
        self.request, self.source = request, dockerfile.source
        self._source = dockerfile.source
        self._platform = request.platform or host_platform()
        self._platform_arguments = platform_arguments(self._platform, host_platform())
        self._globals: dict[str, str] = {}
        self._resolved: dict[tuple[str, str], asyncio.Future[Image]] = {}
        self._done: dict[int, StageResult] = {}
        self._contexts: dict[str, Node] = {}
        self._used: set[str] = set()
        self.outline: list[tuple[str, Node | None]] = []

    async def plan(self) -> Plan:
        """DockerfileError for what cannot be built, with its place."""
        self._read_globals()
        target = self._target()
        order = self._needed(target)
        await self._fetch(order)
        for stage in order:
            await self._stage(stage)
        final = self._done[target.index]
        config = final.config
        config.labels.update(self._request.labels)
        base = final.image.config if final.image else None
        image = ImageConfig(
            architecture=final.platform.architecture,
            os=final.platform.os,
            variant=final.platform.variant,
            os_version=base.os_version if base else "",
            author=config.author,
            config=config.finished(),
            history=base.history if base else (),
        )
        unused = sorted(set(self._request.build_args) - self._used - PROXIES - set(self._platform_arguments) - _OWN)
        warnings = (f"[Warning] One or more build-args {unused} were not consumed".replace("'", ""),) if unused else ()
        return Plan(final.node, image, tuple(final.steps), warnings, tuple(self.outline))

    # -- what is needed ---------------------------------------------------------------------------------------------

    def _read_globals(self) -> None:
        for argument in self._dockerfile.arguments:
            for name, default in argument.values:
                known = {**self._platform_arguments, **self._globals}
                if name in self._request.build_args:
                    self._globals[name] = self._request.build_args[name]
                    self._used.add(name)
                elif default is not None:
                    self._globals[name] = self._expanded(default, known, argument.span)

    def _target(self) -> Stage:
        name = self._request.target
        if not name:
            return self._dockerfile.stages[-1]
        stage = self._dockerfile.stage(name)
        if stage is None:
            known = [other.base.stage for other in self._dockerfile.stages if other.base.stage]
            message = f'target stage "{name}" could not be found{suggestion(name, known)}'
            raise DockerfileError(message, self._source, self._dockerfile.stages[-1].base.span)
        return stage

    def _needed(self, target: Stage) -> list[Stage]:
        """The stages the target stands on or takes from, each after those it needs."""
        order: list[Stage] = []
        open_stages: list[int] = []
        # A stack of our own: a chain of stages may be longer than Python's.
        waiting: list[tuple[Stage, bool]] = [(target, False)]
        while waiting:
            stage, finished = waiting.pop()
            if finished:
                open_stages.remove(stage.index)
                order.append(stage)
                continue
            if stage in order:
                continue
            if stage.index in open_stages:
                shown = stage.base.stage or str(stage.index)
                raise DockerfileError(f"circular dependency detected on stage: {shown}", self._source, stage.base.span)
            open_stages.append(stage.index)
            waiting.append((stage, True))
            waiting.extend((other, False) for other in reversed(self._dependencies(stage)) if other not in order)
        return order

    def _dependencies(self, stage: Stage) -> list[Stage]:
        found = []
        base = self._base_stage(stage)
        if base is not None:
            found.append(base)
        for step in stage.instructions:
            for origin in _origins(step):
                other = None if origin.lower() in self._request.contexts else self._dockerfile.stage(origin)
                if other is not None:
                    found.append(other)
        return found

    def _base_name(self, stage: Stage) -> str:
        known = {**self._platform_arguments, **self._globals}
        name = self._expanded(stage.base.image, known, stage.base.span)
        if not name:
            message = f"base name ({stage.base.image}) should not be blank"
            raise DockerfileError(message, self._source, locate(self._source, stage.base.span, stage.base.image))
        return name

    def _base_stage(self, stage: Stage) -> Stage | None:
        name = self._base_name(stage).lower()
        if name in self._request.contexts:
            return None
        for other in reversed(self._dockerfile.stages[: stage.index]):
            if other.name and other.name == name:
                return other
        return None

    async def _fetch(self, order: list[Stage]) -> None:
        """Every base image at once, so that what is to be pulled is pulled side by side."""
        wanted = []
        for stage in order:
            name = self._base_name(stage)
            if self._base_stage(stage) is None and name != "scratch" and name.lower() not in self._request.contexts:
                wanted.append((name, self._stage_platform(stage), stage.base.span))
        results = await asyncio.gather(*(self._image(*found) for found in wanted), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _stage_platform(self, stage: Stage) -> Platform:
        if not stage.base.platform:
            return self._platform
        known = {**self._platform_arguments, **self._globals}
        text = self._expanded(stage.base.platform, known, stage.base.span)
        if not text:
            raise DockerfileError("empty platform value from --platform", self._source, stage.base.span)
        try:
            return parse_platform(text)
        except WherryError as error:
            message = f"failed to parse platform {text}: {error.message}"
            raise DockerfileError(message, self._source, locate(self._source, stage.base.span, text)) from None

    async def _image(self, name: str, platform: Platform, span: Span) -> Image:
        key = (name, str(platform))
        found = self._resolved.get(key)
        if found is None:
            made = self._images.image(name, platform, pull=self._request.pull)
            found = self._resolved[key] = asyncio.ensure_future(made)
        try:
            return await asyncio.shield(found)
        except WherryError as error:
            raise Located(error, self._source, locate(self._source, span, name)) from None

    # -- one stage --------------------------------------------------------------------------------------------------

    async def _stage(self, stage: Stage) -> None:
        result = await self._begin(stage)
        self.outline.append((stage.base.original, result.node))
        self._done[stage.index] = result
        scope = Scope(self._dockerfile.directives.escape, result.variables, self._request.build_args, self._outer())
        scope.arguments.update(result.arguments)
        triggers = self._triggers(result, stage)
        result.config.on_build = ()
        escape = self._dockerfile.directives.escape
        builder = StageBuilder(self, self.label(stage), escape, stage, result, scope, [*triggers, *stage.instructions])
        await builder.run()
        self._used |= scope.used
        result.arguments, result.variables = scope.arguments, scope.variables

    def _outer(self) -> Mapping[str, str]:
        given = {name: value for name, value in self._request.build_args.items() if name in PROXIES}
        return {**self._platform_arguments, **given, **self._globals}

    async def _begin(self, stage: Stage) -> StageResult:
        base = self._base_stage(stage)
        platform = self._stage_platform(stage)
        if base is not None:
            below = self._done[base.index]
            result = StageResult(below.node, below.config.copy(), below.image, below.platform)
            result.config.cmd_set = below.config.cmd_set
            result.steps = list(below.steps)
            result.arguments, result.variables = dict(below.arguments), dict(below.variables)
            return result
        name = self._base_name(stage)
        if name == "scratch" and name not in self._request.contexts:
            config = StageConfig(env={"PATH": DEFAULT_PATH}, working_dir="/")
            result = StageResult(Node(Scratch()), config, None, platform)
        else:
            image = await self._base_image(name, platform, stage)
            config = StageConfig.of(image.config.config)
            config.env.setdefault("PATH", DEFAULT_PATH)
            config.author = image.config.author
            node = Node(
                ImageTree(name, image.chain, image.id),
                title=f"FROM {name}",
                stage=self.label(stage),
                span=stage.base.span,
            )
            result = StageResult(node, config, image, image.platform)
        result.variables = dict(result.config.env)
        return result

    async def _base_image(self, name: str, platform: Platform, stage: Stage) -> Image:
        context = self._request.contexts.get(name.lower())
        if context is not None and context.kind == "image":
            name = context.value
        elif context is not None:
            message = f"named context {name} is a {context.kind} context and cannot be the base of a stage"
            raise DockerfileError(message, self._source, stage.base.span)
        return await self._image(name, platform, stage.base.span)

    def _triggers(self, result: StageResult, stage: Stage) -> list[kinds.Instruction]:
        found: list[kinds.Instruction] = []
        for expression in result.config.on_build:
            source = Source(f"ONBUILD of {self._base_name(stage)}", expression)
            _, statements = read_statements(source)
            for statement in statements:
                placed = replace(statement, span=stage.base.span)
                found.append(located(partial(interpret, placed), self._source, stage.base.span))
        return found

    # -- for the stage builder --------------------------------------------------------------------------------------

    def label(self, stage: Stage) -> str:
        """What progress calls it: "" where there is but one."""
        if stage.base.stage:
            return stage.base.stage
        return f"stage-{stage.index}" if len(self._dockerfile.stages) > 1 else ""

    async def origin(self, name: str, span: Span) -> Node:
        """The node of `--from=name`: a stage, a named context or an image."""
        context = self._request.contexts.get(name.lower())
        if context is not None:
            return await self._named_context(name.lower(), context, span)
        stage = self._dockerfile.stage(name)
        if stage is not None and stage.index in self._done:
            return self._done[stage.index].node
        if name.isdigit():
            message = f"invalid from flag value {name}: there is no stage of that number before this one"
            raise DockerfileError(message, self._source, locate(self._source, span, name))
        if name == "scratch":
            return Node(Scratch())
        image = await self._image(name, self._platform, span)
        return Node(ImageTree(name, image.chain, image.id), title=f"FROM {name}", span=span)

    async def _named_context(self, name: str, context: NamedContext, span: Span) -> Node:
        if context.kind == "image":
            image = await self._image(context.value, self._platform, span)
            return Node(ImageTree(context.value, image.chain, image.id), title=f"context {name}", span=span)
        if context.kind == "git":
            return Node(git_remote(context.value) or Git(context.value), title=f"context {name}", span=span)
        if context.kind == "url":
            return Node(Remote(context.value), title=f"context {name}", span=span)
        return self.context(name)

    def context(self, name: str = "") -> Node:
        if name not in self._contexts:
            self._contexts[name] = Node(Context(name), title=f"load {name or 'build context'}")
        return self._contexts[name]

    def _expanded(self, text: str, known: Mapping[str, str], span: Span) -> str:
        words = Words(self._dockerfile.directives.escape)
        return located(partial(words.expand, text, known), self._source, span)


def _origins(step: kinds.Instruction) -> Iterable[str]:
    if isinstance(step, kinds.Transfer):
        return [step.origin] if step.origin else []
    if isinstance(step, kinds.Run):
        found = (parse_mount(text).origin for text in step.mounts)
        return [origin for origin in found if origin]
    return []


_OWN = frozenset(
    (
        "BUILDKIT_BUILD_NAME",
        "BUILDKIT_CACHE_MOUNT_NS",
        "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
        "BUILDKIT_INLINE_CACHE",
        "BUILDKIT_MULTI_PLATFORM",
        "BUILDKIT_SANDBOX_HOSTNAME",
        "BUILDKIT_SYNTAX",
        "SOURCE_DATE_EPOCH",
    )
)
