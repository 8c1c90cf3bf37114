"""Which test shows a fact.

A test shows a flag when it runs a command line with it, a parameter or filter when it asks for it, a field when it
sends it: the words stand in the test, in a table or function of its module that it names, or in a data file of its
directory that it names. Of several tests the one with the fewest words is the closest. data/proofs.tsv keeps what was
found for as long as it holds, so that a new test does not change the page.
"""

import ast
import functools
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from covered.derive import DATA
from wherry.cli import commands

_TESTS = Path(__file__).parents[1]
_PROOFS = DATA / "proofs.tsv"
# Nearest to a user first.
_ORDER = ("interop/", "system/", "unit/")
_VERBS = {"get": "GET", "post": "POST", "delete": "DELETE", "head": "HEAD", "put": "PUT"}


class Words:
    """What one test says."""

    def __init__(self) -> None:
        self.strings: set[str] = set()
        self.lines: list[tuple[str, ...]] = []  # command lines, without the program
        self.targets: list[tuple[str, str]] = []  # (method or "", path and query)

    @property
    def size(self) -> int:
        """How much it says: less is closer."""
        return len(self.strings)

    @functools.cached_property
    def lines_of(self) -> dict[tuple[str, ...], list[tuple[str, ...]]]:
        """Command lines by their first word, and by their first two."""
        found: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        for line in self.lines:
            for length in (1, 2):
                found.setdefault(line[:length], []).append(line)
        return found

    @functools.cached_property
    def flags(self) -> set[str]:
        """Every long flag, wherever it stands."""
        return {word.partition("=")[0] for line in self.lines for word in line if word.startswith("--")}

    @functools.cached_property
    def names(self) -> set[str]:
        """Every word of every string."""
        return {word for text in self.strings for word in re.findall(r"[A-Za-z0-9.-]+", text)}


@functools.cache
def tests() -> dict[str, Words]:
    """By "path::name", relative to tests/."""
    found: dict[str, Words] = {}
    for path in sorted(_TESTS.rglob("test_*.py")):
        place = path.relative_to(_TESTS).as_posix()
        if place.startswith(_ORDER) and path.parent != _TESTS / "unit" / "covered":
            module = _Module(path)
            for name in module.tests:
                found[f"{place}::{name}"] = module.words(name)
    return found


class _Module:
    def __init__(self, path: Path) -> None:
        self._directory = path.parent
        tree = ast.parse(path.read_text(encoding="utf-8"))
        self._nodes: dict[str, ast.AST] = {}
        self.tests: list[str] = []
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self._nodes[node.name] = node
                if node.name.startswith("test_"):
                    self.tests.append(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                self._nodes.update({target.id: node for target in targets if isinstance(target, ast.Name)})

    def words(self, name: str) -> Words:
        words, seen, todo = Words(), set[str](), [name]
        while todo:
            current = todo.pop()
            node = self._nodes.get(current)
            if node is None or current in seen or (current.startswith("test_") and current != name):
                continue
            seen.add(current)
            self._collect(node, words)
            todo += [inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)]
            todo += [inner.arg for inner in ast.walk(node) if isinstance(inner, ast.arg)]
        return words

    def _collect(self, node: ast.AST, words: Words) -> None:
        for inner in ast.walk(node):
            if isinstance(inner, ast.keyword) and inner.arg:
                words.strings.add(inner.arg)
            text = _text(inner)
            if text is not None:
                self._add_text(text, words)
            if isinstance(inner, ast.List | ast.Tuple):
                words.lines.append(tuple(filter(None, map(_text, inner.elts))))
            elif isinstance(inner, ast.Call):
                given = tuple(filter(None, map(_text, inner.args)))
                words.lines.append(given)
                words.targets += _targets(inner, given)

    def _add_text(self, text: str, words: Words) -> None:
        words.strings.add(text)
        if text.endswith((".tsv", ".txt", ".lines")) and (self._directory / text).is_file():
            text = (self._directory / text).read_text(encoding="utf-8")
        for line in text.splitlines():
            words.strings.add(line)
            words.lines.append(_split(line))
            if match := re.match(r"(GET|HEAD|POST|PUT|DELETE) (/\S*)", line):
                words.targets.append((match[1], match[2]))


