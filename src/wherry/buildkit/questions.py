"""Questions about a Dockerfile instead of a build (`docker build --call`): its checks, targets, arguments."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wherry.build.checks import Finding
from wherry.build.dockerfile import Dockerfile, Source
from wherry.build.dockerfile.instructions import Arg, Instruction, Run, Transfer
from wherry.build.dockerfile.mounts import Mount, parse_mount
from wherry.build.dockerfile.parse import Stage
from wherry.build.dockerfile.source import DockerfileError, Span, suggestion
from wherry.build.dockerfile.words import ExpansionError, Words
from wherry.errors import Unimplemented

LINT, OUTLINE, TARGETS, DESCRIBE = (
    "frontend.lint",
    "frontend.outline",
    "frontend.targets",
    "frontend.subrequests.describe",
)
KNOWN = (LINT, OUTLINE, TARGETS, DESCRIBE)
_VERSION = b"1.0.0"
_DESCRIPTIONS = (
    (OUTLINE, "List all parameters current build target supports"),
    (TARGETS, "List all targets current build supports"),
    (DESCRIBE, "List available subrequest types"),
)
Answer = Mapping[str, bytes]


def check_known(question: str) -> None:
    if question not in KNOWN:
        known = ", ".join(KNOWN)
        raise Unimplemented(f"unsupported request {question}", object=question, hint=f"there are {known}")


def describe() -> Answer:
    """Which questions there are."""
    found: list[dict[str, Any]] = [
        {"name": name, "version": "1.0.0", "type": "rpc", "description": text, "opts": None, "inputs": None}
        | {"metadata": [{"name": "result.json"}, {"name": "result.txt"}], "refs": None}
        for name, text in _DESCRIPTIONS
    ]
    rows = [("NAME", "VERSION", "DESCRIPTION")]
    rows += [(name.removeprefix("frontend."), "1.0.0", text) for name, text in _DESCRIPTIONS]
    return _answer(found, _table(rows))


def lint(source: Source, findings: Sequence[Finding], error: DockerfileError | None) -> Answer:
    """The checks' findings, and what would keep the file from being built."""
    warnings = [
        {
            "ruleName": one.rule,
            "description": one.description,
            "url": one.url,
            "detail": one.message,
            "location": _location(one.span),
        }
        for one in findings
    ]
    data = base64.b64encode(source.text.encode("utf-8", "replace")).decode()
    document: dict[str, Any] = {
        "warnings": warnings,
        "sources": [{"filename": source.name, "data": data, "language": "Dockerfile"}],
    }
    text = "".join(f"\nWARNING: {one.rule} - {one.url}\n{one.message}\n" for one in findings)
    if error is not None:
        document["buildError"] = {"message": str(error), "location": _location(error.span)}
        text += f"\nERROR: {error}\n{error.excerpt()}\n"
    answer = dict(_answer(document, text))
    if findings or error is not None:
        answer["result.statuscode"] = b"1"
    return answer


def targets(dockerfile: Dockerfile) -> Answer:
    """The stages."""
    found = []
    rows = [("TARGET", "DESCRIPTION")]
    for stage in dockerfile.stages:
        last = stage is dockerfile.stages[-1]
        entry: dict[str, Any] = {"name": stage.base.stage} if stage.base.stage else {}
        if last:
            entry["default"] = True
        description = _description(stage.base, stage.base.stage)
        if description:
            entry["description"] = description
        entry |= {"base": stage.base.image, "location": _location(stage.base.span)}
        if stage.base.platform:
            entry["platform"] = stage.base.platform
        found.append(entry)
        rows.append((" ".join(filter(None, (stage.base.stage, "(default)" if last else ""))), description))
    return _answer({"targets": found, "sources": _sources(dockerfile)}, _table(rows))


