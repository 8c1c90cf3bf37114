"""The globs of ${name#pattern}, ${name%pattern} and ${name/pattern/with}: `*`, `?`, and `\\` before either.

Matched by the sets of positions reachable, never by backtracking: a pattern from a stranger costs at most its length
times the text's.
"""

_ANY = object()
_ONE = object()
_Token = object | str


def trim_prefix(text: str, pattern: str, *, longest: bool) -> str:
    """`text` without the shortest (or longest) beginning that matches."""
    ends = _ends(text, 0, _tokens(pattern), first=not longest)
    return text[max(ends) if longest else min(ends) :] if ends else text


def trim_suffix(text: str, pattern: str, *, longest: bool) -> str:
    """`text` without the shortest (or longest) end that matches."""
    backwards, tokens = text[::-1], _tokens(pattern)[::-1]
    ends = _ends(backwards, 0, tokens, first=not longest)
    return text[: len(text) - (max(ends) if longest else min(ends))] if ends else text


def replace(text: str, pattern: str, replacement: str, *, every: bool) -> str:
    """`text` with the first match (the longest at the leftmost place), or each, replaced."""
    tokens = _tokens(pattern)
    out: list[str] = []
    position = 0
    while position <= len(text):
        ends = _ends(text, position, tokens, first=False)
        if ends:
            end = max(ends)
            out.append(replacement)
            if not every:
                return "".join(out) + text[end:]
            if end > position:
                position = end
                if position == len(text):
                    break
                continue
        out.append(text[position : position + 1])
        position += 1
    return "".join(out)


def _tokens(pattern: str) -> list[_Token]:
    tokens: list[_Token] = []
    index = 0
    while index < len(pattern):
        char = pattern[index]
        if char == "\\" and index + 1 < len(pattern):
            index += 1
            tokens.append(pattern[index])
        elif char == "*":
            if not tokens or tokens[-1] is not _ANY:
                tokens.append(_ANY)
        else:
            tokens.append(_ONE if char == "?" else char)
        index += 1
    return tokens


def _ends(text: str, start: int, tokens: list[_Token], *, first: bool) -> list[int]:
    """Where a match that begins at `start` may end; with `first` only the nearest is sure to be among them."""
    states = _closure({0}, tokens)
    ends = [start] if len(tokens) in states else []
    for position in range(start, len(text)):
        if not states or (first and ends):
            break
        char = text[position]
        states = _closure(
            {state if tokens[state] is _ANY else state + 1 for state in states if _takes(tokens, state, char)}, tokens
        )
        if len(tokens) in states:
            ends.append(position + 1)
    return ends


def _takes(tokens: list[_Token], state: int, char: str) -> bool:
    return state < len(tokens) and (tokens[state] is _ANY or tokens[state] is _ONE or tokens[state] == char)


def _closure(states: set[int], tokens: list[_Token]) -> set[int]:
    """An asterisk may take nothing."""
    for state in list(states):
        while state < len(tokens) and tokens[state] is _ANY:
            state += 1
            states.add(state)
    return states
