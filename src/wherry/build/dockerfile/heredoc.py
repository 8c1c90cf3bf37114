"""Here-documents: `<<EOF`, `<<-EOF`, `<<"EOF"` (reference.md, "Here-Documents")."""

import re
from dataclasses import dataclass

from wherry.build.dockerfile.words import ExpansionError, Words

_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]*)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Heredoc:
    """`content` is as it stands in the file, with line ends; `expand`: variables in it are replaced (no quotes)."""

    name: str
    content: str = ""
    expand: bool = True
    chomp: bool = False
    descriptor: int = 0

    @property
    def text(self) -> str:
        """The content, without leading tabs if `<<-` asks for that."""
        if not self.chomp:
            return self.content
        return "".join(line.lstrip("\t") for line in self.content.splitlines(keepends=True))


def parse_heredoc(word: str, escape: str = "\\") -> Heredoc | None:
    """The here-document a word opens, or None."""
    match = _HEREDOC.match(word)
    if match is None or not match.group(3):
        return None
    rest = match.group(3)
    try:
        names = Words(escape, keep_unset=True).split(rest, {})
        raw = Words(escape, keep_unset=True, raw_quotes=True, raw_escapes=True).split(rest, {})
    except ExpansionError:
        return None
    if len(names) != 1:
        return None
    digits = match.group(1)[:9]
    return Heredoc(names[0], "", names == raw, match.group(2) == "-", int(digits) if digits else 0)


def heredocs_of(line: str, escape: str = "\\") -> list[Heredoc]:
    """Those a whole line opens, in order."""
    if "<<" not in line:
        return []
    try:
        words = Words(escape, raw_quotes=True, raw_escapes=True, keep_unset=True).split(line, {})
    except ExpansionError:
        return []
    return [found for found in (parse_heredoc(word, escape) for word in words) if found is not None]
