"""Tags: the templates of option `tag`, as far as docker's documentation shows them.

{{.Name}}/{{.ID}}    {{ .ImageName | lower }}    {{ truncate .FullID 8 }}    {{ (.ExtraAttributes nil).SWARM_TASK }}
"""

import json
import re
from collections.abc import Callable, Mapping

from wherry.errors import InvalidArgument
from wherry.logs.info import Info, attributes, fields

_TOKEN = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|`([^`]*)`|(-?\d+)|(\(\.ExtraAttributes nil\)\.\w+)|([.\w]+)|(\|))')
_NAMES = frozenset(fields({})) | {
    *("ContainerID", "ContainerName", "ContainerEntrypoint", "ContainerImageID", "ContainerImageName"),
    *("ContainerCreated", "LogPath"),
}
_FUNCTIONS: dict[str, tuple[int, Callable[..., str]]] = {
    "lower": (1, lambda text: str(text).lower()),
    "upper": (1, lambda text: str(text).upper()),
    "title": (1, lambda text: str(text).title()),
    "json": (1, lambda value: json.dumps(value)),
    "print": (1, lambda value: str(value)),
    "truncate": (2, lambda text, size: str(text)[: int(size)]),
    "pad": (3, lambda text, before, after: f"{' ' * int(before)}{text}{' ' * int(after)}" if text else ""),
}
Word = tuple[str, str]


def check(template: str) -> None:
    """InvalidArgument, naming what is wrong, for a template that cannot be rendered."""
    for action in _actions(template):
        _evaluate(action, dict.fromkeys(_NAMES, ""), {})


def render(template: str, info: Info, options: Mapping[str, str]) -> str:
    """The tag of one container."""
    known = dict.fromkeys(_NAMES, "") | fields(info)
    extra = attributes(info, options)
    pieces = re.split(r"(\{\{.*?\}\})", template)
    return "".join(str(_evaluate(_words(piece), known, extra)) if piece.startswith("{{") else piece for piece in pieces)


def _actions(template: str) -> list[list[Word]]:
    pieces = re.split(r"(\{\{.*?\}\})", template)
    if any("{{" in piece or "}}" in piece for piece in pieces[::2]):
        raise _malformed(template)
    return [_words(piece) for piece in pieces[1::2]]


def _malformed(text: str) -> InvalidArgument:
    return InvalidArgument(f"tag: {text!r} is not a template known here", object="tag", hint="as in {{.Name}}/{{.ID}}")


def _words(action: str) -> list[Word]:
    text, words, place = action[2:-2].strip(" -"), [], 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None or found.end() == place:
            raise _malformed(action)
        quoted, raw, number, extra, name, pipe = found.groups()
        if pipe:
            words.append(("pipe", ""))
        elif extra:
            words.append(("extra", extra.rpartition(".")[2]))
        elif name:
            words.append(("name", name))
        else:
            words.append(("value", raw if raw is not None else quoted if quoted is not None else number))
        place = found.end()
        text = text.rstrip()
    if not words:
        raise _malformed(action)
    return words


def _evaluate(words: list[Word], known: Mapping[str, str], extra: Mapping[str, str]) -> str:
    result: str | None = None
    stage: list[Word] = []
    for word in [*words, ("pipe", "")]:
        if word[0] != "pipe":
            stage.append(word)
            continue
        if not stage:
            raise _malformed("|")
        result = _stage(stage, result, known, extra)
        stage = []
    return result or ""


def _stage(stage: list[Word], piped: str | None, known: Mapping[str, str], extra: Mapping[str, str]) -> str:
    (kind, first), rest = stage[0], stage[1:]
    if kind == "name" and not first.startswith("."):
        if first not in _FUNCTIONS:
            raise InvalidArgument(f"tag: function {first!r} is not known", object="tag")
        count, function = _FUNCTIONS[first]
        arguments = [_value(word, known, extra) for word in rest] + ([piped] if piped is not None else [])
        if len(arguments) != count:
            raise InvalidArgument(f"tag: {first} takes {count} values, not {len(arguments)}", object="tag")
        try:
            return function(*arguments)
        except ValueError as error:
            raise InvalidArgument(f"tag: {first}: {error}", object="tag") from None
    if rest or piped is not None:
        raise _malformed(" ".join(text for _, text in stage))
    return _value(stage[0], known, extra)


def _value(word: Word, known: Mapping[str, str], extra: Mapping[str, str]) -> str:
    kind, text = word
    if kind == "value":
        return text
    if kind == "extra":
        return extra.get(text, "<no value>")
    name = text.removeprefix(".")
    if not text.startswith(".") or name not in known:
        raise InvalidArgument(f"tag: {text!r} is not a field of a container", object="tag")
    return known[name]
