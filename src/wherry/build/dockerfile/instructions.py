"""The 18 instructions as data, their text split but not yet expanded."""

from dataclasses import dataclass

from wherry.build.dockerfile.heredoc import Heredoc
from wherry.build.dockerfile.source import Span
from wherry.build.dockerfile.statements import Statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """`original`: as docker shows it in a step; `name` in capitals."""

    statement: Statement

    @property
    def name(self) -> str:
        return self.statement.name

    @property
    def span(self) -> Span:
        return self.statement.span

    @property
    def original(self) -> str:
        return self.statement.original.strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class From(Instruction):
    image: str
    platform: str = ""
    stage: str = ""
    """As written; compared in lower case."""
    as_keyword: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(Instruction):
    """`values`: None for a name without default; quotes are still there."""

    values: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs(Instruction):
    """ENV or LABEL; quotes are still there. `legacy`: written `NAME value`."""

    values: tuple[tuple[str, str], ...]
    legacy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(Instruction):
    """COPY or ADD. `heredocs` are the inline files: their words in `sources` are the names alone."""

    sources: tuple[str, ...]
    target: str
    files: tuple[Heredoc, ...] = ()
    origin: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    excludes: tuple[str, ...] = ()
    keep_git_dir: bool | None = None
    checksum: str = ""
    unpack: bool | None = None

    @property
    def is_add(self) -> bool:
        return self.name == "ADD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Instruction):
    """`command`: the words of the exec form, or the one text of the shell form (then `shell`)."""

    command: tuple[str, ...]
    shell: bool
    files: tuple[Heredoc, ...] = ()
    mounts: tuple[str, ...] = ()
    """As written: they are parsed once their variables are known."""
    network: str = "default"
    security: str = "sandbox"
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Command(Instruction):
    """CMD or ENTRYPOINT."""

    command: tuple[str, ...]
    shell: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Words(Instruction):
    """EXPOSE or VOLUME."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Instruction):
    """MAINTAINER, STOPSIGNAL, USER or WORKDIR."""

    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Health(Instruction):
    """HEALTHCHECK; `test` as the image configuration has it, but for the shell form, whose text has no shell yet."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Onbuild(Instruction):
    expression: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell(Instruction):
    words: tuple[str, ...]
