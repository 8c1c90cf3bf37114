"""A Dockerfile and a target become a graph: only what the target needs, base images resolved, variables replaced."""

import asyncio
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

from wherry.build import history
from wherry.build.dockerfile import instructions as kinds
from wherry.build.dockerfile.interpret import interpret
from wherry.build.dockerfile.mounts import parse_mount
from wherry.build.dockerfile.parse import Dockerfile, Stage
from wherry.build.dockerfile.source import DockerfileError, Source, Span, locate, suggestion
from wherry.build.dockerfile.statements import read_statements
from wherry.build.dockerfile.words import ExpansionError, Words
from wherry.build.graph import (
    Context,
    Copy,
    Git,
    ImageTree,
    InlineFile,
    MakeDirectory,
    Node,
    Plan,
    Remote,
    Run,
    RunMount,
    Scratch,
    Step,
)
from wherry.build.remote import file_name, git_remote, is_url
from wherry.build.request import BuildRequest, ImageSource, NamedContext
from wherry.build.stage_config import StageConfig, parse_port
from wherry.build.variables import DEFAULT_PATH, PROXIES, Scope, platform_arguments
from wherry.errors import WherryError
from wherry.images.image import Image
from wherry.spec.oci_image import ImageConfig
from wherry.spec.platform import Platform, host_platform, parse_platform

T = TypeVar("T")


class _StageResult:
    """One stage after all its instructions."""

    def __init__(self, node: Node, config: StageConfig, image: Image | None, platform: Platform) -> None:
        self.node, self.config, self.image, self.platform = node, config, image, platform
        self.steps: list[Step] = []
        self.arguments: dict[str, str | None] = {}
        self.variables: dict[str, str] = {}


class Planner:
    """Plans one build. `images` gives base images; nothing else is looked up."""

    def __init__(self, request: BuildRequest, dockerfile: Dockerfile, images: ImageSource) -> None:
        self._request, self._dockerfile, self._images = request, dockerfile, images
        self._source = dockerfile.source
        self._platform = request.platform or host_platform()
        self._platform_arguments = platform_arguments(self._platform, host_platform())
        self._globals: dict[str, str] = {}
        self._resolved: dict[tuple[str, str], asyncio.Future[Image]] = {}
        self._done: dict[int, _StageResult] = {}
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
            raise _Located(error, self._source, locate(self._source, span, name)) from None

    # -- one stage --------------------------------------------------------------------------------------------------

    async def _stage(self, stage: Stage) -> None:
        result = await self._begin(stage)
        self.outline.append((stage.base.original, result.node))
        self._done[stage.index] = result
        scope = Scope(self._dockerfile.directives.escape, result.variables, self._request.build_args, self._outer())
        scope.arguments.update(result.arguments)
        triggers = self._triggers(result, stage)
        result.config.on_build = ()
        builder = _StageBuilder(self, stage, result, scope, [*triggers, *stage.instructions])
        await builder.run()
        self._used |= scope.used
        result.arguments, result.variables = scope.arguments, scope.variables

    def _outer(self) -> Mapping[str, str]:
        given = {name: value for name, value in self._request.build_args.items() if name in PROXIES}
        return {**self._platform_arguments, **given, **self._globals}

    async def _begin(self, stage: Stage) -> _StageResult:
        base = self._base_stage(stage)
        platform = self._stage_platform(stage)
        if base is not None:
            below = self._done[base.index]
            result = _StageResult(below.node, below.config.copy(), below.image, below.platform)
            result.config.cmd_set = below.config.cmd_set
            result.steps = list(below.steps)
            result.arguments, result.variables = dict(below.arguments), dict(below.variables)
            return result
        name = self._base_name(stage)
        if name == "scratch" and name not in self._request.contexts:
            config = StageConfig(env={"PATH": DEFAULT_PATH}, working_dir="/")
            result = _StageResult(Node(Scratch()), config, None, platform)
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
            result = _StageResult(node, config, image, image.platform)
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

    def _triggers(self, result: _StageResult, stage: Stage) -> list[kinds.Instruction]:
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

    @property
    def request(self) -> BuildRequest:
        return self._request

    @property
    def source(self) -> Source:
        return self._source

    def _expanded(self, text: str, known: Mapping[str, str], span: Span) -> str:
        words = Words(self._dockerfile.directives.escape)
        return located(partial(words.expand, text, known), self._source, span)


