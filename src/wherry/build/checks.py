"""Build checks: what a Dockerfile does that works, but is not what was meant (dockerfile/rules).

The rules read the text and what is known of the base images; nothing is built. Messages are docker's.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from wherry.build.dockerfile import instructions as kinds
from wherry.build.dockerfile.parse import Dockerfile, Stage
from wherry.build.dockerfile.source import Span
from wherry.build.dockerfile.words import ExpansionError, Words
from wherry.build.ignore import Ignore
from wherry.errors import InvalidArgument
from wherry.spec.reference import parse_reference

_URL = "https://docs.docker.com/go/dockerfile/rule/"
_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_PUBLIC = re.compile(r"(?:_|^)public(?:_|$)", re.IGNORECASE)
_RESERVED = ("context", "scratch")
_ONCE = ("CMD", "HEALTHCHECK", "ENTRYPOINT")

PLATFORM_ARGUMENTS = (
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
)

RULES: Mapping[str, str] = {
    "StageNameCasing": "Stage names should be lowercase",
    "FromAsCasing": "The 'as' keyword should match the case of the 'from' keyword",
    "NoEmptyContinuation": "Empty continuation lines will become errors in a future release",
    "ConsistentInstructionCasing": (
        "All commands within the Dockerfile should use the same casing (either upper or lower)"
    ),
    "DuplicateStageName": "Stage names should be unique",
    "ReservedStageName": "Reserved words should not be used as stage names",
    "JSONArgsRecommended": (
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals"
    ),
    "MaintainerDeprecated": ("The MAINTAINER instruction is deprecated, use a label instead to define an image author"),
    "UndefinedArgInFrom": "FROM command must use declared ARGs",
    "WorkdirRelativePath": (
        "Relative workdir without an absolute workdir declared within the build can have unexpected results "
        "if the base image changes"
    ),
    "UndefinedVar": "Variables should be defined before their use",
    "MultipleInstructionsDisallowed": "Multiple instructions of the same type should not be used in the same stage",
    "LegacyKeyValueFormat": "Legacy key/value format with whitespace separator should not be used",
    "RedundantTargetPlatform": (
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"
    ),
    "SecretsUsedInArgOrEnv": "Sensitive data should not be used in the ARG or ENV commands",
    "InvalidDefaultArgInFrom": "Default value for global ARG results in an empty or invalid base image name",
    "FromPlatformFlagConstDisallowed": "FROM --platform flag should not use a constant value",
    "CopyIgnoredFile": "Attempting to Copy file that is excluded by .dockerignore",
    "InvalidDefinitionDescription": (
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`"
    ),
    "ExposeProtoCasing": "Protocol in EXPOSE instruction should be lowercase",
    "ExposeInvalidFormat": (
        "IP address and host-port mapping should not be used in EXPOSE instruction. "
        "This will become an error in a future release"
    ),
    "InvalidBaseImagePlatform": "Base image platform does not match expected target platform",
}
_EXPERIMENTAL = ("InvalidDefinitionDescription",)


@dataclass(frozen=True, slots=True)
class Finding:
    """One violated rule; `message` is about this case, `description` about the rule."""

    rule: str
    message: str
    span: Span

    @property
    def description(self) -> str:
        return RULES[self.rule]

    @property
    def url(self) -> str:
        return _URL + re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=JSON)", "-", self.rule).lower() + "/"


@dataclass(frozen=True, slots=True)
class BaseImage:
    """What is known of an image a stage stands on: its variables and its platform ("os/architecture")."""

    env: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""
    expected: str = ""


BaseOf = Callable[[Stage], BaseImage | None]


def check(dockerfile: Dockerfile, *, bases: BaseOf = lambda stage: None, ignore: Ignore | None = None) -> list[Finding]:
    """Every finding that the `# check=` directive does not skip, in the order of the file.

    `bases`: the image of a stage, or None when it is not known; then undefined variables are not looked for in it.
    """
    found = [*_file_rules(dockerfile), *_stage_names(dockerfile), *_from_rules(dockerfile, bases)]
    for stage in dockerfile.stages:
        found += _stage_rules(stage, ignore)
    found += _Variables(dockerfile, bases).run()
    settings = dockerfile.directives.check
    kept = {
        finding: None
        for finding in found
        if not settings.skips(finding.rule) and (finding.rule not in _EXPERIMENTAL or settings.includes(finding.rule))
    }
    return sorted(kept, key=lambda finding: finding.span.start)


def _file_rules(dockerfile: Dockerfile) -> Iterator[Finding]:
    keywords = [statement.keyword for statement in dockerfile.statements]
    lower = sum(word.islower() for word in keywords)
    upper = sum(word.isupper() for word in keywords)
    right = "lowercase" if lower > upper else "uppercase"
    for statement in dockerfile.statements:
        word = statement.keyword
        if not (word.islower() if lower > upper else word.isupper()):
            message = f"Command '{word}' should match the case of the command majority ({right})"
            yield Finding("ConsistentInstructionCasing", message, statement.span)
        if statement.empty_continuation:
            yield Finding(
                "NoEmptyContinuation", "Empty continuation line", Span(statement.span.end, statement.span.end)
            )
    for argument in dockerfile.arguments:
        yield from _described(argument.name, [name for name, _ in argument.values], argument)


def _stage_names(dockerfile: Dockerfile) -> Iterator[Finding]:
    seen: set[str] = set()
    for stage in dockerfile.stages:
        base, name = stage.base, stage.base.stage
        if not name:
            continue
        if name != name.lower():
            yield Finding("StageNameCasing", f"Stage name '{name}' should be lowercase", base.span)
        if stage.name in _RESERVED:
            message = f'Stage name should not use the same name as reserved stage "{name}"'
            yield Finding("ReservedStageName", message, base.span)
        if stage.name in seen:
            message = f'Duplicate stage name "{name}", stage names should be unique'
            yield Finding("DuplicateStageName", message, base.span)
        seen.add(stage.name)
        keyword, as_word = base.statement.keyword, base.as_keyword
        if (keyword.isupper() and as_word.islower()) or (keyword.islower() and as_word.isupper()):
            message = f"'{as_word}' and '{keyword}' keywords' casing do not match"
            yield Finding("FromAsCasing", message, base.span)
        yield from _described("FROM", [name], base)


def _from_rules(dockerfile: Dockerfile, bases: BaseOf) -> Iterator[Finding]:
    escape = dockerfile.directives.escape
    known = global_defaults(dockerfile)
    names: set[str] = set()
    for stage in dockerfile.stages:
        base = stage.base
        for text in (base.image, base.platform):
            words = Words(escape)
            with _ignored():
                words.expand(text, known)
            for name in sorted(words.unset):
                near = _near(name, known)
                message = f"FROM argument '{name}' is not declared{near}"
                yield Finding("UndefinedArgInFrom", message, base.span)
        if "$" in base.image and not _valid_image(base.image, escape, known, names):
            message = f"Default value for ARG {base.image} results in empty or invalid base image name"
            yield Finding("InvalidDefaultArgInFrom", message, base.span)
        if base.platform in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
            yield Finding("RedundantTargetPlatform", _redundant(base.platform), base.span)
        elif base.platform and "$" not in base.platform and not _names_platform(base):
            message = f'FROM --platform flag should not use constant value "{base.platform}"'
            yield Finding("FromPlatformFlagConstDisallowed", message, base.span)
        image = bases(stage)
        if image is not None and image.expected and image.platform != image.expected:
            message = (
                f'Base image {base.image} was pulled with platform "{image.platform}", '
                f'expected "{image.expected}" for current build'
            )
            yield Finding("InvalidBaseImagePlatform", message, base.span)
        names.add(stage.name)


def _redundant(platform: str) -> str:
    return f"Setting platform to predefined {platform} in FROM is redundant as this is the default behavior"


def _names_platform(base: kinds.From) -> bool:
    return any(part and part in base.stage.lower() for part in base.platform.lower().split("/"))


def _valid_image(text: str, escape: str, known: Mapping[str, str], stages: set[str]) -> bool:
    try:
        name = Words(escape).expand(text, known)
        if name.lower() not in stages and name != "scratch":
            parse_reference(name)
    except (ExpansionError, InvalidArgument):
        return False
    return bool(name)


def _stage_rules(stage: Stage, ignore: Ignore | None) -> Iterator[Finding]:
    last: dict[str, kinds.Instruction] = {}
    shell = workdir = False
    for step in stage.instructions:
        if step.name in _ONCE:
            if step.name in last:
                message = (
                    f"Multiple {step.name} instructions should not be used in the same stage "
                    "because only the last one will be used"
                )
                yield Finding("MultipleInstructionsDisallowed", message, last[step.name].span)
            last[step.name] = step
        if isinstance(step, kinds.Shell):
            shell = True
        elif isinstance(step, kinds.Command):
            if step.shell and step.command and not shell:
                message = (
                    f"JSON arguments recommended for {step.name} to prevent unintended behavior related to OS signals"
                )
                yield Finding("JSONArgsRecommended", message, step.span)
        elif isinstance(step, kinds.Text) and step.name == "MAINTAINER":
            message = "Maintainer instruction is deprecated in favor of using label"
            yield Finding("MaintainerDeprecated", message, step.span)
        elif isinstance(step, kinds.Text) and step.name == "WORKDIR":
            if step.value.startswith(("/", "$")):
                workdir = True
            elif not workdir:
                message = f'Relative workdir "{step.value}" can have unexpected results if the base image changes'
                yield Finding("WorkdirRelativePath", message, step.span)
        else:
            yield from _plain_rules(step, ignore)


def _plain_rules(step: kinds.Instruction, ignore: Ignore | None) -> Iterator[Finding]:
    if isinstance(step, kinds.Pairs):
        if step.legacy:
            message = f'"{step.name} key=value" should be used instead of legacy "{step.name} key value" format'
            yield Finding("LegacyKeyValueFormat", message, step.span)
        if step.name == "ENV":
            yield from _secrets(step, [name for name, _ in step.values])
    elif isinstance(step, kinds.Arg):
        names = [name for name, _ in step.values]
        yield from _secrets(step, names)
        yield from _described("ARG", names, step)
    elif isinstance(step, kinds.Words) and step.name == "EXPOSE":
        for port in step.values:
            if ":" in port:
                message = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                yield Finding("ExposeInvalidFormat", message, step.span)
            protocol = port.partition("/")[2]
            if protocol != protocol.lower():
                message = f"Defined protocol '{port}' in EXPOSE instruction should be lowercase"
                yield Finding("ExposeProtoCasing", message, step.span)
    elif isinstance(step, kinds.Transfer) and ignore is not None and not step.origin:
        for source in step.sources:
            path = source.strip("/").removeprefix("./")
            if path not in ("", ".") and "$" not in path and "://" not in path and ignore.ignores(path):
                verb = step.name.capitalize()
                message = f'Attempting to {verb} file "{source}" that is excluded by .dockerignore'
                yield Finding("CopyIgnoredFile", message, step.span)


def _secrets(step: kinds.Instruction, names: Iterable[str]) -> Iterator[Finding]:
    for name in names:
        if _SECRET.search(name) and not _PUBLIC.search(name):
            message = f'Do not use ARG or ENV instructions for sensitive data ({step.name} "{name}")'
            yield Finding("SecretsUsedInArgOrEnv", message, step.span)


def _described(instruction: str, names: list[str], step: kinds.Instruction) -> Iterator[Finding]:
    comments = step.statement.comments
    if not comments or not names or comments[-1].partition(" ")[0] in names:
        return
    example = names[0].lower() if instruction == "FROM" else names[0]
    shown = example if len(names) == 1 else "<arg_key>"
    message = f"Comment for {instruction} should follow the format: `# {shown} <description>`"
    yield Finding("InvalidDefinitionDescription", message, step.span)


def global_defaults(dockerfile: Dockerfile) -> dict[str, str]:
    """The arguments before the first FROM that have a default, and the platform's (their names count here)."""
    known = dict.fromkeys(PLATFORM_ARGUMENTS, "linux/amd64")
    for argument in dockerfile.arguments:
        for name, value in argument.values:
            with _ignored():
                known[name] = Words(dockerfile.directives.escape).expand(value or "", known)
    return known


