"""What the code does with a fact, read from the code: the router's routes, the documents it decodes, flag tables.

- an endpoint is done when a route answers it, refused when its handler does nothing but raise Unimplemented;
- a query parameter or header is done when the handler, or a function of the API room that it calls, gives it to a call;
- a body field is done when it is decoded and its attribute is used outside of the place that checks and refuses,
  refused when it is used there only, kept when it is stored and shown by `inspect` without any effect;
- a flag is done when it is in the command's table, refused when the table gives the reason.
"""

import ast
import functools
import importlib
import inspect
import re
import types
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import wherry
from wherry.api import server
from wherry.api.router import Route
from wherry.cli import commands
from wherry.spec.decode import json_keys

DONE, REFUSED, KEPT, MISSING = "done", "refused", "kept", "not done"

_ROOT = Path(wherry.__file__).parent
# Where fields are only checked: being named there alone means that the field is refused.
_CHECKS = ("engine/validation.py",)
# Whose words the values of `filters` are, by endpoint.
_FILTERS = {
    "GET /containers/json": ("wherry.engine.filters",),
    "POST /containers/prune": ("wherry.engine.prune",),
    "GET /events": ("wherry.engine.events",),
    "GET /images/json": ("wherry.api.images", "wherry.images"),
    "POST /images/prune": ("wherry.api.images",),
    "GET /volumes": ("wherry.volumes",),
    "POST /volumes/prune": ("wherry.volumes",),
    "GET /networks": ("wherry.api.networks",),
    "POST /networks/prune": ("wherry.api.networks",),
}


def plain(path: str) -> str:
    """A path whose parameters have no names, for the specification's names differ from ours."""
    return re.sub(r"\{[^}]*\}", "{}", path)


@functools.cache
def routes() -> dict[str, Route]:
    """By "METHOD /path"."""
    found = [route for module in server._MODULES for route in module.ROUTES]
    return {f"{route.method} {plain(route.pattern)}": route for route in found}


def endpoint(name: str) -> str:
    """The status of "METHOD /path"."""
    route = routes().get(plain(name))
    if route is None:
        return MISSING
    return REFUSED if _only_refuses(route.handler) else DONE


def _only_refuses(handler: Any) -> bool:
    return handler.__module__ == "wherry.api.unsupported" and not {"Unimplemented", "Unavailable"}.isdisjoint(
        handler.__code__.co_names
    )


def api(kind: str, where: str, name: str) -> str:
    """The status of one fact of data/api.tsv."""
    status = endpoint(where)
    if kind == "endpoint" or status != DONE:
        return status
    if kind == "filter":
        return _filter(where, name)
    reach = _reach(routes()[plain(where)].handler)
    if kind == "body":
        return _field(reach, name.split("."))
    return DONE if name in reach.named or (name == "filters" and "filters" in reach.called) else MISSING


def _filter(where: str, name: str) -> str:
    for place in _FILTERS.get(plain(where), ()):
        module = importlib.import_module(place)
        path = Path(str(module.__file__))
        sources = path.parent.rglob("*.py") if path.name == "__init__.py" else [path]
        if any(name in _strings(source) for source in sources):
            return DONE
    return MISSING


@functools.cache
def _strings(path: Path) -> frozenset[str]:
    """Every word of every string of a module."""
    constants = (node.value for node in ast.walk(_tree(path)) if isinstance(node, ast.Constant))
    return frozenset(word for value in constants if isinstance(value, str) for word in (value, *value.split()))


class _Reach:
    """What a handler, and the functions and classes of the API room that it names, say."""

    def __init__(self) -> None:
        self.named: set[str] = set()  # strings given to a call, or looked for with `in`
        self.called: set[str] = set()  # names of methods called
        self.documents: list[type] = []  # what bodies are decoded into


