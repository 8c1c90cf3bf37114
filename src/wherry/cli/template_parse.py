"""From the source of a Go template to a tree of tuples.

Nodes: ("text", s) ("action", pipeline) ("if"|"with"|"range", pipeline, body, else) ("break",) ("continue",).
A pipeline is (commands, variable names, whether they are declared); a command a list of operands; an operand
("literal", value) ("function", name, position) or ("field"|"variable"|"group", base, path, position, source).
"""

from __future__ import annotations

from wherry.cli.template_functions import TemplateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container
    from typing import Any

    Node = tuple[Any, ...]
    Token = tuple[str, Any, str]  # kind, value, "line:column"

_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789")
_SPACE = " \t\r\n"
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_WORDS: dict[str, Any] = {"true": True, "false": False, "nil": None}


def parse(source: str, functions: Container[str]) -> list[Node]:
    parser = _Parser(_pieces(source), functions)
    nodes, end = parser.block(())
    assert end is None
    return nodes


def _pieces(source: str) -> list[Node]:
    """("text", s) and ("tokens", [token...], line), in order, with {{- -}} trimmed and comments dropped."""
    pieces: list[Node] = []
    position = 0
    trim = False
    while True:
        start = source.find("{{", position)
        text = source[position:] if start < 0 else source[position:start]
        if trim:
            text = text.lstrip(_SPACE)
        trim = False
        if start >= 0 and source[start + 2 : start + 3] == "-" and source[start + 3 : start + 4] in tuple(_SPACE):
            text = text.rstrip(_SPACE)
        if text:
            pieces.append(("text", text))
        if start < 0:
            return pieces
        tokens, position, trim = _Lexer(source, start + 2).action()
        if tokens is not None:
            pieces.append(("tokens", tokens, source.count("\n", 0, start) + 1))


class _Lexer:
    def __init__(self, source: str, position: int) -> None:
        self.source = source
        self.at = position
        self.tokens: list[Token] = []

    def fail(self, what: str) -> TemplateError:
        return TemplateError(f"template: :{self.source.count(chr(10), 0, self.at) + 1}: {what}")

    def add(self, kind: str, value: Any, start: int) -> None:
        line = self.source.count("\n", 0, start)
        column = start - (self.source.rfind("\n", 0, start) + 1)
        self.tokens.append((kind, value, f"{line + 1}:{column}"))

    def action(self) -> tuple[list[Token] | None, int, bool]:
        """The tokens up to }} (None for a comment), where the text goes on, whether its leading space goes."""
        source = self.source
        if source.startswith("- ", self.at):
            self.at += 2
        if source.startswith("/*", self.at):
            return self._comment()
        while True:
            if source.startswith("}}", self.at):
                return self.tokens, self.at + 2, False
            if self.at >= len(source):
                raise self.fail("unclosed action")
            char = source[self.at]
            if char in _SPACE:
                if source.startswith("-}}", self.at + 1):
                    return self.tokens, self.at + 4, True
                self.add("space", " ", self.at)
                self.at += 1
            else:
                self._token(char)

    def _comment(self) -> tuple[None, int, bool]:
        end = self.source.find("*/", self.at)
        if end < 0:
            raise self.fail("unclosed comment")
        rest = self.source[end + 2 :]
        if rest.startswith("}}"):
            return None, end + 4, False
        if rest.startswith(" -}}"):
            return None, end + 6, True
        raise self.fail("comment ends before closing delimiter")

    def _token(self, char: str) -> None:
        source, start = self.source, self.at
        if char in '"`':
            self._string(char)
        elif char == "'":
            self._string("'")
            kind, text, position = self.tokens.pop()
            self.tokens.append((kind, ord(text), position))
        elif char == "." and source[start + 1 : start + 2] in _NAME and not source[start + 1 : start + 2].isdigit():
            self.add("field", self._name(start + 1), start)
        elif char == "$":
            self.add("variable", "$" + self._name(start + 1), start)
        elif char.isdigit() or (char in "+-." and source[start + 1 : start + 2].isdigit()):
            self._number()
        elif char in _NAME:
            self.add("word", self._name(start), start)
        elif source.startswith(":=", start):
            self.at += 2
            self.add(":=", ":=", start)
        elif char in ".|(),=":
            self.at += 1
            self.add(char, char, start)
        else:
            raise self.fail(f"unexpected bad character U+{ord(char):04X} {char!r} in command")

    def _name(self, start: int) -> str:
        end = start
        while end < len(self.source) and (self.source[end] in _NAME or self.source[end] > "\x7f"):
            end += 1
        self.at = end
        return self.source[start:end]

    def _number(self) -> None:
        start = self.at
        end = start + 1
        while end < len(self.source) and self.source[end] in "0123456789.xXabcdefABCDEF_":
            end += 1
        text = self.source[start:end]
        self.at = end
        try:
            self.add("literal", float(text) if "." in text and "x" not in text.lower() else int(text, 0), start)
        except ValueError:
            raise self.fail(f"bad number syntax: {text!r}") from None

    def _string(self, quote: str) -> None:
        start = self.at
        out: list[str] = []
        at = start + 1
        while True:
            char = self.source[at : at + 1]
            if not char or (char == "\n" and quote != "`"):
                raise self.fail("unterminated raw quoted string" if quote == "`" else "unterminated quoted string")
            if char == quote:
                break
            if char == "\\" and quote != "`":
                code = self.source[at + 1 : at + 2]
                if code == "x" or code == "u":
                    size = 2 if code == "x" else 4
                    out.append(chr(int(self.source[at + 2 : at + 2 + size], 16)))
                    at += size
                else:
                    out.append(_ESCAPES.get(code, "\\" + code))
                at += 2
            else:
                out.append(char)
                at += 1
        self.at = at + 1
        self.add("literal", "".join(out), start)


