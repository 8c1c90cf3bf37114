"""Parser directives: `# key=value` comments at the very top (reference.md, "Parser directives")."""

import re
from dataclasses import dataclass, field

from wherry.build.dockerfile.source import DockerfileError, Source, Span

_DIRECTIVE = re.compile(r"#[ \t]*([A-Za-z][A-Za-z0-9]*)[ \t]*=[ \t]*(.+?)[ \t]*\Z")
_KNOWN = ("syntax", "escape", "check")


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """`# check=`: rules to skip ("all" for every one), and whether a finding fails the build."""

    skip: frozenset[str] = frozenset()
    error: bool = False
    experimental: frozenset[str] = frozenset()

    def skips(self, rule: str) -> bool:
        return "all" in self.skip or rule in self.skip

    def includes(self, rule: str) -> bool:
        """Whether an experimental rule is asked for."""
        return "all" in self.experimental or rule in self.experimental


@dataclass(frozen=True, slots=True)
class Directives:
    syntax: str = ""
    escape: str = "\\"
    check: CheckSettings = field(default_factory=CheckSettings)
    lines: int = 0
    """How many lines they take."""


def read_directives(source: Source, lines: list[str]) -> Directives:
    """The directives `lines` begin with; DockerfileError for one that is given twice or has no meaning."""
    found: dict[str, str] = {}
    count = 0
    for number, line in enumerate(lines, 1):
        match = _DIRECTIVE.match(line.strip())
        key = match.group(1).lower() if match else ""
        if match is None or key not in _KNOWN:
            break
        span = Span(number, number)
        if key in found:
            raise DockerfileError(f"only one {key} parser directive can be used", source, span)
        found[key] = match.group(2)
        count = number
        if key == "escape" and found[key] not in ("\\", "`"):
            raise DockerfileError(f"invalid ESCAPE token '{found[key]}' does not match ` or \\", source, span)
        if key == "check":
            _check(found[key], source, span)
    check = parse_check(found["check"]) if "check" in found else CheckSettings()
    return Directives(found.get("syntax", ""), found.get("escape", "\\"), check, count)


def parse_check(text: str) -> CheckSettings:
    """`skip=A,B;error=true;experimental=C`; ValueError says what is wrong."""
    values: dict[str, str] = {}
    for part in text.split(";"):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or key not in ("skip", "error", "experimental"):
            raise ValueError(f"invalid check option {part.strip()!r}: expected skip=..., error=... or experimental=...")
        values[key] = value
    if values.get("error", "false").lower() not in ("true", "false", "1", "0", "t", "f"):
        raise ValueError(f"failed to parse check option error={values['error']}: it is true or false")
    return CheckSettings(
        skip=_names(values.get("skip", "")),
        error=values.get("error", "").lower() in ("true", "1", "t"),
        experimental=_names(values.get("experimental", "")),
    )


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def _check(text: str, source: Source, span: Span) -> None:
    try:
        parse_check(text)
    except ValueError as error:
        raise DockerfileError(str(error), source, span) from None