class _StageBuilder:
    """The instructions of one stage, in order."""

    def __init__(
        self,
        planner: Planner,
        stage: Stage,
        result: _StageResult,
        scope: Scope,
        instructions: list[kinds.Instruction],
    ) -> None:
        self._planner, self._stage, self._result, self._scope = planner, stage, result, scope
        self._instructions = instructions
        self._config = result.config
        self._escape = "\\"
        self._label = planner.label(stage)
        self._total = 1 + sum(_makes_layer(step) for step in instructions)
        self._number = 1
        names = planner.request.no_cache_stages
        self._ignore = planner.request.no_cache or self._label.lower() in names or str(stage.index) in names

    async def run(self) -> None:
        for step in self._instructions:
            if isinstance(step, kinds.Run):
                await self._run(step)
            elif isinstance(step, kinds.Transfer):
                await self._transfer(step)
            else:
                located(partial(self._plain, step), self._planner.source, step.span)

    def _plain(self, step: kinds.Instruction) -> None:
        config, scope = self._config, self._scope
        if not _makes_layer(step):
            self._planner.outline.append((step.original, None))
        if isinstance(step, kinds.Arg):
            values = [(name, scope.declare(name, default)) for name, default in step.values]
            self._record(history.arguments(values))
        elif isinstance(step, kinds.Pairs):
            pairs = [(scope.expand(name), scope.expand(value)) for name, value in step.values]
            if step.name == "ENV":
                config.env.update(pairs)
                scope.variables.update(pairs)
            else:
                config.labels.update(pairs)
            self._record(history.pairs(step.name, pairs))
        elif isinstance(step, kinds.Command):
            self._record(history.words(step.name, config.set_command(step)))
        elif isinstance(step, kinds.Health):
            config.set_health(step)
            assert config.healthcheck is not None
            self._record(history.health(config.healthcheck))
        elif isinstance(step, kinds.Words):
            split = scope.split if step.name == "EXPOSE" else lambda text: [scope.expand(text)]
            self._words(step.name, [word for text in step.values for word in split(text)])
        elif isinstance(step, kinds.Onbuild):
            config.on_build = (*config.on_build, step.expression)
        elif isinstance(step, kinds.Shell):
            config.shell = step.words
            self._record(history.listed("SHELL", step.words))
        elif isinstance(step, kinds.Text):
            self._text(step)

    def _words(self, name: str, values: list[str]) -> None:
        if name == "EXPOSE":
            values = list(dict.fromkeys(port for text in values for port in parse_port(text)))
            self._config.ports.update({port: {} for port in values})
        else:
            self._config.volumes.update({value: {} for value in values})
        self._record(history.listed(name, values))

    def _text(self, step: kinds.Text) -> None:
        config = self._config
        if step.name == "MAINTAINER":
            config.author = step.value
            self._record(f"MAINTAINER {step.value}")
            return
        value = self._scope.expand(step.value)
        if step.name == "USER":
            config.user = value
            self._record(f"USER {value}")
        elif step.name == "STOPSIGNAL":
            check_signal(value)
            config.stop_signal = value
            self._record(f"STOPSIGNAL {value}")
        else:
            path = config.change_directory(value)
            self._layer(
                MakeDirectory(posixpath.normpath(path), config.user),
                (),
                f"WORKDIR {step.value}",
                f"WORKDIR {path}",
                step,
            )

    async def _run(self, step: kinds.Run) -> None:
        words, script, shown = self._command(step)
        inputs: list[Node] = []
        mounts = []
        for text in step.mounts:
            mount = located(partial(parse_mount, text, self._scope.expand), self._planner.source, step.span)
            mount = replace(mount, target=self._absolute(mount.target) if mount.target else "")
            index = None
            if mount.type == "bind" or (mount.type == "cache" and mount.origin):
                origin = mount.origin
                node = await self._planner.origin(origin, step.span) if origin else self._planner.context()
                inputs.append(node)
                index = len(inputs)
            mounts.append(RunMount(mount, index))
        arguments = {
            name: self._scope.variables.get(name, value or "")
            for name, value in self._scope.arguments.items()
            if name not in PROXIES
        }
        request = self._planner.request
        proxies = {name: value for name, value in request.build_args.items() if name in PROXIES}
        env = {
            name: value
            for name, value in self._scope.variables.items()
            if name not in proxies or name in self._config.env
        }
        operation = Run(
            args=words,
            env=tuple(f"{name}={value}" for name, value in env.items()),
            proxies=tuple(f"{name}={value}" for name, value in proxies.items() if name not in env),
            cwd=self._config.working_dir or "/",
            user=self._config.user,
            network=self._network(step),
            security=self._security(step),
            mounts=tuple(mounts),
            script=script,
            hostname=request.build_args.get("BUILDKIT_SANDBOX_HOSTNAME", "buildkitsandbox"),
            extra_hosts=request.extra_hosts,
            shm_size=request.shm_size,
            ulimits=request.ulimits,
            cgroup_parent=request.cgroup_parent,
            resources=request.resources,
        )
        if step.devices:
            raise DockerfileError("RUN --device is not supported yet", self._planner.source, step.span)
        self._layer(operation, tuple(inputs), f"RUN {shown}", history.run(words, arguments), step)

    def _command(self, step: kinds.Run) -> tuple[tuple[str, ...], tuple[str, str] | None, str]:
        """The words to execute, a script to put beside them, and what to show."""
        shown = step.original.partition(" ")[2].strip() or step.original
        if not step.shell or not step.files:
            words = self._config.shell_form(step.command) if step.shell else step.command
            return words, None, shown
        (line,) = step.command
        from wherry.build.dockerfile.heredoc import parse_heredoc

        if parse_heredoc(line, self._escape) is not None:
            text = step.files[0].text
            first = next((row.strip() for row in text.splitlines() if row.strip()), "")
            shown = f"{shown} ({first[:40]}{'...' if text.count(chr(10)) > 1 or len(first) > 40 else ''})"
            if text.startswith("#!"):
                name = step.files[0].name
                return self._config.shell_form((f"/dev/pipes/{name}",)), (name, text), shown
            return self._config.shell_form((text,)), None, shown
        whole = line + "".join(f"\n{doc.content}{doc.name}" for doc in step.files)
        return self._config.shell_form((whole,)), None, shown

    def _network(self, step: kinds.Run) -> str:
        if step.network != "default":
            return self._entitled("network.host", step) if step.network == "host" else step.network
        return self._planner.request.network or "default"

    def _security(self, step: kinds.Run) -> str:
        if step.security == "insecure":
            self._entitled("security.insecure", step)
        return step.security

    def _entitled(self, name: str, step: kinds.Run) -> str:
        if name not in self._planner.request.entitlements:
            flag = "--network=host" if name == "network.host" else "--security=insecure"
            message = f"RUN {flag} needs the entitlement {name}"
            place = locate(self._planner.source, step.span, flag)
            raise DockerfileError(message, self._planner.source, place, hint=f"allow it with --allow {name}")
        return "host"

    async def _transfer(self, step: kinds.Transfer) -> None:
        source = self._planner.source
        texts = (*step.sources, step.target, step.chown, step.chmod, step.checksum)
        *words, chown, chmod, checksum = located(
            lambda: [self._scope.expand(text) for text in texts], source, step.span
        )
        excludes = located(lambda: tuple(self._scope.expand(text) for text in step.excludes), source, step.span)
        located(lambda: check_chmod(chmod), source, step.span)
        inputs: list[Node] = []
        sources = []
        for text in words[:-1]:
            node, path = await self._copied_from(step, text, checksum)
            if node not in inputs:
                inputs.append(node)
            sources.append((inputs.index(node) + 1, path))
        files = tuple(InlineFile(doc.name, self._inline(doc.text, doc.expand, step)) for doc in step.files)
        target = self._destination(words[-1])
        unpack = "never" if not step.is_add or step.unpack is False else ("always" if step.unpack else "auto")
        operation = Copy(
            sources=tuple(sources),
            files=files,
            target=target,
            chown=chown,
            chmod=chmod,
            parents=step.parents,
            excludes=excludes,
            link=step.link,
            unpack=unpack,
            add=step.is_add,
        )
        flags = [f"--{name}={value}" for name, value in (("chown", chown), ("chmod", chmod)) if value]
        shown = [*words[:-1], *(f"<<{doc.name}" for doc in step.files)]
        created_by = history.copy(step.name, flags, shown, words[-1])
        self._layer(operation, tuple(inputs), step.original.replace("\n", " "), created_by, step)

    async def _copied_from(self, step: kinds.Transfer, text: str, checksum: str) -> tuple[Node, str]:
        if step.is_add:
            git = git_remote(text)
            if git is not None:
                keep = bool(step.keep_git_dir)
                operation = replace(git, keep_git_dir=keep, checksum=checksum)
                return Node(operation, title=f"ADD {text}", span=step.span), "/"
            if is_url(text):
                return Node(Remote(text, checksum), title=f"ADD {text}", span=step.span), literal(file_name(text))
            if checksum:
                message = "checksum can't be specified for non-HTTP(S) and non-Git sources"
                raise DockerfileError(message, self._planner.source, step.span)
        if step.origin:
            return await self._planner.origin(step.origin, step.span), text
        return self._planner.context(), text

    def _inline(self, text: str, expand: bool, step: kinds.Transfer) -> bytes:
        if not expand:
            return text.encode()
        words = Words(self._escape, plain_quotes=True)
        return located(lambda: words.expand(text, self._scope.variables), self._planner.source, step.span).encode()

    def _destination(self, text: str) -> str:
        directory = text in ("", ".") or text.endswith(("/", "/."))
        path = self._absolute(text)
        return path.rstrip("/") + "/" if directory else path

    def _absolute(self, path: str) -> str:
        return "/" + posixpath.normpath(posixpath.join("/", self._config.working_dir, path)).lstrip("/")

    def _layer(
        self,
        operation: Run | Copy | MakeDirectory,
        inputs: tuple[Node, ...],
        shown: str,
        created_by: str,
        step: kinds.Instruction,
    ) -> None:
        self._number += 1
        place = f"{self._label} {self._number}/{self._total}".strip()
        node = Node(
            operation,
            (self._result.node, *inputs),
            f"[{place}] {' '.join(shown.split())}",
            self._label,
            step.span,
            self._ignore,
        )
        self._planner.outline.append((step.original, node))
        self._result.node = node
        self._result.steps.append(Step(created_by, node))

    def _record(self, created_by: str) -> None:
        self._result.steps.append(Step(created_by, None))


