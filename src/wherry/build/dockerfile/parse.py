"""A Dockerfile as stages. What needs the values of variables (stages named by them, paths) is the plan's."""

from dataclasses import dataclass

from wherry.build.dockerfile.directives import Directives
from wherry.build.dockerfile.instructions import Arg, From, Instruction
from wherry.build.dockerfile.interpret import interpret
from wherry.build.dockerfile.source import DockerfileError, Source, Span, locate
from wherry.build.dockerfile.statements import Statement, read_statements

LIMIT = 16 << 20
"""The longest Dockerfile, in characters."""


@dataclass(frozen=True, slots=True)
class Stage:
    """From one FROM to the next."""

    index: int
    base: From
    instructions: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        """In lower case; "" for none."""
        return self.base.stage.lower()

    @property
    def span(self) -> Span:
        end = self.instructions[-1].span.end if self.instructions else self.base.span.end
        return Span(self.base.span.start, end)


@dataclass(frozen=True, slots=True)
class Dockerfile:
    source: Source
    directives: Directives
    statements: tuple[Statement, ...]
    arguments: tuple[Arg, ...]
    """Those before the first FROM."""
    stages: tuple[Stage, ...]

    def stage(self, name: str) -> Stage | None:
        """By name (the last one of that name) or number."""
        for stage in reversed(self.stages):
            if stage.name and stage.name == name.lower():
                return stage
        if name.isascii() and name.isdigit() and len(name) < 9 and int(name) < len(self.stages):
            return self.stages[int(name)]
        return None


def parse(source: Source) -> Dockerfile:
    """DockerfileError names the line, shows it, and suggests what may have been meant."""
    if len(source.text) > LIMIT:
        raise DockerfileError(f"file is longer than {LIMIT >> 20} MiB", source, Span(1, 1))
    directives, statements = read_statements(source)
    if not statements:
        raise DockerfileError("file with no instructions", source, Span(1, 1))
    arguments: list[Arg] = []
    stages: list[tuple[From, list[Instruction]]] = []
    for statement in statements:
        instruction = _interpret(statement, source, directives.escape)
        if isinstance(instruction, From):
            stages.append((instruction, []))
        elif stages:
            stages[-1][1].append(instruction)
        elif isinstance(instruction, Arg):
            arguments.append(instruction)
        else:
            raise DockerfileError(
                "no build stage in current context", source, statement.span, hint="a Dockerfile begins with FROM or ARG"
            )
    if not stages:
        raise DockerfileError("no build stage in current context: there is no FROM", source, statements[-1].span)
    built = tuple(Stage(index, base, tuple(found)) for index, (base, found) in enumerate(stages))
    return Dockerfile(source, directives, tuple(statements), tuple(arguments), built)


def _interpret(statement: Statement, source: Source, escape: str) -> Instruction:
    try:
        return interpret(statement, escape)
    except ValueError as error:
        message = str(error)
        raise DockerfileError(message, source, _place(message, statement, source)) from None


def _place(message: str, statement: Statement, source: Source) -> Span:
    """The word the message is about, where it names one that stands in the statement."""
    for word in message.replace("'", " ").replace('"', " ").split():
        if word.startswith("--") or word == statement.keyword or "=" in word:
            return locate(source, statement.span, word.rstrip(","))
    words = [word for word in message.split('"')[1::2] if word]
    return locate(source, statement.span, words[0]) if words else statement.span