def _split(line: str) -> tuple[str, ...]:
    try:
        parts = shlex.split(line)
    except ValueError:
        parts = line.split()
    if parts[:1] == ["$"]:
        parts = parts[1:]
    while "docker" in parts and parts[:1] != ["docker"]:
        parts = parts[1:]
    return tuple(parts[1:] if parts[:1] in (["docker"], ["wherry"]) else parts)


def _text(node: ast.AST) -> str | None:
    """A string's text; what an f-string fills in is {}."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bytes):
            return node.value.decode("latin-1")
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    if isinstance(node, ast.Starred):
        return None
    return None


def _targets(call: ast.Call, given: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    verb = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    method = _VERBS.get(verb, "")
    for text in given:
        if text in _VERBS.values():
            method = text
        elif text.startswith("/"):
            yield method, re.sub(r"^/v1\.\d+/", "/", text)
    if verb == "create" and any(keyword.arg == "Image" for keyword in call.keywords):
        yield "POST", "/containers/create"


@functools.cache
def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{[^}]*\\}", "[^/?]+", re.escape(path)) + r"(\?.*)?")


def shows_api(words: Words, kind: str, where: str, name: str) -> bool:
    """Whether a test shows a fact of data/api.tsv."""
    method, _, path = where.partition(" ")
    pattern = _pattern(path)
    hits = [
        match[1] or "" for verb, text in words.targets if verb in ("", method) and (match := pattern.fullmatch(text))
    ]
    if kind == "endpoint" or not hits:
        return bool(hits)
    if kind == "query":
        return any(re.search(rf"[?&]{re.escape(name)}\b", query) for query in hits)
    if kind == "filter":
        return name in words.names and any("filters" in query for query in hits)
    if kind == "header":
        return name in words.names
    # The field and the one that holds it: names like Type alone are too common.
    return words.strings.issuperset(name.split(".")[-2:])


@functools.cache
def _names(command: str) -> list[tuple[str, ...]]:
    return [tuple(name.split()) for name in {command, *commands.other_names(command)}]


def shows_cli(words: Words, command: str, flag: str, short: str) -> bool:
    """Whether a test runs a command with a flag (or, without one, at all)."""
    lines = [line for name in _names(command) for line in words.lines_of.get(name, ())]
    if not lines or not flag:
        return bool(lines)
    return flag in words.flags or (bool(short) and any(_has(line, short[1]) for line in lines))


def _has(line: Iterable[str], letter: str) -> bool:
    return any(letter in word[1:] for word in line if re.fullmatch(r"-[A-Za-z]+", word))


def choose(facts: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """The test that shows each fact, for those that have one; what was chosen before stays while it holds."""
    kept = valid()
    chosen = {}
    for fact in facts:
        if fact in kept:
            chosen[fact] = kept[fact]
            continue
        found = [(_rank(name, words), name) for name, words in tests().items() if _shows(words, fact)]
        if found:
            chosen[fact] = min(found)[1]
    return chosen


def _rank(name: str, words: Words) -> tuple[int, int]:
    return next(index for index, place in enumerate(_ORDER) if name.startswith(place)), words.size


def _shows(words: Words, fact: tuple[str, ...]) -> bool:
    if fact[0] == "cli":
        # The flags of both are one table.
        also = {"run": "create", "create": "run"}.get(fact[1]) if fact[2] else None
        return shows_cli(words, *fact[1:]) or (also is not None and shows_cli(words, also, *fact[2:]))
    return shows_api(words, fact[0], fact[1], fact[2])


def valid() -> dict[tuple[str, ...], str]:
    """What was chosen before and still holds."""
    return {fact: name for fact, name in read().items() if name in tests() and _shows(tests()[name], fact)}


def read() -> dict[tuple[str, ...], str]:
    """The choice that is kept."""
    if not _PROOFS.exists():
        return {}
    rows = (line.split("\t") for line in _PROOFS.read_text(encoding="utf-8").splitlines())
    return {tuple(row[:-1]): row[-1] for row in rows}


def write(chosen: dict[tuple[str, ...], str]) -> None:
    """Keep a choice."""
    lines = ("\t".join((*fact, test)) + "\n" for fact, test in chosen.items())
    _PROOFS.write_text("".join(lines), encoding="utf-8")
