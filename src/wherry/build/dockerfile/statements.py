"""A Dockerfile's text as statements: lines joined, comments and here-documents taken out, flags split off."""

import re
from dataclasses import dataclass, replace

from wherry.build.dockerfile.directives import Directives, read_directives
from wherry.build.dockerfile.heredoc import Heredoc, heredocs_of
from wherry.build.dockerfile.source import DockerfileError, Source, Span

_HEREDOC_KEYWORDS = ("ADD", "COPY", "RUN")
_BLANK = " \t\r\n\v\f"


@dataclass(frozen=True, slots=True)
class Statement:
    """One instruction as written: `keyword` in its own case, `flags` unquoted, `rest` what follows them."""

    keyword: str
    flags: tuple[str, ...]
    rest: str
    original: str
    span: Span
    heredocs: tuple[Heredoc, ...] = ()
    comments: tuple[str, ...] = ()
    """The comment lines right above, without `#`."""
    empty_continuation: bool = False

    @property
    def name(self) -> str:
        return self.keyword.upper()


def read_statements(source: Source) -> tuple[Directives, list[Statement]]:
    """Every statement of a Dockerfile, in order; DockerfileError when a here-document has no end."""
    lines = source.text.removeprefix("\ufeff").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    directives = read_directives(source, [line.rstrip("\r") for line in lines])
    return directives, _Lexer(source, lines, directives).run()


def parse_line(line: str, span: Span) -> Statement:
    """One joined line, without here-documents."""
    keyword, rest = split_keyword(line)
    flags, rest = split_flags(rest)
    return Statement(keyword, tuple(flags), rest, line, span)


class _Lexer:
    def __init__(self, source: Source, lines: list[str], directives: Directives) -> None:
        self._source, self._lines, self._escape = source, lines, directives.escape
        mark = re.escape(directives.escape)
        self._continuation = re.compile(rf"(?:(?<=[^{mark}])|^){mark}[ \t]*\Z")
        # Directives are no comments on what follows them.
        self._number = directives.lines

    def run(self) -> list[Statement]:
        statements: list[Statement] = []
        comments: list[str] = []
        while self._number < len(self._lines):
            raw = self._next()
            stripped = raw.lstrip(_BLANK)
            if stripped.startswith("#"):
                comments.append(stripped[1:].strip())
                continue
            start = self._number
            line, empty = self._joined(stripped)
            if line.strip():
                statements.append(self._statement(line, start, tuple(comments), empty, len(raw) - len(stripped)))
            comments = []
        return statements

    def _joined(self, line: str) -> tuple[str, bool]:
        parts, empty = [], False
        line, ended = self._cut(line)
        parts.append(line)
        while not ended and self._number < len(self._lines):
            raw = self._next()
            if raw.lstrip(_BLANK).startswith("#"):
                continue
            if not raw.strip(_BLANK):
                empty = True
                continue
            part, ended = self._cut(raw)
            parts.append(part)
        return "".join(parts), empty

    def _cut(self, line: str) -> tuple[str, bool]:
        """The line without its continuation mark, and whether the instruction ends with it."""
        match = self._continuation.search(line) if self._escape in line else None
        return (line[: match.start()], False) if match else (line, True)

    def _statement(self, line: str, start: int, comments: tuple[str, ...], empty: bool, indent: int) -> Statement:
        statement = parse_line(line, Span(start, self._number, indent + 1))
        name = statement.name
        if name == "ONBUILD":
            name = split_keyword(statement.rest)[0].upper()
        heredocs = (
            tuple(self._read(doc, start) for doc in heredocs_of(line, self._escape))
            if name in _HEREDOC_KEYWORDS
            else ()
        )
        span = Span(start, self._number, indent + 1)
        return replace(statement, span=span, heredocs=heredocs, comments=comments, empty_continuation=empty)

    def _read(self, doc: Heredoc, start: int) -> Heredoc:
        content: list[str] = []
        while self._number < len(self._lines):
            raw = self._lines[self._number]
            self._number += 1
            text = raw.rstrip("\r")
            if (text.lstrip("\t") if doc.chomp else text) == doc.name:
                return replace(doc, content="".join(content))
            content.append(raw + "\n")
        raise DockerfileError("unterminated heredoc", self._source, Span(start, len(self._lines)))

    def _next(self) -> str:
        self._number += 1
        return self._lines[self._number - 1].rstrip("\r")


def split_keyword(line: str) -> tuple[str, str]:
    parts = line.strip(_BLANK).split(None, 1)
    return (parts[0], parts[1].strip(_BLANK)) if len(parts) == 2 else (parts[0] if parts else "", "")


def split_flags(line: str) -> tuple[list[str], str]:
    """The `--...` words a line begins with, quotes and escapes undone, and what follows them."""
    flags: list[str] = []
    index = 0
    while True:
        while index < len(line) and line[index].isspace():
            index += 1
        if not line.startswith("--", index):
            return flags, line[index:].strip(_BLANK)
        word, index = _flag(line, index)
        if word == "--":
            return flags, line[index:].strip(_BLANK)
        flags.append(word)


def _flag(line: str, index: int) -> tuple[str, int]:
    word, quote = [], ""
    while index < len(line):
        char = line[index]
        if char == "\\":
            index += 1
            word.append(line[index : index + 1])
        elif quote:
            if char == quote:
                quote = ""
            else:
                word.append(char)
        elif char.isspace():
            break
        elif char in "'\"":
            quote = char
        else:
            word.append(char)
        index += 1
    return "".join(word), index
