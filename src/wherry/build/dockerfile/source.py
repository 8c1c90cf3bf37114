"""Where in a Dockerfile something stands, and errors that show it."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from wherry.errors import InvalidArgument

_AROUND = 2


@dataclass(frozen=True, slots=True)
class Source:
    """A Dockerfile's text and the name it goes by in messages."""

    name: str
    text: str

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


@dataclass(frozen=True, slots=True)
class Span:
    """Lines of a source, counted from 1, both ends included; `column` (from 1) is in the first of them."""

    start: int
    end: int
    column: int = 1


class DockerfileError(InvalidArgument):
    """What is wrong with a Dockerfile, and where; `excerpt()` shows the lines."""

    def __init__(self, message: str, source: Source, span: Span, *, hint: str | None = None) -> None:
        super().__init__(f"dockerfile parse error on line {span.start}: {message}", object=source.name, hint=hint)
        self.detail = message
        self.source = source
        self.span = span

    def excerpt(self) -> str:
        return excerpt(self.source, self.span)


def excerpt(source: Source, span: Span) -> str:
    """The lines of `span` marked, a few around them, and the column, as docker's CLI shows a failed instruction."""
    lines = source.lines
    first, last = max(1, span.start - _AROUND), min(len(lines), span.end + _AROUND)
    shown = [f"{source.name}:{span.start}:{span.column}", "-" * 20]
    for number in range(first, last + 1):
        mark = ">>>" if span.start <= number <= span.end else "   "
        shown.append(f"{number:4} | {mark} {lines[number - 1]}".rstrip())
        if number == span.start and span.column > 1:
            shown.append(" " * (10 + span.column) + "^")
    return "\n".join([*shown, "-" * 20])


def locate(source: Source, span: Span, word: str) -> Span:
    """The narrower span at which `word` first stands inside `span`, or `span` itself."""
    lines = source.lines
    for number in range(span.start, min(span.end, len(lines)) + 1):
        column = lines[number - 1].find(word) if word else -1
        if column >= 0:
            return Span(number, span.end, column + 1)
    return span


def suggestion(word: str, known: Iterable[str], *, ignore_case: bool = True) -> str:
    """ " (did you mean X?)" for the closest known word, or nothing."""
    found = closest(word, known, ignore_case=ignore_case)
    return f" (did you mean {found}?)" if found else ""


def closest(word: str, known: Iterable[str], *, ignore_case: bool = True) -> str:
    by_key = {name.lower() if ignore_case else name: name for name in known}
    key = word.lower() if ignore_case else word
    if len(key) > 64:
        return ""
    near = difflib.get_close_matches(key, by_key, n=1, cutoff=0.7)
    return by_key[near[0]] if near and near[0] != key else ""
