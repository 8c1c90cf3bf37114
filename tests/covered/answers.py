"""Answers against the API's own schema: what the tests' HTTP client does with every answer it gets.

The schema is Docker's swagger file, of 1.50 and of the newest version, cut down to names and types. It was written for
documentation: what dockerd itself sends beyond it is listed here, with its reason.
"""

import functools
import json
import re
from typing import Any

from covered.derive import DATA

Node = dict[str, Any]

# Go's encoder writes null for a nil slice, map or pointer, whatever the schema says.
_NULLABLE = ("array", "object")
# Sent by dockerd and absent from its schema.
_EXTRA = {
    # Kept for clients older than 1.22.
    "EventMessage": {"status", "id", "from"},
    # Always empty in the list: to dockerd before 1.52 list and inspect were one document.
    "Network": {"Containers"},
    # Wherry's own: --health-on-failure.
    "HealthConfig": {"OnFailure"},
}
# Pointers to scalars, null when not given, which the schema does not mark.
_UNSET = {"ExitCode", "MemorySwappiness", "OomKillDisable", "PidsLimit", "Init", "StopTimeout"}
_NUMBERS: dict[str, tuple[type, ...]] = {"integer": (int,), "number": (int, float)}
_KINDS: dict[str, tuple[type, ...]] = {"string": (str,), "boolean": (bool,), "array": (list,), "object": (dict,)}


@functools.cache
def schema(newest: bool) -> Node:
    """Schemas of 1.50, or of the newest version."""
    found: Node = json.loads((DATA / "schema.json").read_text(encoding="utf-8"))
    base: Node = found["1.50"]
    return {key: {**base[key], **found["newest"][key]} for key in base} if newest else base


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], str, str]]:
    """(what matches a path, the method, the operation), those with the fewest parameters first."""
    operations = sorted(schema(True)["paths"], key=lambda operation: (operation.count("{"), operation))
    return [
        (
            re.compile(re.sub(r"\\{[^}]*\\}", "(.+)" if "images" in path else "[^/]+", re.escape(path))),
            method,
            operation,
        )
        for operation in operations
        for method, _, path in [operation.partition(" ")]
    ]


def operation(method: str, target: str) -> str | None:
    """The schema's name of what a request asks for, None when it is nothing of the API."""
    path = re.sub(r"^/v1\.\d+(?=/)", "", target.partition("?")[0])
    return next((name for pattern, verb, name in _patterns() if verb == method and pattern.fullmatch(path)), None)


def complaints(method: str, target: str, status: int, headers: Any, body: bytes) -> list[str]:
    """What is wrong with an answer."""
    name = operation(method, target)
    if name is None:
        return []
    version = re.match(r"/v1\.(\d+)/", target)
    newest = int(version[1] if version else (headers.get("Api-Version") or "1.50").partition(".")[2]) >= 52
    checker = _Checker(schema(newest))
    where = f"{method} {target.partition('?')[0]}: {status}"
    if status >= 400:
        return [f"{where}: {text}" for text in checker.error(headers, body)]
    answers = schema(newest)["paths"][name]
    if str(status) not in answers and status != 101:
        return [f"{where} is not among {', '.join(answers)}"]
    shape = answers.get(str(status))
    if shape is None or method == "HEAD" or "json" not in (headers.get("Content-Type") or ""):
        return []
    return [f"{where}: {text}" for text in checker.body(shape, body)]


class _Checker:
    def __init__(self, schema: Node) -> None:
        self._definitions: Node = schema["definitions"]
        self._found: list[str] = []

    def error(self, headers: Any, body: bytes) -> list[str]:
        """An error is a JSON document with one member."""
        if not body:
            return []
        if "application/json" not in (headers.get("Content-Type") or ""):
            return [f"an error of type {headers.get('Content-Type')}"]
        self._check({"$ref": "ErrorResponse"}, json.loads(body), "")
        text = body.decode(errors="replace")
        if "Traceback" in text or "internal error" in text or re.search(r"\b[A-Z]\w+Error\b\(", text):
            self._found.append(f"a fault of ours: {text[:300]}")
        return self._found

    def body(self, shape: Node, body: bytes) -> list[str]:
        """One document, or a stream of them."""
        try:
            documents = [json.loads(body)]
        except ValueError:
            documents = [json.loads(line) for line in body.splitlines() if line.strip()]
        for document in documents:
            self._check(shape, document, "")
        return self._found

    def _check(self, shape: Node, value: Any, path: str) -> None:
        name = ""
        if "$ref" in shape:
            name = shape["$ref"]
            shape = self._definitions[name]
        if value is None:
            unset = path.rpartition(".")[2] in _UNSET
            if not (unset or shape.get("x-nullable") or self._kind(shape) in _NULLABLE or not self._kind(shape)):
                self._found.append(f"{path} is null")
            return
        kind = self._kind(shape)
        parts = shape.get("allOf", ())
        if kind == "object" and len(parts) == 1 and "properties" not in shape:
            self._check(parts[0], value, path)
            return
        if kind in _NUMBERS or kind in _KINDS:
            wanted = (_NUMBERS | _KINDS)[kind]
            if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "boolean"):
                self._found.append(f"{path} is no {kind}: {value!r:.80}")
                return
        if "enum" in shape and value not in shape["enum"] and value != "":
            self._found.append(f"{path} is none of {shape['enum']}: {value!r:.80}")
        if kind == "array":
            for index, item in enumerate(value):
                self._check(shape.get("items", {}), item, f"{path}[{index}]")
        elif kind == "object":
            self._members(shape, name, value, path)

    def _kind(self, shape: Node) -> str:
        found = shape.get("type") or ("object" if "properties" in shape or "allOf" in shape else "")
        return str(found)

    def _members(self, shape: Node, name: str, value: Node, path: str) -> None:
        properties, required, free = self._gather(shape)
        self._found += [f"{path} lacks {key}" for key in sorted(required - value.keys())]
        for key, inner in value.items():
            if key in properties:
                self._check(properties[key], inner, f"{path}.{key}")
            elif isinstance(free, dict):
                self._check(free, inner, f"{path}.{key}")
            elif properties and key not in _EXTRA.get(name, ()):
                self._found.append(f"{path or name} has {key}, which the schema does not know")

    def _gather(self, shape: Node) -> tuple[Node, set[str], Any]:
        properties = dict(shape.get("properties", {}))
        required, free = set(shape.get("required", ())), shape.get("additionalProperties")
        for part in shape.get("allOf", ()):
            inner, more, other = self._gather(self._definitions[part["$ref"]] if "$ref" in part else part)
            properties |= inner
            required |= more
            free = free or other
        return properties, required, free