class _Variables:
    """UndefinedVar: a walk over each stage with the names that are known by then."""

    def __init__(self, dockerfile: Dockerfile, bases: BaseOf) -> None:
        self._dockerfile, self._bases = dockerfile, bases
        self._globals = global_defaults(dockerfile)
        self._after: dict[int, dict[str, str] | None] = {}

    def run(self) -> Iterator[Finding]:
        for stage in self._dockerfile.stages:
            known = self._start(stage)
            for step in stage.instructions:
                if known is not None:
                    yield from self._step(step, known)
            self._after[stage.index] = known

    def _start(self, stage: Stage) -> dict[str, str] | None:
        with _ignored():
            image = Words(self._dockerfile.directives.escape).expand(stage.base.image, self._globals)
            if image == "scratch":
                return {"PATH": ""}
            other = self._dockerfile.stage(image)
            if other is not None and other.index < stage.index:
                inherited = self._after[other.index]
                return dict(inherited) if inherited is not None else None
        base = self._bases(stage)
        return None if base is None else {"PATH": "", **base.env}

    def _step(self, step: kinds.Instruction, known: dict[str, str]) -> Iterator[Finding]:
        words = Words(self._dockerfile.directives.escape)
        for text in _expanded(step):
            with _ignored():
                words.expand(text, known)
        for name in sorted(words.unset):
            message = f"Usage of undefined variable '${name}'{_near(name, known, '$')}"
            yield Finding("UndefinedVar", message, step.span)
        if isinstance(step, kinds.Arg):
            known.update({name: value or "" for name, value in step.values})
        elif isinstance(step, kinds.Pairs) and step.name == "ENV":
            known.update(step.values)


def _expanded(step: kinds.Instruction) -> list[str]:
    """The texts of an instruction in which variables are replaced."""
    if isinstance(step, kinds.Arg):
        return [value for _, value in step.values if value is not None]
    if isinstance(step, kinds.Pairs):
        return [text for pair in step.values for text in pair]
    if isinstance(step, kinds.Transfer):
        return [*step.sources, step.target, step.chown, step.chmod, step.checksum]
    if isinstance(step, kinds.Words):
        return list(step.values)
    if isinstance(step, kinds.Text) and step.name != "MAINTAINER":
        return [step.value]
    return []


def _near(name: str, known: Iterable[str], mark: str = "") -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f" (did you mean {mark}{near[0]}?)" if near else ""


class _ignored:
    """What cannot be expanded is the build's error, not a finding."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        return isinstance(error, ExpansionError)
