"""Which files of a context .dockerignore leaves out: docker's rules (dockerfile/dockerignore.md), to the letter.

A pattern is one of Go's filepath.Match plus `**`; the last pattern that matches a path or one of its parents decides.
Matching never backtracks over more than three wildcards: patterns come from strangers.
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from wherry.errors import InvalidArgument

_FEW = 3


def read_ignore_file(text: str) -> list[str]:
    """The patterns of a .dockerignore, cleaned, `!` in front of exceptions; comments and blank lines dropped."""
    patterns = []
    for line in text.removeprefix("\ufeff").split("\n"):
        if line.startswith("#"):
            continue
        pattern = line.strip()
        exception = pattern.startswith("!")
        pattern = pattern[exception:].strip()
        if not pattern and not exception:
            continue
        if pattern:
            pattern = _clean(pattern)
            if len(pattern) > 1 and pattern.startswith("/"):
                pattern = pattern[1:]
        patterns.append("!" + pattern if exception else pattern)
    return patterns


@dataclass(frozen=True, slots=True)
class Pattern:
    """One rule; `exception` for those with `!`. `text` is without it."""

    text: str
    exception: bool
    matches: Callable[[str], bool]


class Ignore:
    """The rules of one context. `rules` is empty when everything is sent."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        """InvalidArgument names a pattern that is malformed."""
        self.rules: tuple[Pattern, ...] = tuple(_rule(pattern) for pattern in patterns if pattern.strip())
        self._exceptions = [rule for rule in self.rules if rule.exception]
        self._plain_exceptions = all(_is_prefix(rule.text) for rule in self._exceptions)

    def ignores(self, path: str) -> bool:
        """Whether `path` (relative, with slashes) is left out, as itself or with a directory above it."""
        return not self._kept(self.decide(path)[0])

    def reason(self, path: str) -> str | None:
        """The rule that leaves `path` out, as written; None when it stays."""
        rule = self.decide(path)[0]
        return None if self._kept(rule) or rule is None else rule.text

    def decide(self, path: str) -> tuple[Pattern | None, int]:
        """The rule that decides about `path`, and the marks of `path` for its children (see `child`)."""
        marks, rule = 0, None
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            rule, marks = self.child("/".join(parts[:count]), marks)
        return rule, marks

    def child(self, path: str, marks: int) -> tuple[Pattern | None, int]:
        """As `decide`, for a path whose parent's marks (0 at the top) are known.

        The marks are the rules that match a path or one of its parents, a bit for each.
        """
        decided: Pattern | None = None
        for index, rule in enumerate(self.rules):
            bit = 1 << index
            if not marks & bit and rule.matches(path):
                marks |= bit
            if marks & bit and rule.exception == (decided is not None and not decided.exception):
                decided = rule
        return decided, marks

    def descends(self, path: str) -> bool:
        """Whether anything below the ignored directory `path` may be wanted after all."""
        if not self._exceptions:
            return False
        if not self._plain_exceptions:
            return True
        return any(f"{_without_glob(rule.text)}/".startswith(f"{path}/") for rule in self._exceptions)

    @staticmethod
    def _kept(rule: Pattern | None) -> bool:
        return rule is None or rule.exception


def _rule(text: str) -> Pattern:
    text = text.strip()
    exception = text.startswith("!")
    body = text[1:].strip() if exception else text
    if exception and not body:
        raise InvalidArgument('illegal exclusion pattern: "!"', object=text)
    body = _clean(body)
    check_glob(body)
    return Pattern(body, exception, glob_matcher(body))


def _clean(pattern: str) -> str:
    cleaned = posixpath.normpath(pattern)
    # POSIX gives two leading slashes a meaning of their own; Go does not.
    return "/" + cleaned.lstrip("/") if cleaned.startswith("//") else cleaned


@lru_cache(maxsize=4096)
def glob_matcher(pattern: str) -> Callable[[str], bool]:
    tokens, special = _tokens(pattern)
    if not special:
        return pattern.__eq__
    if special == "prefix":
        prefix = pattern[:-2]
        return lambda path: path.startswith(prefix)
    if special == "suffix":
        suffix = pattern[2:]
        alone = suffix[1:] if suffix.startswith("/") else None
        return lambda path: path.endswith(suffix) or path == alone
    if sum(token in ("*", "**/", "**") for token in tokens) <= _FEW:
        return _compiled(tokens)
    return lambda path: _simulate(tokens, path)


def _tokens(pattern: str) -> tuple[tuple[str, ...], str]:
    """Tokens: "*", "?", "**/" (any directories, with the slash), "**" (anything), "[...]", else a character as "=c".

    The second is how it can be matched without them: "" as it is, "prefix", "suffix", or "tokens".
    """
    tokens: list[str] = []
    special, index = "", 0
    while index < len(pattern):
        char = pattern[index]
        first = index == 0
        if pattern.startswith("**", index):
            index += 2
            index += pattern.startswith("/", index)
            if index >= len(pattern):
                special = "prefix" if not special else "tokens"
                tokens.append("**")
            else:
                special = "tokens"
                tokens.append("**/")
            if first:
                special = "suffix"
            continue
        if char in "*?":
            special = "tokens"
            tokens.append(char)
        elif char == "\\" and index + 1 < len(pattern):
            index += 1
            special = "tokens"
            tokens.append("=" + pattern[index])
        elif char == "[":
            end = _class_end(pattern, index)
            special = "tokens"
            tokens.append(pattern[index:end])
            index = end
            continue
        else:
            if char == "]":
                special = "tokens"
            tokens.append("=" + char)
        index += 1
    return tuple(tokens), special


def _compiled(tokens: Sequence[str]) -> Callable[[str], bool]:
    parts = []
    for token in tokens:
        if token == "*":
            parts.append("[^/]*")
        elif token == "?":
            parts.append("[^/]")
        elif token == "**/":
            parts.append("(?:.*/)?")
        elif token == "**":
            parts.append(".*")
        elif token.startswith("["):
            parts.append(_class_regex(token))
        else:
            parts.append(re.escape(token[1:]))
    found = re.compile("".join(parts), re.DOTALL).fullmatch
    return lambda path: found(path) is not None


def _simulate(tokens: Sequence[str], path: str) -> bool:
    """By the set of positions reachable: at most the pattern's length times the path's."""
    classes = {token: re.compile(_class_regex(token), re.DOTALL).match for token in tokens if token.startswith("[")}
    states = _closure({0}, tokens)
    for char in path:
        reached = set()
        for state in states:
            if state == len(tokens):
                continue
            token = tokens[state]
            if token == "**" or (token == "*" and char != "/"):
                reached.add(state)
            elif token == "**/":
                # Inside the directories it stays open; it may end only at a slash.
                reached.add(~state)
                if char == "/":
                    reached.add(state + 1)
            elif (token == "?" and char != "/") or token == "=" + char or (token in classes and classes[token](char)):
                reached.add(state + 1)
        for state in [~open_state for open_state in states if open_state < 0]:
            reached.add(~state)
            if char == "/":
                reached.add(state + 1)
        states = _closure(reached, tokens)
    return len(tokens) in states


def _closure(states: set[int], tokens: Sequence[str]) -> set[int]:
    for state in list(states):
        while 0 <= state < len(tokens) and tokens[state] in ("*", "**", "**/"):
            state += 1
            states.add(state)
    return states


def _class_end(pattern: str, start: int) -> int:
    index = start + 1 + pattern.startswith("^", start + 1)
    first = True
    while index < len(pattern) and (pattern[index] != "]" or first):
        index += 1 + (pattern[index] == "\\")
        first = False
    return index + 1


@lru_cache(maxsize=4096)
def _class_regex(token: str) -> str:
    negated = token.startswith("[^")
    out, index = [], 1 + negated
    body_end = len(token) - 1
    while index < body_end:
        char = token[index]
        if char == "\\" and index + 1 < body_end:
            index += 1
            out.append(re.escape(token[index]))
        elif char == "-" and out and index + 1 < body_end:
            out.append("-")
        else:
            out.append(re.escape(char))
        index += 1
    return f"[{'^' if negated else ''}{''.join(out)}]"


def check_glob(pattern: str) -> None:
    """InvalidArgument where Go's filepath.Match calls a pattern malformed."""
    index = 0
    while index < len(pattern):
        char = pattern[index]
        if char == "\\":
            index += 1
            if index >= len(pattern):
                raise _malformed(pattern)
        elif char == "[":
            index = _check_class(pattern, index + 1)
            continue
        index += 1


def _check_class(pattern: str, index: int) -> int:
    index += pattern.startswith("^", index)
    members = 0
    while True:
        if pattern.startswith("]", index) and members:
            return index + 1
        low, index = _class_char(pattern, index)
        high = low
        if pattern.startswith("-", index):
            high, index = _class_char(pattern, index + 1)
        if high < low:
            # filepath.Match lets it match nothing; a regular expression would be refused.
            raise _malformed(pattern)
        members += 1


def _class_char(pattern: str, index: int) -> tuple[str, int]:
    if index >= len(pattern) or pattern[index] in "-]":
        raise _malformed(pattern)
    if pattern[index] == "\\":
        index += 1
        if index >= len(pattern):
            raise _malformed(pattern)
    if index + 1 >= len(pattern):
        raise _malformed(pattern)
    return pattern[index], index + 1


def _malformed(pattern: str) -> InvalidArgument:
    return InvalidArgument(f"syntax error in pattern {pattern!r}", object=pattern)


def _is_prefix(pattern: str) -> bool:
    return not any(char in _without_glob(pattern) for char in "*?[\\")


def _without_glob(pattern: str) -> str:
    return pattern.removesuffix("/**").removesuffix("/*")
