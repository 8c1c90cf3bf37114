"""How instructions split what follows their name: JSON lists, blanks, NAME=value pairs."""

import json

_BLANK = " \t\r\n\v\f"


class NotStrings(ValueError):
    """A JSON list with something else than strings in it."""


def json_words(text: str) -> tuple[str, ...] | None:
    """The exec form, or None when the text is not a JSON list: then it is the shell form."""
    if not text.lstrip(_BLANK).startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list):
        return None
    if not all(isinstance(word, str) for word in value):
        raise NotStrings("When using JSON array syntax, arrays must be comprised of strings only.")
    return tuple(value)


def blank_words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def quoted_words(text: str, escape: str = "\\") -> list[str]:
    """Words split at blanks outside quotes; quotes and escapes stay in them."""
    words: list[str] = []
    start, quote, index, inside = 0, "", 0, False
    while index < len(text):
        char = text[index]
        if char == escape and quote != "'" and index + 1 < len(text):
            start, inside, index = start if inside else index, True, index + 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char.isspace():
            if inside:
                words.append(text[start:index])
            inside = False
        else:
            start, inside = start if inside else index, True
            quote = char if char in "'\"" else ""
        index += 1
    return [*words, text[start:]] if inside else words


def pairs(text: str, instruction: str, escape: str = "\\") -> tuple[list[tuple[str, str]], bool]:
    """NAME=value words, or the old form `NAME the rest` (then True); quotes are still there. ValueError else."""
    words = quoted_words(text, escape)
    if not words:
        raise ValueError(f"{instruction} requires at least one argument")
    if "=" not in words[0]:
        parts = text.strip(_BLANK).split(None, 1)
        if len(parts) < 2:
            raise ValueError(f"{instruction} must have two arguments")
        return [(parts[0], parts[1])], True
    found = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"Syntax error - can't find = in {go_quote(word)}. Must be of the form: name=value")
        found.append((name, value))
    return found, False


def go_quote(text: str) -> str:
    """As Go's %q."""
    return json.dumps(text, ensure_ascii=False)