class _Located(DockerfileError):
    """The failure of a part, with the line that needs it."""

    def __init__(self, error: WherryError, source: Source, span: Span) -> None:
        super().__init__(error.message, source, span, hint=error.hint)
        self.message = error.message
        self.args = (error.message,)
        self.cause = error


def located(work: Callable[[], T], source: Source, span: Span) -> T:
    """Run `work`; what is wrong with an instruction's words becomes an error at its place."""
    try:
        return work()
    except (ExpansionError, ValueError) as error:
        raise DockerfileError(str(error), source, span) from None


def literal(name: str) -> str:
    """A path that matches only itself."""
    return "/" + re.sub(r"([*?\[\\])", r"\\\1", name)


def check_signal(text: str) -> None:
    """ValueError for what is no signal's name or number."""
    import signal

    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    known = name in signal.Signals.__members__ or name.startswith(("SIGRTMIN", "SIGRTMAX"))
    if not known and not (text.isdigit() and 0 < int(text[:4]) <= 64):
        raise ValueError(f"invalid signal: {text}")


def check_chmod(text: str) -> None:
    """ValueError for what is no mode; see `modes`."""
    from wherry.build.modes import parse_mode

    if text:
        parse_mode(text)


def _makes_layer(step: kinds.Instruction) -> bool:
    return isinstance(step, kinds.Run | kinds.Transfer) or (isinstance(step, kinds.Text) and step.name == "WORKDIR")


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
