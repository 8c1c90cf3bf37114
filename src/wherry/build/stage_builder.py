"""One stage's instructions, in order: what they do to the configuration, and the nodes they become."""

import posixpath
import re
import signal
from dataclasses import replace
from functools import partial
from typing import Protocol

from wherry.build import history
from wherry.build.dockerfile import instructions as kinds
from wherry.build.dockerfile.heredoc import parse_heredoc
from wherry.build.dockerfile.mounts import parse_mount
from wherry.build.dockerfile.parse import Stage
from wherry.build.dockerfile.source import DockerfileError, Source, Span, locate
from wherry.build.dockerfile.words import Words
from wherry.build.graph import (
    Copy,
    InlineFile,
    MakeDirectory,
    Node,
    Remote,
    Run,
    RunMount,
    Step,
)
from wherry.build.located import located
from wherry.build.modes import parse_mode
from wherry.build.remote import file_name, git_remote, is_url
from wherry.build.request import BuildRequest
from wherry.build.stage_config import StageConfig, parse_port
from wherry.build.variables import PROXIES, Scope
from wherry.images.image import Image
from wherry.spec.platform import Platform


class StageResult:
    """One stage after all its instructions."""

    def __init__(self, node: Node, config: StageConfig, image: Image | None, platform: Platform) -> None:
        self.node, self.config, self.image, self.platform = node, config, image, platform
        self.steps: list[Step] = []
        self.arguments: dict[str, str | None] = {}
        self.variables: dict[str, str] = {}


class Planning(Protocol):
    """What a stage needs of the plan it is part of."""

    request: BuildRequest
    source: Source
    outline: list[tuple[str, Node | None]]

    async def origin(self, name: str, span: Span) -> Node: ...
    def context(self, name: str = "") -> Node: ...


class StageBuilder:
    """The instructions of one stage, in order."""

    def __init__(
        self,
        planner: Planning,
        label: str,
        escape: str,
        stage: Stage,
        result: StageResult,
        scope: Scope,
        instructions: list[kinds.Instruction],
    ) -> None:
        self._planner, self._stage, self._result, self._scope = planner, stage, result, scope
        self._instructions = instructions
        self._config = result.config
        self._escape = escape
        self._label = label
        self._total = 1 + sum(makes_layer(step) for step in instructions)
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
        if not makes_layer(step):
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


def literal(name: str) -> str:
    """A path that matches only itself."""
    return "/" + re.sub(r"([*?\[\\])", r"\\\1", name)


def check_signal(text: str) -> None:
    """ValueError for what is no signal's name or number."""
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    known = name in signal.Signals.__members__ or name.startswith(("SIGRTMIN", "SIGRTMAX"))
    if not known and not (text.isdigit() and 0 < int(text[:4]) <= 64):
        raise ValueError(f"invalid signal: {text}")


def check_chmod(text: str) -> None:
    """ValueError for what is no mode; see `modes`."""
    if text:
        parse_mode(text)


def makes_layer(step: kinds.Instruction) -> bool:
    return isinstance(step, kinds.Run | kinds.Transfer) or (isinstance(step, kinds.Text) and step.name == "WORKDIR")