@functools.cache
def _reach(handler: Any) -> _Reach:
    found = _Reach()
    seen: set[Any] = set()
    todo = [handler]
    while todo:
        thing = todo.pop()
        if thing in seen or not getattr(thing, "__module__", "").startswith("wherry.api."):
            continue
        seen.add(thing)
        names = _read(thing, found)
        scope = vars(importlib.import_module(thing.__module__))
        for name in names:
            value = scope.get(name)
            if is_dataclass(value) and isinstance(value, type):
                found.documents.append(value)
            elif isinstance(value, types.FunctionType | type):
                todo.append(value)
            elif isinstance(value, tuple | frozenset | dict):
                found.named.update(word for word in value if isinstance(word, str))
    return found


def _read(thing: Any, found: _Reach) -> set[str]:
    source = inspect.getsourcefile(thing)
    assert source is not None
    tree = _definitions(Path(source)).get(thing.__name__)
    names = set()
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Call):
            found.named.update(_words([*node.args, *(keyword.value for keyword in node.keywords)]))
            if isinstance(node.func, ast.Attribute):
                found.called.add(node.func.attr)
        elif isinstance(node, ast.Compare):
            found.named.update(_words([node.left]))
        elif isinstance(node, ast.Subscript):
            found.named.update(_words([node.slice]))
    return names


def _words(nodes: list[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@functools.cache
def _definitions(path: Path) -> dict[str, ast.AST]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name: node for node in ast.walk(_tree(path)) if isinstance(node, kinds)}


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _field(reach: _Reach, path: list[str]) -> str:
    statuses = [status for document in reach.documents if (status := _document_field(document, path))]
    for status in (DONE, REFUSED, KEPT):
        if status in statuses:
            return status
    return DONE if len(path) == 1 and path[0] in reach.named else MISSING


def _document_field(document: type, path: list[str]) -> str:
    """Nothing when the document has no such field."""
    attributes = {name: attribute for attribute, name in json_keys(document).items()}
    attribute = attributes.get(path[0])
    if attribute is None:
        return ""
    used, checked = _attributes()
    refused = path[0] in _refused_names() or (attribute in checked and attribute not in used)
    if refused or len(path) == 1:
        return REFUSED if refused else DONE if attribute in used else KEPT
    inner = _inner(get_type_hints(document)[attribute])
    return next((status for kind in inner if (status := _document_field(kind, path[1:]))), "")


@functools.cache
def _refused_names() -> set[str]:
    """Names of fields in the tables (dictionaries) of the functions that refuse."""
    tables = (
        node
        for place in _CHECKS
        for name, function in _definitions(_ROOT / place).items()
        if name.startswith("_refuse")
        for node in ast.walk(function)
        if isinstance(node, ast.Dict)
    )
    return {str(key.value) for table in tables for key in table.keys if isinstance(key, ast.Constant)}


def _inner(annotation: Any) -> Iterator[type]:
    """The documents inside of an annotation."""
    if is_dataclass(annotation) and isinstance(annotation, type):
        yield annotation
    for argument in get_args(annotation):
        yield from _inner(argument)


@functools.cache
def _attributes() -> tuple[set[str], set[str]]:
    """(attributes read anywhere in the engine's side, attributes read by the checks)."""
    used: set[str] = set()
    checked: set[str] = set()
    for path in _ROOT.rglob("*.py"):
        place = path.relative_to(_ROOT).as_posix()
        if place.startswith(("cli/", "client/", "spec/")):
            continue
        target = checked if place in _CHECKS else used
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                target.add(node.attr)
    return used, checked


def cli(command: str, flag: str) -> str:
    """The status of one row of data/cli.tsv; `flag` with its dashes, or ""."""
    target = commands.resolve(command)
    if not target:
        return REFUSED if command in commands.NOT_YET or command.split()[0] in commands.NOT_YET else MISSING
    if not flag or flag == "--help":
        return DONE
    module = importlib.import_module(f"wherry.cli.{commands.TABLE[target][0]}")
    found = module.COMMANDS[target]
    name = flag.removeprefix("--")
    if name in found.refuse:
        return REFUSED
    return DONE if name in found.aliases or any(name == known[0] for known in found.flags) else MISSING
