"""Quotes, escapes and variables as the Dockerfile language has them (reference.md, "Environment replacement").

A word is read once, left to right; what a variable holds is never read again. Every loop moves forward, so that the
time is linear in the text and in what the variables put in (up to LIMIT characters, which nested words cannot exceed).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from wherry.build.dockerfile.patterns import replace, trim_prefix, trim_suffix

LIMIT = 1 << 20
_DEPTH = 50
_SPECIAL = "@*#?-$!"


class ExpansionError(ValueError):
    """Why a word cannot be expanded; whoever knows the place adds it."""


@dataclass(slots=True)
class Words:
    """A reader of words: `escape` as the file says, and which quotes, escapes and unset variables stay as they are."""

    escape: str = "\\"
    raw_quotes: bool = False
    raw_escapes: bool = False
    keep_unset: bool = False
    plain_quotes: bool = False
    """Quotes are ordinary characters (here-documents)."""
    used: set[str] = field(default_factory=set)
    """The variables that were asked for and known."""
    unset: set[str] = field(default_factory=set)
    """Those that were asked for and not known."""

    def expand(self, text: str, variables: Mapping[str, str]) -> str:
        """One word: blanks stay."""
        return _Reader(self, text, variables).read(None)[0]

    def split(self, text: str, variables: Mapping[str, str]) -> list[str]:
        """The words of `text` after expansion: blanks from variables split too, unless quoted."""
        reader = _Reader(self, text, variables)
        reader.read(None)
        return reader.finished()


class _Reader:
    def __init__(self, options: Words, text: str, variables: Mapping[str, str], depth: int = 0) -> None:
        self._options, self._text, self._variables = options, text, variables
        self._raw_escapes = options.raw_escapes
        self._index = 0
        self._depth = depth
        self._words: list[str] = []
        self._word: list[str] = []
        self._in_word = False

    def finished(self) -> list[str]:
        if self._in_word or self._word:
            self._words.append("".join(self._word))
            self._word, self._in_word = [], False
        return self._words

    def read(self, stop: str | None) -> tuple[str, bool]:
        """The text until `stop` (which is consumed) or the end; whether `stop` was found."""
        out: list[str] = []
        while (char := self._peek()) is not None:
            if char == stop:
                self._index += 1
                return self._joined(out), True
            if char in "'\"" and self._options.plain_quotes:
                self._index += 1
                out.append(char)
                self._add(char)
            elif char == "'":
                self._raw(out, self._single_quoted())
            elif char == '"':
                self._raw(out, self._double_quoted())
            elif char == "$":
                value = self._variable()
                out.append(value)
                for piece in value:
                    self._add(piece)
            elif char == self._options.escape:
                self._index += 1
                following = self._next()
                if self._raw_escapes:
                    self._raw(out, char)
                if following is None:
                    break
                self._raw(out, following)
            else:
                self._index += 1
                out.append(char)
                self._add(char)
        return self._joined(out), stop is None

    def _joined(self, out: list[str]) -> str:
        text = "".join(out)
        if len(text) > LIMIT:
            raise ExpansionError(f"the result of an expansion is longer than {LIMIT} characters")
        return text

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._index + 1)
        if end < 0:
            raise ExpansionError("unexpected end of statement while looking for matching single-quote")
        inner = self._text[self._index + 1 : end]
        self._index = end + 1
        return f"'{inner}'" if self._options.raw_quotes else inner

    def _double_quoted(self) -> str:
        out: list[str] = []
        self._index += 1
        escape = self._options.escape
        while (char := self._peek()) is not None:
            if char == '"':
                self._index += 1
                inner = self._joined(out)
                return f'"{inner}"' if self._options.raw_quotes else inner
            if char == "$":
                out.append(self._variable())
                continue
            self._index += 1
            if char == escape:
                following = self._peek()
                if following is None:
                    break
                self._index += 1
                # Only these lose their escape between double quotes, as in a shell.
                if self._raw_escapes or following not in ('"', "$", escape):
                    out.append(char)
                char = following
            out.append(char)
        raise ExpansionError("unexpected end of statement while looking for matching double-quote")

    def _variable(self) -> str:
        self._index += 1
        if self._peek() != "{":
            name = self._name()
            if not name:
                return "$"
            value = self._get(name)
            return f"${name}" if value is None and self._options.keep_unset else value or ""
        self._index += 1
        following = self._peek()
        if following is None:
            raise ExpansionError("syntax error: missing '}'")
        if following in "{}:":
            raise ExpansionError("syntax error: bad substitution")
        return self._braced(self._name())

    def _braced(self, name: str) -> str:
        char = self._next()
        if char is None:
            raise ExpansionError("syntax error: missing '}'")
        if char == "}":
            value = self._get(name)
            return f"${{{name}}}" if value is None and self._options.keep_unset else value or ""
        if char == "/":
            return self._replaced(name)
        colon = char == ":"
        operator = self._next() if colon else char
        shown = ":" + (operator or "") if colon else char
        if operator is None or operator not in ("+-?" if colon else "+-?#%"):
            raise ExpansionError(f"unsupported modifier ({shown}) in substitution")
        word = self._until("}", raw_escapes=operator in "#%", missing="syntax error: missing '}'")
        value = self._get(name)
        if operator in "#%":
            if value is None and self._options.keep_unset:
                return f"${{{name}{operator}{word}}}"
            longest = word.startswith(operator)
            trim: Callable[..., str] = trim_prefix if operator == "#" else trim_suffix
            return trim(value or "", word[1:] if longest else word, longest=longest)
        present = value is not None and not (colon and not value)
        if value is None and self._options.keep_unset:
            return f"${{{name}{shown}{word}}}"
        if operator == "-":
            return value or "" if present else word
        if operator == "+":
            return word if present else ""
        if not present:
            raise ExpansionError(f"{name}: {word or 'is not allowed to be unset'}")
        return value or ""

    def _replaced(self, name: str) -> str:
        every = self._peek() == "/"
        self._index += every
        slash = "//" if every else "/"
        pattern = self._until("/", raw_escapes=True, missing=f"syntax error: missing '/' in ${{{name}{slash}")
        replacement = self._until("}", raw_escapes=True, missing="syntax error: missing '}'")
        value = self._get(name)
        if value is None and self._options.keep_unset:
            return f"${{{name}{slash}{pattern}/{replacement}}}"
        return replace(value or "", pattern, replacement, every=every)

    def _until(self, stop: str, *, raw_escapes: bool, missing: str) -> str:
        if self._depth >= _DEPTH:
            raise ExpansionError("substitutions are nested too deeply")
        inner = _Reader(self._options, self._text, self._variables, self._depth + 1)
        inner._index, inner._raw_escapes = self._index, raw_escapes
        word, found = inner.read(stop)
        if not found:
            raise ExpansionError(missing)
        self._index = inner._index
        return word

    def _name(self) -> str:
        start = self._index
        first = self._peek()
        if first is None:
            return ""
        if first in _SPECIAL:
            self._index += 1
            return first
        digits = first.isdigit()
        while (char := self._peek()) is not None and (char.isdigit() if digits else char.isalnum() or char == "_"):
            self._index += 1
        return self._text[start : self._index]

    def _get(self, name: str) -> str | None:
        value = self._variables.get(name)
        (self._options.unset if value is None else self._options.used).add(name)
        return value

    def _peek(self) -> str | None:
        return self._text[self._index] if self._index < len(self._text) else None

    def _next(self) -> str | None:
        char = self._peek()
        self._index += char is not None
        return char

    def _add(self, char: str) -> None:
        if char.isspace():
            if self._in_word:
                self._words.append("".join(self._word))
                self._word, self._in_word = [], False
        else:
            self._word.append(char)
            self._in_word = True

    def _raw(self, out: list[str], text: str) -> None:
        out.append(text)
        self._word.append(text)
        self._in_word = True
