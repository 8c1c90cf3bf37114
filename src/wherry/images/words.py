"""How Dockerfile instructions split their arguments into words (dockerfile/reference.md, "Escape" and "ENV")."""

import json
from collections.abc import Mapping

from wherry.errors import InvalidArgument


def parse_json_words(text: str) -> tuple[str, ...] | None:
    """The exec form (a JSON list of strings), or None when the text is not that: then it is the shell form."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        return None
    return tuple(value)


def split_words(text: str) -> list[str]:
    """Words as ENV and LABEL have them: split at blanks outside quotes; quotes and backslashes stay in the words."""
    words: list[str] = []
    word = quote = ""
    index, inside = 0, False
    while index < len(text):
        char = text[index]
        if char == "\\" and quote != "'" and index + 1 < len(text):
            word, inside, index = word + text[index : index + 2], True, index + 2
            continue
        if quote:
            quote = "" if char == quote else quote
            word += char
        elif char.isspace():
            if inside:
                words.append(word)
            word, inside = "", False
            index += 1
            continue
        else:
            quote = char if char in "'\"" else ""
            word, inside = word + char, True
        index += 1
    return [*words, word] if inside else words


def parse_pairs(text: str, instruction: str) -> list[tuple[str, str]]:
    """NAME=value words, or the old form `NAME the rest`; quotes are still there."""
    words = split_words(text)
    if not words:
        raise InvalidArgument(f"{instruction} requires at least one argument")
    if "=" not in words[0]:
        name, _, rest = text.strip().partition(next((c for c in text.strip() if c.isspace()), " "))
        if not rest.strip():
            raise InvalidArgument(f"{instruction} must have two arguments")
        return [(name, rest.strip())]
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidArgument(f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value')
        pairs.append((name, value))
    return pairs


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Quotes removed, backslashes undone, $NAME and ${NAME} (with :- and :+) put in; unknown names are empty."""
    out: list[str] = []
    index, quoted = 0, False
    while index < len(text):
        char = text[index]
        if char == "'" and not quoted:
            end = text.find("'", index + 1)
            if end < 0:
                raise _unclosed(text, "single-quote")
            out.append(text[index + 1 : end])
            index = end + 1
        elif char == '"':
            quoted = not quoted
            index += 1
        elif char == "\\" and index + 1 < len(text):
            following = text[index + 1]
            # Between double quotes only these lose their backslash, as in a shell.
            out.append(following if not quoted or following in '"$\\' else char + following)
            index += 2
        elif char == "$":
            value, index = _expand_variable(text, index + 1, variables)
            out.append(value)
        else:
            out.append(char)
            index += 1
    if quoted:
        raise _unclosed(text, "double-quote")
    return "".join(out)


def _expand_variable(text: str, index: int, variables: Mapping[str, str]) -> tuple[str, int]:
    if index < len(text) and text[index] == "{":
        end = text.find("}", index)
        if end < 0:
            raise InvalidArgument(f"failed to process \"{text}\": syntax error: missing '}}'")
        body = text[index + 1 : end]
        for operator in (":-", ":+"):
            name, found, other = body.partition(operator)
            if found:
                present = bool(variables.get(name))
                keep = (present, variables.get(name, "")) if operator == ":-" else (not present, "")
                return (keep[1] if keep[0] else expand(other, variables)), end + 1
        if not body.replace("_", "a").isalnum():
            raise InvalidArgument(f'failed to process "{text}": unsupported modifier in substitution')
        return variables.get(body, ""), end + 1
    end = index
    while end < len(text) and (text[end].isalnum() or text[end] == "_"):
        end += 1
    return (variables.get(text[index:end], "") if end > index else "$"), end


def _unclosed(text: str, what: str) -> InvalidArgument:
    shown = text.replace("\\", "\\\\").replace('"', '\\"')
    return InvalidArgument(
        f'failed to process "{shown}": unexpected end of statement while looking for matching {what}'
    )
