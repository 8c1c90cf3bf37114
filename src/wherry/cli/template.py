"""A subset of Go's text/template, as docker's --format needs it: actions, pipelines, variables, if, range, with.

`parse` gives a tree of tuples, `Template.render` walks it. Data are JSON values, or
objects with `fields`: the names of those of their methods that templates may use; `type_name` is Go's, for errors.
"""

from __future__ import annotations

from wherry.cli.template_functions import FUNCTIONS, TemplateError, show, truth
from wherry.cli.template_parse import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from wherry.cli.template_parse import Node

# Fields which Go's types have and JSON leaves out when empty: absent is nil, not an error.
_OPTIONAL = (
    "Health Healthcheck ExposedPorts Mounts SizeRw SizeRootFs Tmpfs Sysctls Init Annotations "
    "StorageOpt StopTimeout StopSignal Shell MacAddress ArgsEscaped NetworkDisabled GraphDriver "
    "DockerVersion Container ContainerConfig Variant Author Comment Parent UsageData Status "
    "ClusterVolume Labels Options CreatedAt ImageManifestDescriptor OsVersion Identity Descriptor "
    "Manifests Swarm Warnings"
)
OPTIONAL = frozenset(_OPTIONAL.split())
# Where Go's name of a field and JSON's key are not the same word.
_KEYS_OF_FIELDS = {"APIVersion": "ApiVersion", "ID": "Id"}


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class Template:
    def __init__(self, source: str, functions: Mapping[str, Callable[..., Any]] | None = None) -> None:
        """Raises TemplateError when the source is not a template."""
        self._functions = {**FUNCTIONS, **(functions or {})}
        self._nodes = parse(source, self._functions)

    def render(self, data: Any) -> str:
        out: list[str] = []
        self._walk(self._nodes, data, [{"$": data}], out)
        return "".join(out)

    def _walk(self, nodes: list[Node], dot: Any, scopes: list[dict[str, Any]], out: list[str]) -> None:
        for node in nodes:
            kind = node[0]
            if kind == "text":
                out.append(node[1])
            elif kind == "action":
                value = self._pipeline(node[1], dot, scopes)
                if not node[1][1]:
                    out.append("<no value>" if value is None else show(value))
            elif kind == "if" or kind == "with":
                self._branch(node, dot, scopes, out)
            elif kind == "range":
                self._range(node, dot, scopes, out)
            elif kind == "break":
                raise _Break
            else:
                raise _Continue

    def _branch(self, node: Node, dot: Any, scopes: list[dict[str, Any]], out: list[str]) -> None:
        _, pipeline, body, other = node
        inner = [*scopes, {}]
        value = self._pipeline(pipeline, dot, inner)
        if truth(value):
            self._walk(body, value if node[0] == "with" else dot, inner, out)
        else:
            self._walk(other, dot, inner, out)

    def _range(self, node: Node, dot: Any, scopes: list[dict[str, Any]], out: list[str]) -> None:
        _, (commands, names, _), body, other = node
        value = self._pipeline((commands, [], False), dot, scopes)
        pairs: list[tuple[Any, Any]]
        if isinstance(value, dict):
            pairs = sorted(value.items())
        elif isinstance(value, int) and not isinstance(value, bool):
            pairs = [(index, index) for index in range(value)]
        elif value is None or isinstance(value, list | tuple):
            pairs = list(enumerate(value or ()))
        else:
            raise TemplateError(f"range can't iterate over {show(value)}")
        if not pairs:
            self._walk(other, dot, [*scopes, {}], out)
        for key, item in pairs:
            scope = {names[0]: item} if len(names) == 1 else dict(zip(names, (key, item), strict=False))
            try:
                self._walk(body, item, [*scopes, scope], out)
            except _Continue:
                continue
            except _Break:
                break

    def _pipeline(self, pipeline: Node, dot: Any, scopes: list[dict[str, Any]]) -> Any:
        commands, names, declares = pipeline
        value: Any = None
        for index, command in enumerate(commands):
            value = self._command(command, dot, scopes, [value] if index else [])
        for name in names:
            if declares:
                scopes[-1][name] = value
            else:
                next(scope for scope in reversed(scopes) if name in scope)[name] = value
        return value

    def _command(self, operands: list[Node], dot: Any, scopes: list[dict[str, Any]], final: list[Any]) -> Any:
        first = operands[0]
        if first[0] == "function":
            name, position = first[1], first[2]
            if name in ("and", "or"):
                return self._short_circuit(name, operands[1:], dot, scopes, final)
            arguments = [self._operand(operand, dot, scopes, []) for operand in operands[1:]] + final
            try:
                return self._functions[name](*arguments)
            except TypeError as error:
                text = str(error)
                what = f"wrong number of args for {name}" if "argument" in text else f"error calling {name}: {text}"
                raise TemplateError(f'template: :{position}: executing "" at <{name}>: {what}') from None
        arguments = [self._operand(operand, dot, scopes, []) for operand in operands[1:]] + final
        return self._operand(first, dot, scopes, arguments)

    def _short_circuit(
        self, name: str, operands: list[Node], dot: Any, scopes: list[dict[str, Any]], final: list[Any]
    ) -> Any:
        value: Any = None
        for operand in operands:
            value = self._operand(operand, dot, scopes, [])
            if truth(value) == (name == "or"):
                return value
        return final[0] if final else value

    def _operand(self, node: Node, dot: Any, scopes: list[dict[str, Any]], arguments: list[Any]) -> Any:
        kind = node[0]
        if kind == "literal":
            return node[1]
        if kind == "function":
            return self._command([node], dot, scopes, arguments)
        _, base, path, position, source = node
        if kind == "field":
            value = dot
        elif kind == "variable":
            value = next((scope[base] for scope in reversed(scopes) if base in scope), None)
        else:
            value = self._pipeline(base, dot, scopes)
        for index, name in enumerate(path):
            last = index == len(path) - 1
            value = self._field(
                value, name, arguments if last else [], f'template: :{position}: executing "" at <{source}>'
            )
        return value

    def _field(self, value: Any, name: str, arguments: list[Any], where: str) -> Any:
        fields = getattr(value, "fields", None)
        if fields is not None:
            if name not in fields:
                raise TemplateError(f"{where}: can't evaluate field {name} in type {value.type_name}")
            return getattr(value, name)(*arguments)
        if arguments:
            raise TemplateError(f"{where}: {name} has arguments but cannot be invoked as function")
        if isinstance(value, dict):
            # Templates name Go's fields, documents JSON's keys; nearly everywhere they are the same word.
            name = name if name in value else _KEYS_OF_FIELDS.get(name, name)
            if name not in value:
                if name in OPTIONAL:
                    return None
                raise TemplateError(f'{where}: map has no entry for key "{name}"')
            return value[name]
        if value is None:
            raise TemplateError(f"{where}: nil data; no entry for key {name!r}".replace("'", '"'))
        raise TemplateError(f"{where}: can't evaluate field {name} in type {type(value).__name__}")
