"""Facts out of the specifications: names of endpoints, parameters, body fields, filters, commands and flags."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Document = dict[str, Any]

DATA = Path(__file__).parent / "data"
METHODS = ("get", "head", "post", "put", "delete")
_FILTER = re.compile(r"^\s*- `([a-z][a-z.-]*)", re.MULTILINE)
# A response's schema keeps these of the swagger file, and nothing of its prose.
_KEPT = ("type", "format", "enum", "required", "x-nullable")
_BODY_DEPTH = 6


def api_facts(spec: Document) -> Iterator[tuple[str, str, str]]:
    """(kind, "METHOD /path", name) for each endpoint; kinds: endpoint (its name is its tag), query, filter, body."""
    for path, operations in spec["paths"].items():
        for method in METHODS:
            operation = operations.get(method)
            if operation is None:
                continue
            endpoint = f"{method.upper()} {path}"
            yield "endpoint", endpoint, (operation.get("tags") or ["System"])[0]
            for parameter in operation.get("parameters", ()):
                yield from _parameter_facts(spec, endpoint, parameter)


def _parameter_facts(spec: Document, endpoint: str, parameter: Document) -> Iterator[tuple[str, str, str]]:
    if parameter["in"] == "query":
        yield "query", endpoint, parameter["name"]
        if parameter["name"] == "filters":
            for name in dict.fromkeys(_FILTER.findall(parameter["description"])):
                yield "filter", endpoint, name
    elif parameter["in"] == "header":
        yield "header", endpoint, parameter["name"]
    elif parameter["in"] == "body":
        for name in dict.fromkeys(_fields(spec, parameter["schema"], _BODY_DEPTH)):
            yield "body", endpoint, name


def _fields(spec: Document, schema: Document, depth: int) -> Iterator[str]:
    """Dotted names of a document's fields; lists and maps are looked through."""
    if "$ref" in schema:
        schema = _resolve(spec, schema)
    for part in schema.get("allOf", ()):
        yield from _fields(spec, part, depth)
    for name, inner in (schema.get("properties") or {}).items():
        yield name
        if depth:
            yield from (f"{name}.{rest}" for rest in _fields(spec, inner, depth - 1))
    for inner in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inner, dict) and depth:
            yield from _fields(spec, inner, depth - 1)


def _resolve(spec: Document, schema: Document) -> Document:
    found: Document = spec["definitions"][schema["$ref"].rpartition("/")[2]]
    return found


def cli_facts(cli: Document) -> Iterator[tuple[str, str, str, str]]:
    """(command, flag, shorthand, type); a command itself has no flag. One name per command: the shortest."""
    seen = set()
    for full, command in cli.items():
        names = [full, *command["aliases"]]
        name = min(names, key=lambda text: (text.count(" "), len(text), text)).removeprefix("docker").strip()
        if name in seen or command["subcommands"]:
            continue
        seen.add(name)
        yield name, "", "", ""
        for flag in command["flags"]:
            yield name, flag["name"], flag["shorthand"] or "", flag["type"]


def schema(spec: Document) -> Document:
    """What answers look like: {"paths": {"GET /x": {"200": schema}}, "definitions": {...}} with only what is used."""
    wanted: set[str] = set()
    paths: Document = {}
    for path, operations in spec["paths"].items():
        for method, operation in operations.items():
            if method in METHODS:
                answers = {
                    status: _shrink(answer["schema"], wanted)
                    for status, answer in operation["responses"].items()
                    if "schema" in answer and int(status) < 300
                }
                paths[f"{method.upper()} {path}"] = {
                    **dict.fromkeys((status for status in operation["responses"] if int(status) < 400), None),
                    **answers,
                }
    definitions: Document = {}
    wanted.add("ErrorResponse")
    while missing := wanted - definitions.keys():
        for name in sorted(missing):
            definitions[name] = _shrink(spec["definitions"][name], wanted)
    return {"paths": paths, "definitions": dict(sorted(definitions.items()))}


def _shrink(node: Document, wanted: set[str]) -> Document:
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        wanted.add(name)
        return {"$ref": name}
    kept: Document = {key: node[key] for key in _KEPT if key in node}
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            kept[key] = _shrink(node[key], wanted)
    if "properties" in node:
        kept["properties"] = {name: _shrink(inner, wanted) for name, inner in node["properties"].items()}
    if "allOf" in node:
        kept["allOf"] = [_shrink(inner, wanted) for inner in node["allOf"]]
    return kept


def write(specifications: Path) -> None:
    """Derive every file of `data` from a directory of specifications."""
    import yaml

    spec, newest = (
        yaml.load((specifications / f"docker-engine-api/v{version}.yaml").read_bytes(), Loader=yaml.CSafeLoader)
        for version in ("1.50", "1.56")
    )
    cli = json.loads((specifications / "cli/cli.json").read_text(encoding="utf-8"))
    _write("api.tsv", api_facts(spec))
    _write("cli.tsv", cli_facts(cli))
    old, new = schema(spec), schema(newest)
    changed = {key: {name: node for name, node in new[key].items() if old[key].get(name) != node} for key in old}
    lines = (f"{json.dumps(name)}:{_lines(part)}" for name, part in (("1.50", old), ("newest", changed)))
    (DATA / "schema.json").write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")


def _lines(document: Document) -> str:
    """JSON with a line for each path and definition, so that a change of the specification can be read."""
    parts = []
    for key, members in document.items():
        rows = (f"{json.dumps(name)}:{json.dumps(node, separators=(',', ':'))}" for name, node in members.items())
        parts.append(f"{json.dumps(key)}:{{\n" + ",\n".join(rows) + "}")
    return "{" + ",\n".join(parts) + "}"


def _write(name: str, rows: Any) -> None:
    (DATA / name).write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