class _Parser:
    def __init__(self, pieces: list[Node], functions: Container[str]) -> None:
        self.pieces = pieces
        self.functions = functions
        self.tokens: list[Token] = []
        self.line = 1

    def fail(self, what: str) -> TemplateError:
        return TemplateError(f"template: :{self.line}: {what}")

    def block(self, ends: tuple[str, ...]) -> tuple[list[Node], str | None]:
        """Nodes up to one of the words in `ends`, whose tokens are left to be read."""
        nodes: list[Node] = []
        while self.pieces:
            piece = self.pieces.pop(0)
            if piece[0] == "text":
                nodes.append(piece)
                continue
            self.tokens = [*piece[1]]
            self.line = piece[2]
            self.skip()
            word = self.tokens[0][1] if self.tokens and self.tokens[0][0] == "word" else ""
            if word in ("end", "else"):
                if word not in ends:
                    raise self.fail(f"unexpected {{{{{word}}}}}")
                self.tokens.pop(0)
                return nodes, word
            nodes.append(self.statement(word))
        if ends:
            raise self.fail("unexpected EOF")
        return nodes, None

    def statement(self, word: str) -> Node:
        if word in ("if", "with", "range"):
            self.tokens.pop(0)
            return self.control(word)
        if word in ("break", "continue"):
            return (word,)
        if word in ("define", "template", "block"):
            raise self.fail(f"{word} is not implemented in wherry's templates")
        return ("action", self.pipeline(""))

    def control(self, word: str) -> Node:
        pipeline = self.pipeline(word)
        body, end = self.block(("end", "else"))
        other: list[Node] = []
        if end == "else":
            self.skip()
            if self.tokens and self.tokens[0][1] in ("if", "with"):
                other = [self.control(self.tokens.pop(0)[1])]
            else:
                other, _ = self.block(("end",))
        return (word, pipeline, body, other)

    def skip(self) -> bool:
        found = False
        while self.tokens and self.tokens[0][0] == "space":
            self.tokens.pop(0)
            found = True
        return found

    def pipeline(self, context: str, closing: str = "") -> Node:
        names, declares = self.declaration(context)
        commands = []
        while True:
            commands.append(self.command(closing))
            self.skip()
            if not self.tokens or self.tokens[0][0] != "|":
                break
            self.tokens.pop(0)
        if closing:
            if not self.tokens or self.tokens[0][0] != closing:
                raise self.fail("unclosed left paren")
            self.tokens.pop(0)
        elif self.tokens:
            raise self.fail(f'unexpected "{self.tokens[0][1]}" in {context or "command"}')
        return (commands, names, declares)

    def declaration(self, context: str) -> tuple[list[str], bool]:
        self.skip()
        rest = [token for token in self.tokens if token[0] != "space"]
        names = []
        while rest and rest[0][0] == "variable":
            names.append(rest.pop(0)[1])
            if rest and rest[0][0] == "," and context == "range":
                rest.pop(0)
                continue
            break
        if names and rest and rest[0][0] in (":=", "="):
            sign = rest[0]
            del self.tokens[: self.tokens.index(sign) + 1]
            return names, sign[0] == ":="
        return [], False

    def command(self, closing: str) -> list[Node]:
        operands: list[Node] = []
        while True:
            self.skip()
            if not self.tokens or self.tokens[0][0] in ("|", closing):
                break
            operands.append(self.operand())
        if not operands:
            raise self.fail("missing value for command")
        return operands

    def operand(self) -> Node:
        kind, value, position = self.tokens.pop(0)
        path: list[str] = []
        source = str(value)
        if kind == "literal":
            return ("literal", value)
        if kind == "word":
            if value in _WORDS:
                return ("literal", _WORDS[value])
            if value not in self.functions:
                raise self.fail(f'function "{value}" not defined')
            return ("function", value, position)
        if kind == "field":
            path, source, base = [value], f".{value}", None
        elif kind == "." or kind == "variable":
            base = value
            kind = "field" if kind == "." else "variable"
        elif kind == "(":
            base, kind, source = self.pipeline("", ")"), "group", "(...)"
        else:
            raise self.fail(f"unexpected {value!r} in operand".replace("'", '"'))
        first = True
        while self.tokens and self.tokens[0][0] == "field":
            _, name, where = self.tokens.pop(0)
            # Go reports a chain at its second field.
            position = where if first else position
            first = False
            path.append(name)
            source += f".{name}"
        return (kind, base, path, position, source)