def outline(dockerfile: Dockerfile, target: str, given: Mapping[str, str]) -> Answer:
    """What a target takes: arguments, secrets, agents."""
    stage = dockerfile.stage(target) if target else dockerfile.stages[-1]
    if stage is None:
        known = [other.base.stage for other in dockerfile.stages if other.base.stage]
        message = f'target stage "{target}" could not be found{suggestion(target, known)}'
        raise DockerfileError(message, dockerfile.source, dockerfile.stages[-1].base.span)
    stages = _reachable(dockerfile, stage)
    mounts = [(mount, step.span) for one in stages for step in one.instructions for mount in _mounts(step)]
    words = {"name": stage.base.stage, "description": _description(stage.base, stage.base.stage)}
    document: dict[str, Any] = {field: value for field, value in words.items() if value}
    arguments = _arguments(dockerfile, stages, given)
    if arguments:
        document["args"] = arguments
    rows = [("BUILD ARG", "VALUE", "DESCRIPTION")]
    rows += [(one["name"], one.get("value", ""), one.get("description", "")) for one in arguments]
    text = _table(rows)
    for field, kind in (("secrets", "secret"), ("ssh", "ssh")):
        found = _mounted(mounts, kind)
        if found:
            document[field] = found
            table = [
                (kind.upper(), "REQUIRED"),
                *((one["name"], "true" if one.get("required") else "") for one in found),
            ]
            text += "\n" + _table(table)
    return _answer(document | {"sources": _sources(dockerfile)}, text)


def _reachable(dockerfile: Dockerfile, target: Stage) -> list[Stage]:
    """The stages a target needs, in the order of the file."""
    needed: set[int] = set()
    waiting = [target]
    while waiting:
        stage = waiting.pop()
        if stage.index in needed:
            continue
        needed.add(stage.index)
        names = [stage.base.image]
        for step in stage.instructions:
            if isinstance(step, Transfer) and step.origin:
                names.append(step.origin)
            names += [mount.origin for mount in _mounts(step) if mount.origin]
        found = (dockerfile.stage(name) for name in names)
        waiting += [other for other in found if other is not None and other.index < stage.index]
    return [stage for stage in dockerfile.stages if stage.index in needed]


def _mounts(step: Instruction) -> Iterator[Mount]:
    if isinstance(step, Run):
        for text in step.mounts:
            try:
                yield parse_mount(text)
            except ValueError:
                continue


def _mounted(mounts: Sequence[tuple[Mount, Span]], kind: str) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for mount, span in mounts:
        if mount.type == kind:
            entry = found.setdefault(mount.id or "default", {"name": mount.id or "default"})
            if mount.required:
                entry["required"] = True
            entry.setdefault("location", _location(span))
    return list(found.values())


def _arguments(dockerfile: Dockerfile, stages: Sequence[Stage], given: Mapping[str, str]) -> list[dict[str, Any]]:
    words = Words(dockerfile.directives.escape)
    outer: dict[str, str] = {}
    found: dict[str, dict[str, Any]] = {}
    local = [step for stage in stages for step in stage.instructions if isinstance(step, Arg)]
    known = outer
    for step in (*dockerfile.arguments, *local):
        if known is outer and step not in dockerfile.arguments:
            # What is declared above the stages is known in one only where it is declared again.
            known = {}
        for name, default in step.values:
            value = given.get(name)
            if value is None and default is not None:
                try:
                    value = words.expand(default, known)
                except ExpansionError:
                    value = default
            if value is None:
                value = outer.get(name)
            if value is not None:
                known[name] = value
            entry: dict[str, Any] = {"name": name}
            description = _description(step, name)
            if description:
                entry["description"] = description
            if value is not None:
                entry["value"] = value
            found.setdefault(name, entry | {"location": _location(step.span)})
    return list(found.values())


def _description(step: Instruction, name: str) -> str:
    """Of the comment above that begins with the name."""
    for comment in reversed(step.statement.comments):
        word, _, text = comment.partition(" ")
        if name and word == name:
            return text.strip()
    return ""


def _location(span: Span) -> dict[str, Any]:
    return {"ranges": [{"start": {"line": span.start}, "end": {"line": span.end}}]}


def _sources(dockerfile: Dockerfile) -> list[str]:
    return [base64.b64encode(dockerfile.source.text.encode("utf-8", "replace")).decode()]


def _answer(document: Any, text: str) -> Answer:
    return {
        "result.json": json.dumps(document, indent=2).encode(),
        "result.txt": text.encode("utf-8", "replace"),
        "version": _VERSION,
    }


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) + 3 for column in range(len(rows[0]) - 1)]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + row[-1] + "\n" for row in rows
    )
